"""A training step of the trainer's own network, loss and optimizer, on tensors without numbers: what is alive at the
peak.

Forward and backward pass run by themselves, and so does the optimizer: what it keeps is there all the time, and adds to
any pass. The optimizer's own step is looked at too.
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
from ..activation_checkpointing import decoder
from ..diagnostics import NoiseScale
from ..optimizers import optimizer_of
from ..prepare_model import autocasts, prepare, weights_dtype
from .device_emulation import Autocast, attention, rooms
from .memory_tracker import DEVICE, HOST, LiveBytes
from .op_costs import measured_delta_rules

WEIGHTS = "weights"
"""that layers compute with"""
MASTER = "master weights"
"""float32 weights that are converted to be computed with"""
MOMENTS = "moments"
GRADIENTS = "gradients"
SAVED = "saved activations"
LOSS = "loss workspace"
LAYER = "one layer"
"""that is computed, or computed again, with the gradients that flow through it"""
PARTS = (WEIGHTS, MASTER, MOMENTS, GRADIENTS, SAVED, LOSS, LAYER)

Bytes = Counter[str]
"""of each of PARTS, and of HOST"""


def of_passes(model: Any, config: TrainConfig, on_gpu: bool, tokens: int, labels: int) -> Bytes:
    """A forward and a backward pass, and clipping, at their peak, without moments; HOST at its own.

    The pass is a step's second or a later one: what has come before it has left its gradients.

    model: settings of a causal LM of transformers. One trace of so many tokens, each scored, with so many labels.
    Raises ValueError for a model that cannot be bounded, or whose layers look at numbers.
    """
    network, live = _prepared(model, config, on_gpu)
    NoiseScale(network.parameters())
    autocast = Autocast() if autocasts(config, on_gpu) else contextlib.nullcontext()
    with _elsewhere(on_gpu), measured_delta_rules(network), live:
        _fill_gradients(network, live)
        _attribute(network, live)
        inputs, *rest = _inputs(tokens, labels)
        try:
            with autocast:
                loss = network(inputs, *rest)["loss"]
            loss.backward()
        except RuntimeError as error:
            raise ValueError(
                f"a {type(network).__name__} cannot be planned: {' '.join(str(error).split())[:200]}"
            ) from error
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
    assert live.peak[GRADIENTS] == live.now[GRADIENTS]  # summed in place
    return live.peak


def of_optimizer(model: Any, config: TrainConfig, on_gpu: bool) -> tuple[Bytes, Bytes]:
    """What the optimizer keeps, MOMENTS and HOST; and its second step at its peak, all of it.

    Of adamw the optimizer itself runs, that on the host too. Those of torchao are compiled, which only real tensors can
    be: their moments are counted by their bytes a weight, and their steps take nothing beside them, as fused kernels.
    """
    network, live = _prepared(model, config, on_gpu)
    parameters = list(network.parameters())
    with _elsewhere(on_gpu), live:
        _fill_gradients(network, live)
        live.part = MOMENTS
        if config.optimizer == "adamw":
            cls, settings = optimizer_of(config)
            optimizer = cls(parameters, **settings)
            optimizer.step()
            live.start()
            optimizer.step()
        else:
            sizes = [_moment_bytes(p, config.optimizer) for p in parameters]
            moments = [torch.empty(size, dtype=torch.uint8, device=DEVICE) for size in sizes]
            live.start()
            assert moments
        return Counter({part: live.now[part] for part in (MOMENTS, HOST)}), live.peak


def of_step(passes: Bytes, kept: Bytes, stepping: Bytes) -> Bytes:
    """The peak of a whole step, from the two above."""
    passes = passes + kept
    return max(passes, stepping | Counter({HOST: passes[HOST]}), key=on_device)


def on_device(found: Bytes) -> int:
    """Bytes of all parts but the host's."""
    return sum(size for part, size in found.items() if part != HOST)


def _prepared(model: Any, config: TrainConfig, on_gpu: bool) -> tuple[Any, LiveBytes]:
    dtype = getattr(torch, weights_dtype(config))
    try:
        with torch.device(DEVICE):
            network = transformers.AutoModelForCausalLM.from_config(model, dtype=dtype, attn_implementation="sdpa")
    except ValueError as error:
        raise ValueError(f"{type(model).__name__} is of no causal language model of transformers") from error
    network = prepare(network.train(), config, on_gpu)
    live = LiveBytes(LAYER, rooms(on_gpu), copies=(MASTER, WEIGHTS))
    for x in (*network.parameters(), *network.buffers()):
        live.count(x, MASTER if on_gpu and dtype == torch.float32 else WEIGHTS)
    return network, live


@contextlib.contextmanager
def _elsewhere(on_gpu: bool) -> Iterator[None]:
    """No GPU of this machine is asked for streams; fused optimizers and attention take what has no device."""
    with (
        patch("torch.cuda.is_available", return_value=False),
        patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=[DEVICE]),
        patch("torch.nn.functional.scaled_dot_product_attention", attention(on_gpu)),
    ):
        yield


def _fill_gradients(network: Any, live: LiveBytes) -> None:
    live.part = GRADIENTS
    for p in network.parameters():
        p.grad = torch.zeros(p.shape, dtype=p.grad_dtype or p.dtype, device=DEVICE)


def _moment_bytes(p: Tensor, optimizer: str) -> int:
    """Of both moments of a weight tensor: in bfloat16; or in 8 bits with a scale to 256 of them, where it has 4,096."""
    if optimizer == "adamw_bf16":
        return 4 * p.numel()
    if p.numel() < 4096 or p.numel() % 256:
        return 8 * p.numel()
    return 2 * p.numel() + 8 * p.numel() // 256


def _attribute(network: Any, live: LiveBytes) -> None:
    """What new tensors count for as a pass goes on."""
    live.part = LAYER

    def outlived(*_: Any) -> None:  # the layer before, which has ended
        live.give_all(LAYER, SAVED)

    def layers_are_behind(_: Tensor) -> None:
        live.part = LAYER

    def layers_are_done(module: Any, args: Any, outputs: Any) -> None:
        outlived()
        live.part = LOSS
        outputs.last_hidden_state.register_hook(layers_are_behind)

    base = decoder(network)
    for layer in base.layers:
        layer.register_forward_pre_hook(outlived)
    base.register_forward_hook(layers_are_done)


def _inputs(tokens: int, labels: int) -> tuple[Any, ...]:
    """A trace, and its labels and weights at each of its places."""
    ids = torch.zeros(1, tokens, dtype=torch.int64, device=DEVICE)
    row_S = torch.zeros(tokens, dtype=torch.int64, device=DEVICE)
    label_ids_SK = torch.zeros(tokens, labels, dtype=torch.int64, device=DEVICE)
    label_probs_SK = torch.zeros(tokens, labels, device=DEVICE)
    return {"input_ids": ids, "row_S": row_S}, label_ids_SK, label_probs_SK, torch.zeros(tokens, device=DEVICE)
