"""The CPU backend: products by torch or csrc/ (``lm_head_logits``), rows in C++.

In bf16 the gradient in the logits is rounded to bf16, as eager torch rounds it, where the processor multiplies bf16;
a chunk's part of the head's gradient is rounded once more before it is added up in float32.

Shape legend: N rows, V vocabulary, H hidden size, K label slots, B rows of a chunk.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ..linear_probe_stats.head import LmHead
from ..linear_probe_stats.logits import multiplies_in
from ..probe_stats.cpu import check_device  # its import loads the extension
from .chunks import losses_and_gradients as sweep
from .gradients import Gradients

CHUNK_BYTES = 96 << 20  # of logits
IN_BF16 = ("amx", "avx512")  # where torch too multiplies bf16 as such; AVX2 multiplies it as float32


def losses_and_gradients(
    hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor, weight_N: Tensor | None, z_loss: float,
    gradients: Gradients,
) -> Tensor:  # fmt: skip
    """Each row's own loss, float32 [N]; adds the gradients of their weighted sum to ``gradients``.

    bf16, fp16 or fp32. Raises ValueError for tensors that are not on the CPU.
    """
    check_device(hidden_NH)
    in_bf16 = hidden_NH.dtype == torch.bfloat16 and multiplies_in(torch.bfloat16) in IN_BF16

    def row_kernel(
        logits_BV: Tensor, ids_BK: Tensor, probs_BK: Tensor, weight_B: Tensor | None, loss_B: Tensor
    ) -> Tensor:
        torch.ops.ssdfast_cpu.soft_label_rows(
            logits_BV, ids_BK, probs_BK, weight_B, loss_B, z_loss, head.scale, head.softcap or 0.0, in_bf16,
            os.environ.get("SSDFAST_CPU", ""),
        )  # fmt: skip
        return logits_BV.view(torch.bfloat16)[:, : logits_BV.shape[1]] if in_bf16 else logits_BV

    max_rows = CHUNK_BYTES // (4 * head.weight_VH.shape[0])
    return sweep(hidden_NH, head, ids_NK, probs_NK, weight_N, gradients, row_kernel, max_rows)
