"""transformers' Trainer with our loss and our steps of several micro-batches."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ..config import TrainConfig, TrainExecution
from ..trackers import PROJECT
from .label_source import LabelSource
from .optimizers import optimizer_cls_and_kwargs
from .prepare_model import uses_autocast
from .step_dataset import StepDataset
from .step_log import StepLog, num_labels


def training_arguments(
    config: TrainConfig, directory: Path, seed: int, save_steps: int, execution: TrainExecution, keep_all: bool = False
) -> transformers.TrainingArguments:
    """The Trainer's own settings. An item of `StepDataset` is a whole step, which for the Trainer is a batch of one.

    directory: OUT/train; trackers call the run OUT.
    """
    os.environ.setdefault("WANDB_PROJECT", PROJECT)  # transformers has no other way to say it
    ranks, on_gpu = int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    return transformers.TrainingArguments(
        output_dir=str(directory / "checkpoints"),
        per_device_train_batch_size=1,
        num_train_epochs=1,  # StepDataset has all epochs
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": config.min_learning_rate},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=uses_autocast(config, on_gpu),
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
        save_total_limit=None if keep_all else 2,
        report_to="none" if execution.trial_steps else list(execution.report_to) or "none",
        project=PROJECT,
        run_name=directory.resolve().parent.name,
        remove_unused_columns=False,
        disable_tqdm=True,
        seed=seed,
    )


class SsdTrainer(transformers.Trainer):
    """Writes a line of metrics per step to `metrics_file`, and logs each kind of warning once.

    Losses are in nats per completion token, averaged over the whole step, all its micro-batches and devices.
    """

    def __init__(
        self,
        network: Any,
        dataset: StepDataset,
        label_source: LabelSource,
        metrics_file: Path,
        config: TrainConfig,
        args: Any,
    ) -> None:
        super().__init__(
            model=network,
            train_dataset=dataset,
            data_collator=lambda items: items[0],
            args=args,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(config),
        )
        self.label_source = label_source
        self.tokenizer_of_checkpoints: Any = None
        """is saved beside the weights of each checkpoint, where there is one"""
        self.step_log = StepLog(self, metrics_file, rounds_stochastically=config.optimizer == "adamw_bf16")
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(self.step_log)

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate shards only over GPUs, while torch can shard over processes of any kind."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and self.accelerator.distributed_type == DistributedType.MULTI_CPU:
            state = self.accelerator.state
            # In both: a new AcceleratorState copies the PartialState.
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """All micro-batches of a step; returns its loss on this device, in nats per token."""
        replicated = isinstance(model, DistributedDataParallel)
        total = torch.zeros((), device=self.args.device)
        last = len(inputs["micro_batches"]) - 1
        for i, micro_batch in enumerate(inputs["micro_batches"]):
            # Sharded gradients are synchronized each time, or every device would hold all of them until the last.
            defers_sync = replicated and i < last
            with self.accelerator.no_sync(model) if defers_sync else contextlib.nullcontext():
                total += super().training_step(model, micro_batch, inputs["tokens"])
            self.step_log.noise.end_micro_batch(num_labels(micro_batch))
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch, divided by the tokens of the whole step, so that the losses of its micro-batches
        sum to its loss."""
        label_ids_SK, label_probs_SK = self.label_source.labels(inputs)
        # Gradients are averaged over devices, but their sum is needed.
        weight = self.accelerator.num_processes / num_items_in_batch if num_labels(inputs) else 0.0
        weight_S = torch.full((len(label_ids_SK),), weight, dtype=torch.float32, device=label_ids_SK.device)
        outputs = model(inputs, label_ids_SK, label_probs_SK, weight_S)
        self.step_log.add(outputs["loss"], inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        self.step_log.norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(self.step_log.norm):
            for parameter in model.parameters():  # AdamW skips weights without a gradient
                parameter.grad = None
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self.step_log.values, start_time)

    def gather_weights(self) -> dict[str, Tensor] | None:
        """The full weights of a sharded model, on the first rank; every rank must call it. None if not sharded."""
        if not self.is_fsdp_enabled:
            return None
        weights = {}
        network: Any = self.model
        for name, shard in network.state_dict().items():
            # One at a time: together they may be more than a device holds.
            weight = shard.full_tensor() if isinstance(shard, DTensor) else shard
            if self.is_world_process_zero():
                weights[name] = weight.cpu()
        return weights

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.is_fsdp_enabled:
            self._save(output_dir, self.gather_weights())
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if output_dir:  # pickled settings, which are not used
            (Path(output_dir) / "training_args.bin").unlink(missing_ok=True)
        if output_dir and self.tokenizer_of_checkpoints is not None:
            self.tokenizer_of_checkpoints.save_pretrained(output_dir)
