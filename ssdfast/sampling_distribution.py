"""The sampling distribution q: the tokens of its support, and their probabilities.

Definition, for one position with logits z. Tokens are ranked by falling logit, ties by smaller id.

1. Temperature: z_v / T.
2. Min-p: a token stays if z_v / T is at least that of the first token plus log(min_p).
3. Top-k: the first k tokens stay.
4. Top-p: with m the softmax over the tokens that stayed, a token stays if the mass of m before it is less than top_p.
   The support is the shortest prefix of mass top_p or more.
5. q is the softmax of z / T over the support.

A presence penalty is subtracted from the logits before all of this. The functions take rows of ranked tokens, as NumPy
arrays or torch tensors alike. The kernels compute the same definition from whole vocabularies.

Shape legend: N positions, K ranked tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # a page is made without torch
    from torch import Tensor

Array = TypeVar("Array", np.ndarray, "Tensor")


def in_top_k(z_NK: Array, top_k: int, min_p: float = 0.0, slack: float = 0.0) -> Array:
    """bool [N, K]: the tokens that min-p and top-k leave, of those that can occur.

    z_NK: logits / T up to a constant per row, falling; -inf for tokens that cannot occur. top_k: 0 keeps all K.
    slack: how far below min-p's limit a token may be, in the units of z.
    """
    limit = (math.log(min_p) if min_p else -math.inf) - slack
    kept_NK = (z_NK >= z_NK[:, :1] + limit) & (z_NK > -math.inf)
    if top_k:
        kept_NK[:, top_k:] = False
    return kept_NK


def mass_before(mass_NK: Array) -> Array:
    """[N, K]: the mass of the tokens before each token."""
    before_NK: Array = mass_NK.cumsum(1) - mass_NK
    return before_NK


def in_top_p(before_NK: Array, top_p: float) -> Array:
    """bool [N, K]: the tokens of the shortest prefix of mass top_p or more, by the mass before each token."""
    return before_NK < top_p


def truncated_distribution(logp_NK: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """float64 [N, min(K, top_k)]: q, 0 outside the support.

    logp_NK: log-probabilities of ranked tokens. top_k: 1 to K, so that the list holds the support.
    """
    logp_NK = logp_NK[:, :top_k] / temperature
    q_NK = np.exp(logp_NK - logp_NK[:, :1])
    q_NK /= q_NK.sum(1, keepdims=True)
    q_NK[~in_top_p(mass_before(q_NK), top_p)] = 0
    return q_NK / q_NK.sum(1, keepdims=True)
