"""A training step of the trainer's own network, loss and optimizer on meta tensors: the bytes at its peak by category.

Forward and backward pass run without the optimizer. Its states are there all the time and are added to the peak of the
passes. The step of the optimizer has a peak of its own.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import Tensor

from ...config import TrainConfig
from ...messages import one_line
from ..activation_checkpointing import decoder
from ..diagnostics import NoiseScale
from ..optimizers import optimizer_cls_and_kwargs
from ..prepare_model import has_attention, prepare, uses_autocast, weights_dtype
from .device_emulation import Autocast, attention, workspaces
from .memory_tracker import DEVICE, HOST, MemoryTracker
from .op_costs import measured_delta_rules

WEIGHTS = "weights"
"""that layers compute with"""
MASTER = "master weights"
"""float32 weights that are converted for computation"""
OPTIMIZER = "optimizer states"
GRADIENTS = "gradients"
SAVED = "saved activations"
LOSS = "loss workspace"
LAYER = "one layer"
"""activations of a layer that is computed, or computed again, and their gradients"""
CATEGORIES = (WEIGHTS, MASTER, OPTIMIZER, GRADIENTS, SAVED, LOSS, LAYER)

Bytes = Counter[str]
"""of each of CATEGORIES, and of HOST"""


def forward_backward_peak(model: Any, config: TrainConfig, on_gpu: bool, tokens: int, labels: int) -> Bytes:
    """A forward and a backward pass, and clipping, at their peak, without optimizer states; HOST at its own.

    It is the second micro-batch of a step or a later one: the gradients of the earlier ones exist.

    model: configuration of a causal LM of transformers. The micro-batch is one trace of so many tokens, all of them
    scored, with so many labels per position.
    Raises ValueError for a model without decoder layers, or whose layers read the values of tensors.
    """
    network, tracker = _prepare(model, config, on_gpu)
    NoiseScale(network.parameters())
    autocast = Autocast() if uses_autocast(config, on_gpu) else contextlib.nullcontext()
    with _emulated_device(on_gpu), measured_delta_rules(network), tracker:
        _fill_gradients(network, tracker)
        _set_categories(network, tracker)
        inputs, *rest = _inputs(tokens, labels)
        try:
            with autocast:
                loss = network(inputs, *rest)["loss"]
            loss.backward()
        except RuntimeError as error:
            raise ValueError(f"a {type(network).__name__} cannot be planned: {one_line(error, 200)}") from error
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
    assert tracker.peak[GRADIENTS] == tracker.current[GRADIENTS]  # summed in place
    return tracker.peak


def optimizer_peak(model: Any, config: TrainConfig, on_gpu: bool) -> tuple[Bytes, Bytes]:
    """The optimizer's states, OPTIMIZER and HOST; and all categories at the peak of its second step.

    adamw itself runs, on the host too. The optimizers of torchao are compiled, which only real tensors can be: their
    states are counted by their bytes per weight, and their steps take nothing beside them, as fused kernels.
    """
    network, tracker = _prepare(model, config, on_gpu)
    parameters = list(network.parameters())
    with _emulated_device(on_gpu), tracker:
        _fill_gradients(network, tracker)
        tracker.category = OPTIMIZER
        if config.optimizer == "adamw":
            cls, kwargs = optimizer_cls_and_kwargs(config)
            optimizer = cls(parameters, **kwargs)
            optimizer.step()
            tracker.reset_peak()
            optimizer.step()
        else:
            sizes = [_state_bytes(p, config.optimizer) for p in parameters]
            states = [torch.empty(size, dtype=torch.uint8, device=DEVICE) for size in sizes]
            tracker.reset_peak()
            assert states
        return Counter({category: tracker.current[category] for category in (OPTIMIZER, HOST)}), tracker.peak


def step_peak(passes: Bytes, states: Bytes, optimizer_step: Bytes) -> Bytes:
    """The peak of a whole step, from the two functions above."""
    passes = passes + states
    return max(passes, optimizer_step | Counter({HOST: passes[HOST]}), key=device_bytes)


def device_bytes(by_category: Bytes) -> int:
    """Bytes of all categories but the host's."""
    return sum(size for category, size in by_category.items() if category != HOST)


def _prepare(model: Any, config: TrainConfig, on_gpu: bool) -> tuple[Any, MemoryTracker]:
    dtype = getattr(torch, weights_dtype(config))
    attention = "sdpa" if has_attention(model, "sdpa") else "eager"
    try:
        with torch.device(DEVICE):
            network = transformers.AutoModelForCausalLM.from_config(model, dtype=dtype, attn_implementation=attention)
    except ValueError as error:
        raise ValueError(f"{type(model).__name__} is not a causal language model of transformers") from error
    network = prepare(network.train(), config, on_gpu)
    tracker = MemoryTracker(LAYER, workspaces(on_gpu), copies=(MASTER, WEIGHTS))
    for x in (*network.parameters(), *network.buffers()):
        tracker.count(x, MASTER if on_gpu and dtype == torch.float32 else WEIGHTS)
    return network, tracker


@contextlib.contextmanager
def _emulated_device(on_gpu: bool) -> Iterator[None]:
    """No stream is created on a GPU of this machine; fused optimizers and attention accept meta tensors."""
    with (
        patch("torch.cuda.is_available", return_value=False),
        patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=[DEVICE]),
        patch("torch.nn.functional.scaled_dot_product_attention", attention(on_gpu)),
    ):
        yield


def _fill_gradients(network: Any, tracker: MemoryTracker) -> None:
    tracker.category = GRADIENTS
    for p in network.parameters():
        p.grad = torch.zeros(p.shape, dtype=p.grad_dtype or p.dtype, device=DEVICE)


def _state_bytes(p: Tensor, optimizer: str) -> int:
    """Of both moments of a weight tensor: in bfloat16; or in 8 bits with one scale per 256 of them, if it has 4,096."""
    if optimizer == "adamw_bf16":
        return 4 * p.numel()
    if p.numel() < 4096 or p.numel() % 256:
        return 8 * p.numel()
    return 2 * p.numel() + 8 * p.numel() // 256


def _set_categories(network: Any, tracker: MemoryTracker) -> None:
    """Changes the category of new tensors as the forward and the backward pass proceed."""
    tracker.category = LAYER

    def save_layer(*_: Any) -> None:  # what is left of the layer that has ended
        tracker.move_all(LAYER, SAVED)

    def enter_backward(_: Tensor) -> None:
        tracker.category = LAYER

    def enter_loss(module: Any, args: Any, outputs: Any) -> None:
        save_layer()
        tracker.category = LOSS
        outputs.last_hidden_state.register_hook(enter_backward)

    base = decoder(network)
    for layer in base.layers:
        layer.register_forward_pre_hook(save_layer)
    base.register_forward_hook(enter_loss)


def _inputs(tokens: int, labels: int) -> tuple[Any, ...]:
    """A trace, and the labels and weights of each of its positions."""
    ids = torch.zeros(1, tokens, dtype=torch.int64, device=DEVICE)
    row_S = torch.zeros(tokens, dtype=torch.int64, device=DEVICE)
    label_ids_SK = torch.zeros(tokens, labels, dtype=torch.int64, device=DEVICE)
    label_probs_SK = torch.zeros(tokens, labels, device=DEVICE)
    return {"input_ids": ids, "row_S": row_S}, label_ids_SK, label_probs_SK, torch.zeros(tokens, device=DEVICE)
