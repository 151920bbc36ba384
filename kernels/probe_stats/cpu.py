"""The C++ backend: csrc/ on torch's own thread pool.

Nothing is shared between calls: threads may call at the same time. For a forked child holds what holds for torch's own
operators: where its parent has computed on several threads, it needs ``torch.set_num_threads(1)``, as ``DataLoader``
sets it in its workers, or it waits for threads that the fork did not copy.

The instruction set is chosen at run time. The environment variable SSDFAST_CPU (amx, avx512, avx2, portable) forces
one; with amx, the product of ``linear_probe_stats`` is that of the matrix unit, and the statistics are in AVX-512.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .. import _C  # type: ignore[attr-defined]  # noqa: F401  # loading it registers the operator
from .schema import ProbeSpec, new_packed
from .state import DIVERGENCES, Layout, PartialState, TopList


def check_device(tensor: Tensor) -> None:
    """Raises ValueError for a tensor that is not on the CPU."""
    if tensor.device.type != "cpu":
        raise ValueError(f"backend 'cpu' takes tensors on the CPU, got {tensor.device}")


def probe_stats_packed(
    logits_base_NV: Tensor, logits_trained_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns (see ``schema.columns``) of CPU tensors in bf16, fp16 or fp32.

    Each thread needs less than 1 MB of working memory, whatever N is: it takes one pair of rows at a time.
    """
    check_device(logits_base_NV)
    floats, ints = new_packed(logits_base_NV, logits_base_NV.shape[0], spec, logits_trained_NV is not None)
    token_class = None if spec.token_class is None else spec.token_class.contiguous()
    evaluation, training = spec.eval_sampling, spec.train_sampling
    torch.ops.ssdfast_cpu.probe_stats(
        logits_base_NV, logits_trained_NV, token_N.contiguous(), token_class, floats, ints, spec.n_classes,
        spec.top_logprobs, spec.sweeps,
        [evaluation.temperature, evaluation.top_p, training.temperature, training.top_p],
        [evaluation.top_k, training.top_k], list(spec.lse_temperatures), os.environ.get("SSDFAST_CPU", ""),
    )  # fmt: skip
    return floats, ints


def partial_state(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    token_z_MN: Tensor,
    spec: ProbeSpec,
    first_id: int,
) -> PartialState:
    """See ``reference_state.partial_state``; bf16, fp16 or fp32, and float32 lists."""
    n, v = logits_base_NV.shape
    layout = Layout.from_spec(spec, logits_trained_NV is not None)
    slots_SN = logits_base_NV.new_empty(layout.slots, n, dtype=torch.float64)
    z_MNK = logits_base_NV.new_empty(layout.models, n, spec.top_logprobs, dtype=torch.float32)
    ids_MNK = torch.empty_like(z_MNK, dtype=torch.int64)
    other_MNK = None if logits_trained_NV is None else torch.empty_like(z_MNK)
    token_class = None if spec.token_class is None else spec.token_class[first_id:][:v].contiguous()
    torch.ops.ssdfast_cpu.probe_state(
        logits_base_NV, logits_trained_NV, token_N.contiguous(), token_z_MN.float().contiguous(), token_class, slots_SN,
        z_MNK, ids_MNK, other_MNK, first_id, spec.n_classes, spec.top_logprobs, spec.sweeps,
        [1 / rate for rate in layout.rates[1:]], os.environ.get("SSDFAST_CPU", ""),
    )  # fmt: skip
    others = [None] if other_MNK is None else list(other_MNK)
    lists = tuple(TopList(*columns) for columns in zip(z_MNK, ids_MNK, others, strict=True))
    return PartialState(layout, slots_SN, lists, token_N, token_z_MN)


def divergences(
    logits_base_NV: Tensor, logits_trained_NV: Tensor, max_MN: Tensor, log_sum_MN: Tensor, pivot_N: Tensor
) -> Tensor:
    """See ``reference_state.divergences``."""
    out_DN = max_MN.new_empty(DIVERGENCES, max_MN.shape[1])
    torch.ops.ssdfast_cpu.probe_divergences(
        logits_base_NV, logits_trained_NV, max_MN.contiguous(), log_sum_MN.contiguous(), pivot_N.double().contiguous(),
        out_DN, os.environ.get("SSDFAST_CPU", ""),
    )  # fmt: skip
    return out_DN
