"""Checks of logits, tokens and token classes, shared by the operations of the probe."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import DTYPES
from .schema import ProbeSpec


def check_logits(a: Tensor, b: Tensor | None) -> None:
    """Raises ValueError unless both models' logits have one shape [N, V], a known dtype and unit stride along V."""
    for name, logits in (("logits_base_NV", a), ("logits_trained_NV", b)):
        if logits is None:
            continue
        if logits.dim() != 2:
            raise ValueError(f"{name} must have shape [N, V], got {list(logits.shape)}")
        if logits.dtype not in (*DTYPES, torch.float64):
            raise ValueError(f"{name} must be bf16, fp16, fp32 or fp64, got {logits.dtype}")
        if not has_unit_stride(logits):
            raise ValueError(f"{name} has stride {logits.stride(1)} along the vocabulary: call .contiguous() first")
    if b is not None:
        if a.shape != b.shape:
            raise ValueError(
                f"logits_base_NV and logits_trained_NV differ in shape: {list(a.shape)} and {list(b.shape)}"
            )
        if a.dtype != b.dtype:
            raise ValueError(f"logits_base_NV and logits_trained_NV differ in dtype: {a.dtype} and {b.dtype}")
        if a.device != b.device:
            raise ValueError(
                f"logits_base_NV and logits_trained_NV are on different devices: {a.device} and {b.device}"
            )


def has_unit_stride(matrix: Tensor) -> bool:
    """Whether the entries of each row are side by side. Without rows, strides mean nothing: numpy's are (0, 0)."""
    return matrix.stride(1) == 1 or matrix.shape[1] <= 1 or matrix.shape[0] == 0


def check_token(token_N: Tensor, rows: Tensor) -> None:
    """Raises ValueError unless token_N is integer [N] on the device of ``rows`` [N, ...]."""
    n = rows.shape[0]
    if token_N.shape != (n,) or token_N.is_floating_point() or token_N.dtype == torch.bool:
        raise ValueError(f"token_N must be integer [{n}], got {token_N.dtype} {list(token_N.shape)}")
    if token_N.device != rows.device:
        raise ValueError(f"token_N is on {token_N.device}, the models' tensors are on {rows.device}")


def check_token_class(spec: ProbeSpec, vocabulary: int) -> None:
    """Raises ValueError where ``spec.token_class`` is of a vocabulary of another size."""
    if spec.token_class is not None and spec.token_class.shape[0] != vocabulary:
        raise ValueError(f"token_class has {spec.token_class.shape[0]} entries for a vocabulary of {vocabulary}")


def check_token_ids(token_N: Tensor, vocabulary: int) -> None:
    """Raises ValueError that names the first token outside the vocabulary. Reading the tokens waits for a GPU."""
    if token_N.numel() == 0:
        return
    smallest, largest = token_N.aminmax()
    if int(smallest) < 0 or int(largest) >= vocabulary:
        n = int(((token_N < 0) | (token_N >= vocabulary)).nonzero()[0, 0])
        raise ValueError(f"token_N[{n}] must be in [0, {vocabulary - 1}], got {int(token_N[n])}")
