"""Checkpoints that stay as models, for a probe of the trajectory of a training.

A checkpoint that a run can continue from has the optimizer's state too, twice the size of the model. Only the newest
one needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .step_log import COMPLETE

_STATE = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "training_args.bin")
_RANDOM_STATE = "rng_state"


class KeptCheckpoints(TrainerCallback):
    """Takes the state of training out of every checkpoint but the newest."""

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.is_world_process_zero:
            remove_state(Path(args.output_dir), but=f"checkpoint-{state.global_step}")


def remove_state(checkpoints: Path, but: str = "") -> None:
    """Leave of each complete checkpoint its model and tokenizer. but: the name of one that is left as it is."""
    for directory in checkpoints.glob("checkpoint-*"):
        if directory.name != but and (directory / COMPLETE).exists():
            for file in directory.iterdir():
                is_random_state = file.name.startswith(_RANDOM_STATE) and file.suffix == ".pth"
                if file.name in _STATE or is_random_state:
                    file.unlink()
