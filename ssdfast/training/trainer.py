"""transformers' Trainer with our loss, and what each step shows: metrics, diagnostics, warnings."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from .. import run_dir
from ..config import TrainConfig, TrainExecution
from ..progress import Advance, say
from .diagnostics import NoiseScale, WeightWatch
from .label_source import Labels
from .optimizers import optimizer_of
from .prepare_model import autocasts
from .step_dataset import Steps

LEAST_CHANGED = 1e-2
"""share of the weights; SmolLM2 in bfloat16 changes 0.3 % a step at the published learning rates, in float32 99 %.
Rounded by chance few weights change at a time too, and none in vain"""
MOST_NOISE = 100.0
WHOLE = "whole"
"""file of a checkpoint that was written to its end"""
_SETTLED = 10
"""steps before a ratio of averages is worth a warning"""
# Dense bf16 matrix products a second, by the makers' data sheets.
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


def arguments(
    config: TrainConfig, out: Path, seed: int, save_steps: int, execution: TrainExecution
) -> transformers.TrainingArguments:
    """The Trainer's own settings. What a step is, `Steps` says; to the Trainer it is a batch of one."""
    ranks, on_gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    return transformers.TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=1,
        num_train_epochs=1,  # Steps has them all
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": config.min_learning_rate},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=autocasts(config, on_gpu),
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if ranks > 1 and not on_gpu else None,
        fsdp=execution.fsdp and ranks > 1,  # type: ignore[arg-type]
        fsdp_config={"version": 2, "state_dict_type": "FULL_STATE_DICT"} if execution.fsdp else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if execution.trial_steps else "steps",
        save_steps=save_steps,
        save_total_limit=2,
        report_to="none" if execution.trial_steps else list(execution.report_to) or "none",
        remove_unused_columns=False,
        disable_tqdm=True,
        seed=seed,
    )


class SsdTrainer(transformers.Trainer):
    """Writes a line of metrics a step to `metrics`, and says what is wrong once.

    Losses are in nats a completion token of the whole step, whatever its passes and devices.
    """

    def __init__(
        self, network: Any, steps: Steps, labels: Labels, metrics: Path, config: TrainConfig, args: Any
    ) -> None:
        super().__init__(
            model=network,
            train_dataset=steps,
            data_collator=lambda items: items[0],
            args=args,
            optimizer_cls_and_kwargs=optimizer_of(config),
        )
        self.labels = labels
        self.rounds_by_chance = config.optimizer == "adamw_bf16"
        self.step = _Step(self, metrics)
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(self.step)

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate shards over GPUs alone, where torch does over processes of any kind."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and self.accelerator.distributed_type == DistributedType.MULTI_CPU:
            state = self.accelerator.state
            # In both: whoever makes an AcceleratorState again copies the PartialState's into it.
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """All passes of a step; returns its loss on this device, nats a token."""
        copies = isinstance(model, DistributedDataParallel)
        total = torch.zeros((), device=self.args.device)
        for i, one in enumerate(inputs["passes"]):
            waits = copies and i < len(inputs["passes"]) - 1  # sharded gradients do not: they would be whole meanwhile
            with self.accelerator.no_sync(model) if waits else contextlib.nullcontext():
                total += super().training_step(model, one, inputs["tokens"])
            self.step.noise.micro_batch(_counted(one))
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Of one pass, by the tokens of the whole step: the passes' losses add up."""
        label_ids_SK, label_probs_SK = self.labels.of(inputs)
        # The devices' gradients are averaged, where the sum is wanted.
        weight = self.accelerator.num_processes / num_items_in_batch if _counted(inputs) else 0.0
        weight_S = torch.full((len(label_ids_SK),), weight, dtype=torch.float32, device=label_ids_SK.device)
        outputs = model(inputs, label_ids_SK, label_probs_SK, weight_S)
        self.step.forward(outputs["loss"], inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self.step.norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(self.step.norm):
            for parameter in model.parameters():  # no gradient, no step, for AdamW leaves such weights alone
                parameter.grad = None
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self.step.shown, start_time)

    def whole_weights(self) -> dict[str, Tensor] | None:
        """Of a model that is shared out, on the first rank; every rank takes part. None for a model that is not."""
        if not self.is_fsdp_enabled:
            return None
        whole = {}
        network: Any = self.model
        for name, part in network.state_dict().items():
            # One at a time: together they may be more than a device holds.
            weight = part.full_tensor() if isinstance(part, DTensor) else part
            if self.is_world_process_zero():
                whole[name] = weight.cpu()
        return whole

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.is_fsdp_enabled:
            self._save(output_dir, self.whole_weights())
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if output_dir:  # pickled settings, which nothing here reads
            (Path(output_dir) / "training_args.bin").unlink(missing_ok=True)


