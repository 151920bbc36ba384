"""The GPU backend: products by torch, rows by Triton (``triton_rows``).

bf16 logits are float32, and their gradients bf16 for the tensor cores; sums are float32. fp16 could not hold a gradient
of 1e-8: its operands are converted, which is slow.

A chunk takes up to 480 MiB, more than on a CPU: each chunk adds to the head's gradient once, in float32, which reads
and writes 8 bytes per entry inside the product (``gradients.adds_in_float32``). At V = 151,936 and H = 2,560 that is
3.1 GB for each 500 rows, 0.7 ms of the memory of an H200 beside 1.5 ms of its tensor cores. SSDFAST_GPU_WORKSPACE_MB
sets another size: larger chunks add less often.

Shape legend: N rows, V vocabulary, H hidden size, K label slots, B rows of a chunk.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..linear_probe_stats.head import LmHead
from ..probe_stats.triton import check_device
from ..workspace import gpu_workspace_bytes
from .chunks import losses_and_gradients as sweep
from .gradients import Gradients
from .triton_rows import soft_label_rows

CHUNK_BYTES = 480 << 20
BYTES_PER_LOGIT = 6  # float32, and its gradient in bf16
BLOCK = 4096
WARPS = 8


def losses_and_gradients(
    hidden_NH: Tensor, head: LmHead, ids_NK: Tensor, probs_NK: Tensor, weight_N: Tensor | None, z_loss: float,
    gradients: Gradients,
) -> Tensor:  # fmt: skip
    """Each row's own loss, float32 [N]; adds the gradients of their weighted sum to ``gradients``.

    bf16, fp16 or fp32. Raises ValueError for tensors that are not on a GPU, unless Triton's interpreter is on.
    """
    check_device(hidden_NH)

    def row_kernel(
        logits_BV: Tensor, ids_BK: Tensor, probs_BK: Tensor, weight_B: Tensor | None, loss_B: Tensor
    ) -> Tensor:
        (b, v), k = logits_BV.shape, ids_BK.shape[1]
        in_bf16 = weight_B is not None and hidden_NH.dtype == torch.bfloat16
        grad_BV = logits_BV.new_empty(b, v, dtype=torch.bfloat16) if in_bf16 else logits_BV
        soft_label_rows[(b,)](
            logits_BV, grad_BV, ids_BK, probs_BK, loss_B if weight_B is None else weight_B, loss_B, v, k,
            logits_BV.stride(0), grad_BV.stride(0), Z_LOSS=z_loss, SCALE=head.scale, SOFTCAP=head.softcap or 0.0,
            GRADIENT=weight_B is not None, KP=triton.next_power_of_2(k), BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
        return grad_BV

    max_rows = gpu_workspace_bytes(CHUNK_BYTES) // (BYTES_PER_LOGIT * head.weight_VH.shape[0])
    with torch.cuda.device_of(hidden_NH):  # Triton launches on the current device, not on that of the tensors
        return sweep(hidden_NH, head, ids_NK, probs_NK, weight_N, gradients, row_kernel, max_rows)
