"""A study from its file to its verdict. Running it again runs what is missing or was changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ... import models, run_dir
from ...config import StudyConfig, StudyExecution, dump, load, read_yaml
from ...config.study import STUDIES
from ...problems.problem import write_problems
from ...problems.reasoning_gym import chain_sums
from ...problems.sources import load_problems
from ...progress import say
from ...report.study import Study
from ...report.study_page import write_study
from .. import demo
from . import graph, memory
from .stages import Stages

SMOLLM2 = "smollm2"
REPORT = "report.html"


def read_study(file: str) -> StudyConfig:
    """Settings of a study file, or of a preset by its name. Raises ValueError that names file, key and remedy."""
    values = {"preset": file} if file in STUDIES and not Path(file).exists() else read_yaml(Path(file))
    preset = values.pop("preset", None)
    if preset is not None and preset not in STUDIES:
        raise ValueError(f"{file}: preset: there is no {preset!r}, there are {', '.join(STUDIES)}")
    return load(StudyConfig, {**STUDIES.get(preset or "", {}), **values}, file)


def study(config: StudyConfig, out: Path, execution: StudyExecution | None = None) -> dict[str, Any] | None:
    """Run in `out` what is missing and write its report; returns what attribution.json holds, None while other arms are
    still to run.

    Raises ValueError for settings that will not do, RunError where a stage failed, which the same command tries again.
    """
    execution = execution or StudyExecution()
    stages = stages_of(config, out, execution)
    if execution.arms:
        graph.run([stage for arm in execution.arms for stage in stages.of_arm(arm)])
        if not all(stage.done for stage in graph.ordered(stages.all()) if stage.kind not in ("compare", "attribute")):
            return None
    graph.run(stages.all())
    for stage, file in ((stages.compared, "eval/results.json"), (stages.attributed, "attribution.json")):
        with run_dir.atomic(out / Path(file).name) as temporary:
            shutil.copyfile(stage.directory / file, temporary)
    found: dict[str, Any] = run_dir.read_json(out / "attribution.json")
    write_study(out / REPORT, page_of(stages, out))
    return found


def page_of(stages: Stages, out: Path) -> Study:
    """What the report of a study that has run is made of."""
    return Study(
        out.resolve().name,
        stages.config.control,
        list(stages.trainings()),
        run_dir.read_json(out / "results.json"),
        run_dir.read_json(out / "attribution.json"),
        run_dir.read_json(stages.attributed.directory / "panels.json"),
        stages.config.model_dump(mode="json"),
    )


def plan(config: StudyConfig, out: Path, execution: StudyExecution) -> str:
    """What is done and what is to do, a line a stage, and the memory that it takes."""
    stages = stages_of(config, out, execution)
    told = graph.plan([stage for arm in execution.arms for stage in stages.of_arm(arm)] or stages.all())
    return "\n".join([told, *memory.told(stages.config, stages.model)])


def stages_of(config: StudyConfig, out: Path, execution: StudyExecution) -> Stages:
    """Raises ValueError for an arm that is not there, problems that cannot be read, and problems asked that are among
    those to learn from."""
    out = out.resolve()
    for arm in execution.arms:
        if arm not in config.arms:
            raise ValueError(f"there is no arm {arm!r}: the arms are {', '.join(config.arms)}")
    with run_dir.lock(out / ".setup"):
        run_dir.write_text(out / "study.yaml", dump(config))
        if config.model == SMOLLM2:
            config = _with_demo(config, out)
    if not config.problems.sources or not config.asked.sources:
        raise ValueError("a study needs problems.sources to learn from and asked.sources to be evaluated on")
    if not config.problems.held_out:
        problems = config.problems.model_copy(update={"held_out": config.asked.sources})
        config = config.model_copy(update={"problems": problems})
    counts = len(load_problems(config.problems).problems), len(load_problems(config.asked).problems)
    models.outline(config.model)
    return Stages(config, out, config.model, counts, execution)


def _with_demo(config: StudyConfig, out: Path) -> StudyConfig:
    """The demo's model, and unless the file names others, its sums, how they are asked, and which are held out."""
    changes: dict[str, Any] = {"model": str(demo.convert(out / "model"))}
    if not config.problems.sources:
        learnt, asked = out / "problems.jsonl", out / "asked.jsonl"
        settings = demo.DemoConfig()
        sums = chain_sums(settings.train_problems + settings.held_out_problems, settings.seed)
        if not asked.exists():
            say("writing the sums to learn from and those held out")
            write_problems(learnt, sums[: settings.train_problems])
            write_problems(asked, sums[settings.train_problems :])
        changes["problems"] = config.problems.model_copy(
            update={"sources": (str(learnt),), "near_duplicates": 1.0, "contaminated": "keep"}
        )
        changes["asked"] = config.asked.model_copy(update={"sources": (str(asked),)})
        changes["prompt"] = demo.PROMPT
    return config.model_copy(update=changes)