class _Step(TrainerCallback):
    """What one optimizer step comes to."""

    def __init__(self, trainer: SsdTrainer, metrics: Path) -> None:
        self.trainer, self.metrics = trainer, metrics
        self.shown: dict[str, float] = {}
        self.advance: Advance | None = None
        self.last: int | None = None
        """step after which to stop, whatever the schedule"""
        self.noise: NoiseScale
        self.watch: WeightWatch
        self.norm = math.nan
        self.said: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self.loss, self.tokens, self.all_tokens, self.begun = 0.0, 0, 0, time.perf_counter()
        self.first_bad = ""

    def forward(self, loss: Tensor, inputs: dict[str, Tensor]) -> None:
        value = float(loss.detach()) / self.trainer.accelerator.num_processes
        self.loss += value
        self.tokens += _counted(inputs)
        self.all_tokens += inputs["input_ids"].numel()
        if not math.isfinite(value) and not self.first_bad:
            names = inputs["traces"]
            others = f" and {len(names) - 3:,} others" if len(names) > 3 else ""
            self.first_bad = f"the loss of {', '.join(names[:3])}{others}"

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        # Not before: sharding puts others in the places of the parameters.
        network: Any = self.trainer.model
        parameters = list(network.parameters())
        self.noise, self.watch = NoiseScale(parameters), WeightWatch(parameters, args.seed)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.noise.close()

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.watch.before()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        change = self.watch.after()
        found = self.noise.step(self.norm)
        loss, tokens, all_tokens = self._of_all_ranks()
        seconds = time.perf_counter() - self.begun
        self.shown = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "grad_norm": self.norm,
            "learning_rate": float(self.trainer._get_learning_rate()),
            "frac_weights_changed": change.share,
            "median_change_ulps": change.spacings,
            "tokens": tokens,
            "tokens_per_second": all_tokens / seconds,
            "peak_memory_gb": _peak_bytes() / 1e9,
        }
        if found:
            self.shown |= {"grad_noise_var": found[0], "grad_signal_sq": found[1]}
        if (peak := _peak_flops()) is not None:
            weights = sum(p.numel() for p in self.noise.parameters)
            self.shown["mfu"] = 6 * weights * all_tokens / seconds / peak / self.trainer.accelerator.num_processes

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        line = {"step": state.global_step, **self.shown}
        if self.trainer.is_world_process_zero():
            finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._warn(state.global_step)
        if self.advance:
            self.advance(1)
        control.should_training_stop |= state.global_step == self.last

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Only now is a checkpoint whole: a kill or a full disk before this leaves the one before it."""
        if self.trainer.is_world_process_zero():
            run_dir.write_text(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE, "")

    def _of_all_ranks(self) -> tuple[float, int, int]:
        own = torch.tensor(
            [self.loss, self.tokens, self.all_tokens], dtype=torch.float64, device=self.trainer.args.device
        )
        if self.trainer.accelerator.num_processes > 1:
            torch.distributed.all_reduce(own)
        return float(own[0]), int(own[1]), int(own[2])

    def _warn(self, step: int) -> None:
        if not math.isfinite(self.norm):
            what = self.first_bad or "a gradient"
            say(f"step {step} was skipped: {what} is not finite")
        elif self.shown["frac_weights_changed"] < LEAST_CHANGED and not self.trainer.rounds_by_chance:
            self._once(
                "changed",
                f"step {step} changed {100 * self.shown['frac_weights_changed']:.3f} % of the weights: most updates are"
                " smaller than one ULP and round to nothing (train float32 weights, or raise learning_rate)",
            )
        noise, signal = self.shown.get("grad_noise_var"), self.shown.get("grad_signal_sq")
        if noise is not None and signal is not None and step >= _SETTLED and noise > MOST_NOISE * max(signal, 0.0):
            self._once(
                "noise",
                f"after {step} steps the gradient's noise is over {MOST_NOISE:g} times its signal: most of a step is"
                " chance (loss=soft, or a larger batch_size)",
            )

    def _once(self, what: str, text: str) -> None:
        if what not in self.said:
            self.said.add(what)
            say(text)


def _counted(inputs: dict[str, Any]) -> int:
    """Completion tokens of a pass that are learnt from."""
    return len(inputs["labels"]) if inputs.get("counts", True) else 0


def _peak_bytes() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_flops() -> float | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for known, flops in _PEAK_FLOPS.items() if known in name), None)
