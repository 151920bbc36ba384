"""The card of a trained model: README.md beside its weights, as the Hub reads it."""

from __future__ import annotations

import yaml

from ..config import TrainingRunConfig
from ..run_dir import schema_stamp

_SETTINGS = (
    *("loss", "learning_rate", "min_learning_rate", "warmup_steps", "weight_decay", "batch_size", "num_train_epochs"),
    *("max_grad_norm", "optimizer", "lora_rank", "correct_only", "seed"),
)


def model_card(config: TrainingRunConfig, num_traces: int, steps: int) -> str:
    """Markdown with YAML in front: what the model was trained from, on how many traces, with which settings."""
    front = {"library_name": "transformers", "base_model": config.model, "tags": ["ssdfast", "self-distillation"]}
    rows = "\n".join(f"| `{name}` | {getattr(config, name)} |" for name in _SETTINGS)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# A self-distilled model\n\n"
        f"`{config.model}`, fine-tuned by ssdfast {schema_stamp()['ssdfast_version']} on {num_traces:,} traces"
        f" (`{config.traces}`) in {steps:,} steps.\n\n| setting | value |\n|---|---|\n{rows}\n"
    )
