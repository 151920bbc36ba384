"""What each optimizer step shows: a line of metrics, diagnostics, and warnings."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import TrainerCallback

from .. import run_dir
from ..progress import Advance
from ..schemas import StepMetrics
from .diagnostics import DeadSteps, NoiseScale, WeightWatch

_log = logging.getLogger("ssdfast.training.step_log")

MAX_NOISE_RATIO = 100.0
COMPLETE = "complete"
"""file of a checkpoint that was written completely"""
_MIN_STEPS_OF_RATIO = 10
"""before a ratio of averages is reliable"""
# Peak dense bf16 FLOP per second, by the makers' data sheets.
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


class StepLog(TrainerCallback):
    """Metrics and warnings of each optimizer step."""

    def __init__(self, trainer: transformers.Trainer, metrics_file: Path, rounds_stochastically: bool) -> None:
        self.trainer, self.metrics_file = trainer, metrics_file
        self.rounds_stochastically = rounds_stochastically
        self.values: dict[str, float] = {}
        """metrics of the last step"""
        self.advance: Advance | None = None
        self.last_step: int | None = None
        """step after which training stops, whatever the schedule"""
        self.noise: NoiseScale
        self.watch: WeightWatch
        self.norm = math.nan
        self.dead_steps = DeadSteps(float(trainer.args.learning_rate))
        self.warned: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self.loss, self.tokens, self.all_tokens, self.start = 0.0, 0, 0, time.perf_counter()
        self.first_non_finite = ""

    def add(self, loss: Tensor, inputs: dict[str, Any]) -> None:
        """Counts a micro-batch."""
        value = float(loss.detach()) / self.trainer.accelerator.num_processes
        self.loss += value
        self.tokens += num_labels(inputs)
        self.all_tokens += inputs["input_ids"].numel()
        if not math.isfinite(value) and not self.first_non_finite:
            names = inputs["traces"]
            others = f" and {len(names) - 3:,} others" if len(names) > 3 else ""
            self.first_non_finite = f"the loss of {', '.join(names[:3])}{others}"

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        # Not earlier: sharding replaces the parameters.
        network: Any = self.trainer.model
        parameters = list(network.parameters())
        self.noise, self.watch = NoiseScale(parameters), WeightWatch(parameters, args.seed)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.noise.close()

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._reset()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.watch.record()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        change = self.watch.compare()
        noise_and_signal = self.noise.end_step(self.norm)
        loss, tokens, all_tokens = self._sum_over_ranks()
        seconds = time.perf_counter() - self.start
        self.values = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "grad_norm": self.norm,
            "learning_rate": float(self.trainer._get_learning_rate()),
            "frac_weights_changed": change.frac_changed,
            "median_change_ulps": change.median_ulps,
            "tokens": tokens,
            "tokens_per_second": all_tokens / seconds,
            "peak_memory_gb": _peak_bytes() / 1e9,
        }
        if noise_and_signal:
            self.values |= {"grad_noise_var": noise_and_signal[0], "grad_signal_sq": noise_and_signal[1]}
        if (peak := peak_flops()) is not None:
            weights = sum(p.numel() for p in self.noise.parameters)
            self.values["mfu"] = 6 * weights * all_tokens / seconds / peak / self.trainer.accelerator.num_processes

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        line = {"step": state.global_step, **self.values}
        if self.trainer.is_world_process_zero():
            finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
            metrics = StepMetrics.model_validate(finite)
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics.to_json(), allow_nan=False) + "\n")
            self._warn(state.global_step)
        if self.advance:
            self.advance(1)
        control.should_training_stop |= state.global_step == self.last_step

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Marks the checkpoint as complete. Without the mark, a run continues from the checkpoint before it."""
        if self.trainer.is_world_process_zero():
            run_dir.write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, "")

    def _sum_over_ranks(self) -> tuple[float, int, int]:
        own = torch.tensor(
            [self.loss, self.tokens, self.all_tokens], dtype=torch.float64, device=self.trainer.args.device
        )
        if self.trainer.accelerator.num_processes > 1:
            torch.distributed.all_reduce(own)
        return float(own[0]), int(own[1]), int(own[2])

    def _warn(self, step: int) -> None:
        if not math.isfinite(self.norm):
            what = self.first_non_finite or "a gradient"
            _log.warning("step %d was skipped: %s is not finite", step, what)
        elif not self.rounds_stochastically and self.dead_steps.add(
            self.values["frac_weights_changed"], self.values["learning_rate"]
        ):
            count = self.dead_steps.count
            _log.warning(
                "step %d changed %.3f %% of the weights%s: most updates are smaller than one ULP and round to nothing"
                " (train float32 weights, or raise learning_rate)",
                step,
                100 * self.values["frac_weights_changed"],
                f", as did {count:,} steps so far" if count > 1 else "",
            )
        noise, signal = self.values.get("grad_noise_var"), self.values.get("grad_signal_sq")
        if noise is None or signal is None or step < _MIN_STEPS_OF_RATIO:
            return
        if noise > MAX_NOISE_RATIO * max(signal, 0.0):
            self._warn_once(
                "noise",
                f"after {step} steps the gradient noise is over {MAX_NOISE_RATIO:g} times the signal: most of a step is"
                " noise (use loss=soft, or a larger batch_size)",
            )

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            _log.warning(text)


def num_labels(inputs: dict[str, Any]) -> int:
    """Completion tokens of a micro-batch that are trained on."""
    return 0 if inputs.get("dummy") else len(inputs["labels"])


def _peak_bytes() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_flops() -> float | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for known, flops in _PEAK_FLOPS.items() if known in name), None)
