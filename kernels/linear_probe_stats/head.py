"""The head of a language model, which turns hidden states into logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LmHead:
    """logits = softcap * tanh(scale * (hidden @ weightᵀ + bias) / softcap), each part optional.

    weight_VH: [V, H], of the hidden states' dtype. bias_V: [V], any floating dtype; -inf forbids a token.
    scale: a factor (Cohere's ``logit_scale``, Granite's ``1 / logits_scaling``). softcap: Gemma's
    ``final_logit_softcapping``, > 0, or None for none.
    Raises ValueError for a scale or softcap that is not finite or not positive.
    """

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "softcap"):
            value = getattr(self, name)
            if value is not None and not 0 < value < torch.inf:
                raise ValueError(f"{name} must be finite and positive, got {value}")

    @staticmethod
    def from_weight(weight_VH: Tensor | LmHead) -> LmHead:
        """A head of a weight alone; an ``LmHead`` as it is."""
        return weight_VH if isinstance(weight_VH, LmHead) else LmHead(weight_VH)

    def finish_(self, product_NV: Tensor) -> Tensor:
        """Turns ``hidden @ weightᵀ`` into logits, in place."""
        if self.bias_V is not None:
            product_NV.add_(self.bias_V)
        if self.scale != 1:
            product_NV.mul_(self.scale)
        if self.softcap is not None:
            product_NV.div_(self.softcap).tanh_().mul_(self.softcap)
            if self.bias_V is not None:  # a forbidden token stays forbidden
                product_NV.masked_fill_(self.bias_V == -torch.inf, -torch.inf)
        return product_NV
