"""Sampling parameters, and those of published recipes.

The paper is "Embarrassingly Simple Self-Distillation Improves Code Generation" (arXiv 2604.01193). Its temperatures
differ by model, so each checkpoint that its authors released has a preset of its own. The parameters stand in the model
cards, under "Self-distillation sampling" and "Evaluation sampling".
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from .base import Settings


class SamplingParams(Settings):
    """Sampling parameters: logits are divided by the temperature, then top-k applies, then top-p."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """The sampling temperature; 0 stands for greedy decoding and is stored as top_k 1 at temperature 1."""
    top_k: Annotated[int, Field(ge=0)] = 20
    """The number of most likely tokens that can be sampled; 0 allows all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The probability mass of the nucleus; 1 allows all tokens."""

    @model_validator(mode="before")
    @classmethod
    def _greedy(cls, values: Any) -> Any:
        if isinstance(values, dict) and _is_zero(values.get("temperature")):
            return {**values, "temperature": 1.0, "top_k": 1}
        return values


def _is_zero(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and value is not None and float(value) == 0
    except (TypeError, ValueError):
        return False


class EngineSamplingParams(SamplingParams):
    """Sampling parameters of the engines, which have two more.

    The presence penalty is subtracted from the logits first; min-p follows the temperature.
    """

    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The smallest probability that a token can have, as a fraction of the most likely token's; 0 allows all."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """The number that is subtracted from the logit of every token that the completion already contains."""

    def kernel_params(self) -> SamplingParams:
        """The sampling parameters that the kernels know: without min-p and the penalty."""
        return SamplingParams(**{name: getattr(self, name) for name in SamplingParams.model_fields})


class Preset(Settings):
    """The sampling parameters of a recipe: of its training samples, and of its evaluation."""

    train_sampling: SamplingParams
    eval_sampling: SamplingParams


PRESETS = {
    # Qwen3-4B-Instruct-2507, https://huggingface.co/apple/SimpleSD-4B-instruct
    "paper-4b-instruct": Preset(
        train_sampling=SamplingParams(temperature=1.6, top_k=20, top_p=0.8),
        eval_sampling=SamplingParams(temperature=1.1, top_k=20, top_p=0.8),
    ),
    # Qwen3-30B-A3B-Instruct-2507, https://huggingface.co/apple/SimpleSD-30B-instruct
    "paper-30b-instruct": Preset(
        train_sampling=SamplingParams(temperature=1.6, top_k=20, top_p=0.8),
        eval_sampling=SamplingParams(temperature=0.9, top_k=20, top_p=0.8),
    ),
    # Qwen3-4B-Thinking-2507, https://huggingface.co/apple/SimpleSD-4B-thinking
    "paper-4b-thinking": Preset(
        train_sampling=SamplingParams(temperature=1.1, top_k=20, top_p=0.95),
        eval_sampling=SamplingParams(temperature=0.7, top_k=20, top_p=0.95),
    ),
    # The replication on competition mathematics with Qwen3.5-4B, https://flf.dev/20260615-ssd-recipe
    "math": Preset(
        train_sampling=SamplingParams(temperature=1.1, top_k=20, top_p=0.95),
        eval_sampling=SamplingParams(temperature=1.0, top_k=20, top_p=0.95),
    ),
    # The demo's own, on a model of 135M parameters.
    "demo": Preset(
        train_sampling=SamplingParams(temperature=1.1, top_k=20, top_p=0.95),
        eval_sampling=SamplingParams(temperature=1.0, top_k=20, top_p=0.95),
    ),
}
