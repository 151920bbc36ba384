"""The C++ backend: csrc/ through torch's own thread pool.

The instruction set is chosen at run time; the environment variable SSDFAST_CPU (avx512, avx2, portable) forces one.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .. import _C  # type: ignore[attr-defined]  # noqa: F401  # loading it registers the operator
from .schema import ProbeSpec, new_packed


def probe_stats_packed(
    logits_a_NV: Tensor, logits_b_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns (see ``schema.columns``) of CPU tensors in bf16, fp16 or fp32.

    Each thread keeps one pair of rows in its cache and less than 1 MB of working memory, whatever N is.
    """
    if logits_a_NV.device.type != "cpu":
        raise ValueError(f"backend 'cpu' takes tensors on the CPU, got {logits_a_NV.device}")
    floats, ints = new_packed(logits_a_NV, logits_a_NV.shape[0], spec, logits_b_NV is not None)
    token_class = None if spec.token_class is None else spec.token_class.contiguous()
    torch.ops.ssdfast_cpu.probe_stats(
        logits_a_NV, logits_b_NV, token_N.contiguous(), token_class, floats, ints, spec.n_classes, spec.top,
        spec.sweeps, [spec.decoding.temperature, spec.decoding.top_p, spec.train.temperature, spec.train.top_p],
        [spec.decoding.top_k, spec.train.top_k], list(spec.temperatures), os.environ.get("SSDFAST_CPU", ""),
    )  # fmt: skip
    return floats, ints
