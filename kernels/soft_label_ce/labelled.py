"""Which rows are not ignored."""

from __future__ import annotations

from torch import Tensor


def labelled_rows(probs_NK: Tensor, weight_N: Tensor | None) -> Tensor:
    """The rows [R] that have a label and a weight other than 0. Listing them waits for a GPU."""
    labelled_N = (probs_NK > 0).any(1)
    return (labelled_N if weight_N is None else labelled_N & (weight_N != 0)).nonzero()[:, 0]
