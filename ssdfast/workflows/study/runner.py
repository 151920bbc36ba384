"""A study from its file to its verdicts. Running it again runs what is missing or was changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ... import run_dir
from ...config import StudyConfig, StudyExecution, dump, load, read_yaml
from ...config.study import STUDIES
from ...hub import local_path
from ...problems.problem import Problem
from ...problems.sources import load_problems
from ...report.study import Study
from ...report.study_page import write_study
from ...schemas import AttributionResults, DecodingCurves, EvaluationResults
from ...threads import set_threads
from . import demo, graph
from .stages import Stages

SMOLLM2 = "smollm2"
REPORT, MODELS, EVALUATION = "report.html", "models", "evaluation"


def read_study(file: str) -> StudyConfig:
    """The settings in a study file, or those of a preset. Raises ValueError that names the file, key and remedy."""
    values = {"preset": file} if file in STUDIES and not Path(file).exists() else read_yaml(Path(file))
    preset = values.pop("preset", None)
    if preset is not None and preset not in STUDIES:
        raise ValueError(f"{file}: preset: unknown preset {preset!r}, choose from {', '.join(STUDIES)}")
    return load(StudyConfig, {**STUDIES.get(preset or "", {}), **values}, file)


def study(config: StudyConfig, out: Path, execution: StudyExecution | None = None) -> AttributionResults | None:
    """Run in `out` what is missing and write the report.

    Returns the contents of attribution.json, None while stages of other arms remain. Raises ValueError for settings
    that cannot work, RunError where a stage failed; the same command tries it again.
    """
    execution = execution or StudyExecution()
    stages = make_stages(config, out, execution)
    if execution.only_arms:
        graph.run([stage for arm in execution.only_arms for stage in stages.arm(arm)])
        _link_models(stages, out)
        if not all(stage.done for stage in graph.ordered(stages.final()) if stage.kind not in ("compare", "attribute")):
            return None
    graph.run(stages.final())
    shutil.rmtree(stages.baseline_states, ignore_errors=True)
    _link_models(stages, out)
    for stage, file in ((stages.compare, "eval/results.json"), (stages.attribute, "attribution.json")):
        with run_dir.atomic(out / Path(file).name) as temporary:
            shutil.copyfile(stage.directory / file, temporary)
    run_dir.link(out / EVALUATION, stages.compare.directory)
    write_study(out / REPORT, finished_study(stages, out))
    return AttributionResults.read(out / "attribution.json")


def _link_models(stages: Stages, out: Path) -> None:
    """Link the trained models that are there as OUT/models/ARM-SEED; links of arms that are gone are removed."""
    trained_models = dict(stages.trained_models())
    for name, trained in trained_models.items():
        if trained.is_dir():
            run_dir.link(out / MODELS / name, trained)
    for link in (out / MODELS).iterdir() if (out / MODELS).is_dir() else ():
        if link.is_symlink() and link.name not in trained_models:
            link.unlink()


def finished_study(stages: Stages, out: Path) -> Study:
    """The inputs of the report of a study that has run."""
    return Study(
        out.resolve().name,
        stages.config.control,
        list(stages.trainings()),
        EvaluationResults.read(out / "results.json"),
        AttributionResults.read(out / "attribution.json"),
        DecodingCurves.read(stages.attribute.directory / "decoding_curves.json"),
        stages.config.model_dump(mode="json"),
    )


def estimate(config: StudyConfig, out: Path, execution: StudyExecution) -> str:
    """What is done and what remains, one line per stage; the memory that it takes; and what the design can find."""
    from . import design, memory, trial

    set_threads(execution.engine_args.num_threads)
    stages = make_stages(config, out, execution)
    targets = [stage for arm in execution.only_arms for stage in stages.arm(arm)] or stages.final()
    return "\n".join(
        [
            graph.format_estimate(targets, trial.measure(stages, graph.untimed_kinds(targets))),
            *memory.format_memory(stages.config, stages.model),
            *design.format_design(stages.config, stages.num_eval_problems),
        ]
    )


def make_stages(config: StudyConfig, out: Path, execution: StudyExecution) -> Stages:
    """The stages of a study in `out`.

    Raises ValueError for an unknown arm, for problems that cannot be read, and for problems of the evaluation that are
    among those of training.
    """
    out = out.resolve()
    for arm in execution.only_arms:
        if arm not in config.arms:
            raise ValueError(f"unknown arm {arm!r}: choose from {', '.join(config.arms)}")
    given = config
    with run_dir.lock(out / ".setup"):
        if config.model == SMOLLM2:
            config = _with_demo_inputs(config, out)
    if not config.train_problems.sources or not config.eval_problems.sources:
        raise ValueError("a study needs train_problems.sources for its training samples and eval_problems.sources")
    if not config.train_problems.decontaminate_against:
        problems = config.train_problems.model_copy(update={"decontaminate_against": config.eval_problems.sources})
        config = config.model_copy(update={"train_problems": problems})
    train, evaluation = (load_problems(which).problems for which in (config.train_problems, config.eval_problems))
    stages = Stages(config, out, str(local_path(config.model)), (len(train), len(evaluation)), execution)
    if not all(stage.done for stage in graph.ordered(stages.final())):
        from ... import models

        models.model_info(config.model)  # refuses a broken model before any work
        _check_grading(config, train, evaluation)
    run_dir.write_text(out / "study.yaml", dump(given))
    return stages


def _check_grading(config: StudyConfig, *problem_sets: list[Problem]) -> None:
    """Raises ValueError for a grader or gold answers that the stages would refuse after they have sampled."""
    from ...evaluation.answers.conventions import Conventions
    from ...evaluation.grader_pool import GraderPool
    from ...evaluation.grading import check_golds

    with GraderPool(conventions=Conventions(**config.conventions.model_dump()), grader=config.grader) as pool:
        for problems in problem_sets if config.on_bad_gold == "error" else ():
            check_golds(problems, pool)


def _with_demo_inputs(config: StudyConfig, out: Path) -> StudyConfig:
    """The demo's model and, unless the file names problems, its sums and its prompt."""
    changes: dict[str, Any] = {}
    if not config.train_problems.sources:
        train, evaluation = out / "train_problems.jsonl", out / "eval_problems.jsonl"
        demo.write_sums(train, evaluation)
        changes["train_problems"] = config.train_problems.model_copy(
            update={"sources": (str(train),), "near_duplicate_threshold": 1.0, "on_contamination": "keep"}
        )
        changes["eval_problems"] = config.eval_problems.model_copy(update={"sources": (str(evaluation),)})
        changes["prompt"] = demo.PROMPT
    changes["model"] = str(demo.convert(out / "model"))
    return config.model_copy(update=changes)
