"""What the operations of the probe ask of their tokens and of a specification."""

from __future__ import annotations

import torch
from torch import Tensor

from .schema import ProbeSpec


def check_token(token_N: Tensor, rows: Tensor) -> None:
    """Raises ValueError unless token_N is integer [N] beside ``rows`` [N, ...]."""
    n = rows.shape[0]
    if token_N.shape != (n,) or token_N.is_floating_point() or token_N.dtype == torch.bool:
        raise ValueError(f"token_N must be integer [{n}], got {token_N.dtype} {list(token_N.shape)}")
    if token_N.device != rows.device:
        raise ValueError(f"token_N is on {token_N.device}, the models' tensors on {rows.device}")


def check_token_class(spec: ProbeSpec, vocabulary: int) -> None:
    """Raises ValueError where ``spec`` classifies another vocabulary."""
    if spec.token_class is not None and spec.token_class.shape[0] != vocabulary:
        raise ValueError(f"token_class has {spec.token_class.shape[0]} entries for a vocabulary of {vocabulary}")


def check_token_ids(token_N: Tensor, vocabulary: int) -> None:
    """Raises ValueError that names the first token outside the vocabulary. Reads the tokens: a GPU is waited for."""
    if token_N.numel() == 0:
        return
    smallest, largest = token_N.aminmax()
    if int(smallest) < 0 or int(largest) >= vocabulary:
        at = int(((token_N < 0) | (token_N >= vocabulary)).nonzero()[0, 0])
        raise ValueError(f"token_N[{at}] = {int(token_N[at])} lies outside the vocabulary 0..{vocabulary - 1}")
