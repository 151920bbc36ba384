"""The GPU backend: blocks of float32 logits or, for one model in one sweep, tiles that are reduced in registers.

Blocks (``triton_blocks``): the library's product writes the logits of some rows, and the kernels of ``probe_stats``
read them, once or twice. Two sweeps multiply once. The blocks take up to 1 GiB for both models together, or
SSDFAST_GPU_WORKSPACE_MB, whatever N is.

Tiles (``triton_tiles``): the statistics of a tile come from the accumulators of its product, and no logit is written.
The tiles are merged to states (``triton_merge``), the top lists found from the groups (``triton_lists``), and the
columns follow from states and lists (``state_columns``). States and groups take up to 128 MB. A few rows go by their
logits: those with NaN or an infinity, and those with too many tokens near the end of their list.

Two models go by blocks. Their sums over pairs of logits need both models' tiles at once: those that fit the registers
read 256 operands for 16,384 products, for which an SM's share of the L2 cache delivers half in time. Blocks also serve
what a list cannot (``top_k = 0``), class masses, heads with a bias, scale or soft-cap, fp32 operands, which have no
fast exact product on tensor cores, and operands whose rows do not begin at multiples of 16.

Shape legend: N rows, P tiles of the vocabulary, S slots, G groups of a row.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..probe_stats.schema import ProbeSpec, ProbeStats, new_packed, put_rows, unpack
from ..probe_stats.state import MAX, POSSIBLE, Layout, PartialState
from ..probe_stats.state_columns import columns
from ..probe_stats.triton import check_device
from ..probe_stats.triton_sweeps import few_exponentials
from .head import LmHead
from .triton_blocks import Model, from_logits
from .triton_lists import Groups, logits_at, top_list
from .triton_merge import BLOCK, merge_tiles
from .triton_tiles import GROUP, ROWS, tile_states
from .triton_tiling import Tiling

STATE_BYTES = 128 << 20  # of the tiles' states, the groups, and what is computed of them
GROUP_BYTES = 44  # three numbers, the maximum of its tile, masks, and what the rest is summed from


def linear_probe_stats_packed(
    hidden_base_NH: Tensor, head_base: LmHead, hidden_trained_NH: Tensor | None, head_trained: LmHead | None,
    token_N: Tensor, spec: ProbeSpec,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed columns (see ``schema.columns``) of N >= 1 positions; bf16 or fp16 of any row stride, or fp32.

    Raises ValueError for tensors that are not on a GPU, unless Triton's interpreter is on.
    """
    check_device(hidden_base_NH)
    models = [Model(hidden_base_NH, head_base)]
    if hidden_trained_NH is not None and head_trained is not None:
        models.append(Model(hidden_trained_NH, head_trained))
    n, token_N = token_N.shape[0], token_N.contiguous()
    floats, ints = new_packed(hidden_base_NH, n, spec, len(models) == 2)
    stats = unpack(floats, ints, n, spec, len(models) == 2)
    tiling = Tiling.for_device(token_N.device)
    with torch.cuda.device_of(hidden_base_NH):
        if not _fits_tiles(models, spec, tiling):
            from_logits(models, token_N, spec, stats)
            return floats, ints
        layout = Layout.from_spec(spec, pair=False)
        tiling = tiling.for_exponentials(len(few_exponentials(layout.rates)[0]))
        for rows in _blocks(n, _bytes_per_row(models[0].vocabulary, layout, tiling)):
            put_rows(stats, rows, _from_tiles(models[0].rows(rows), token_N[rows], spec, layout, tiling))
    return floats, ints


def _fits_tiles(models: list[Model], spec: ProbeSpec, tiling: Tiling) -> bool:
    model = models[0]
    hidden_NH, weight_VH = model.hidden_NH, model.head.weight_VH
    bare = model.head.bias_V is None and model.head.scale == 1 and model.head.softcap is None
    plain = bare and len(models) == 1 and spec.sweeps == 1 and spec.n_classes == 0
    lists = min(spec.eval_sampling.top_k, spec.train_sampling.top_k) > 0
    aligned = all(size % 16 == 0 for size in (model.size, hidden_NH.stride(0), weight_VH.stride(0)))
    enough = _enough(model.vocabulary, spec.top_logprobs) and tiling.groups(model.vocabulary) >= spec.top_logprobs
    return plain and lists and aligned and enough and hidden_NH.dtype != torch.float32


def _enough(vocabulary: int, top: int) -> bool:
    """Whether groups can tell the list's tokens from the others."""
    return vocabulary >= 2 * GROUP.value * top


def _bytes_per_row(vocabulary: int, layout: Layout, tiling: Tiling) -> int:
    return 4 * tiling.tiles(vocabulary) * layout.slots + GROUP_BYTES * tiling.groups(vocabulary)


def _blocks(n: int, bytes_per_row: int) -> list[slice]:
    """N rows in blocks of whole tiles."""
    step = max(1, STATE_BYTES // (bytes_per_row * ROWS.value)) * ROWS.value
    return [slice(i, min(n, i + step)) for i in range(0, n, step)]


def _from_tiles(model: Model, token_N: Tensor, spec: ProbeSpec, layout: Layout, tiling: Tiling) -> ProbeStats:
    """Every column of some rows."""
    n, v = token_N.shape[0], model.vocabulary
    token_z_N = logits_at(model, torch.arange(n, device=token_N.device), token_N)
    slots_SN, groups = _sweep(model, token_N, token_z_N, layout, tiling)
    finite_N = slots_SN[MAX].isfinite()
    slots_SN[POSSIBLE] = v
    top, crowded_N = top_list(model, token_N, token_z_N, groups, spec.top_logprobs, slots_SN)
    stats = columns(PartialState(layout, slots_SN, (top,), token_N, token_z_N[None]), spec)
    from_logits([model], token_N, spec, stats, (crowded_N | ~finite_N).nonzero()[:, 0])
    return stats


def _sweep(model: Model, token_N: Tensor, token_z_N: Tensor, layout: Layout, tiling: Tiling) -> tuple[Tensor, Groups]:
    """The slots [S, N] of some rows without POSSIBLE and REST, and their groups."""
    n, v = token_N.shape[0], model.vocabulary
    tiles, groups = tiling.tiles(v), tiling.groups(v)
    tiles_PSN = token_z_N.new_empty(tiles, layout.slots, n)
    largest_NG, sum_NG, rest_NG = (token_z_N.new_empty(n, groups) for _ in range(3))
    roots, root_of, powers = few_exponentials(layout.rates)
    hidden_NH, weight_VH = model.hidden_NH, model.head.weight_VH
    tile_states[(_programs(token_N.device),)](
        hidden_NH, weight_VH, token_N, token_z_N, tiles_PSN, largest_NG, sum_NG, rest_NG, n, v, model.size,
        hidden_NH.stride(0), weight_VH.stride(0), layout.slots, RATES=layout.rates, ROOTS=roots,
        ROOT_OF=root_of, POWERS=powers,
        **tiling.launch(model.size),
    )  # fmt: skip
    slots_SN = token_z_N.new_zeros(layout.slots, n, dtype=torch.float64)
    merge_tiles[(triton.cdiv(n, BLOCK.value),)](
        tiles_PSN, slots_SN, n, tiles, layout.slots, RATES=layout.rates, num_warps=2
    )
    max_NG = tiles_PSN[:, MAX].T.repeat_interleave(tiling.ids // GROUP.value, 1)
    return slots_SN, Groups(largest_NG, sum_NG, rest_NG, max_NG)


def _programs(device: torch.device) -> int:
    """The number of programs that run at the same time: one per multiprocessor."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
