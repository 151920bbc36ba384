"""The GPU backend: tensor-core tiles that write partial states, never a matrix of logits.

Bars come from a sample of the vocabulary (``bars``). Then, for each block of rows, one launch computes both models'
tiles (``triton_tiles``), the tiles are merged to states, and the candidates are sorted to top lists. JS, TV and exact
divergences take a second launch, with the normalisers known. The columns follow from states, lists and divergences
(``state_columns``).

Some rows need their logits after all: those whose nucleus is longer than the list, those with too many or too few
candidates, and every row where ``top_k = 0``. They go through ``probe_stats`` a few at a time (``triton_rows``). So do
fp32 operands, which have no fast exact product on tensor cores, and operands whose rows do not begin at multiples of
16.

The bound for memory, outputs apart, is 256 MB whatever N is; it has not been measured yet.

Shape legend: N rows of a block, P tiles of the vocabulary, S slots, M models, K = ``spec.top_logprobs``, C = capacity.
a is the baseline, b the trained model.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..probe_stats.schema import ProbeSpec, ProbeStats, new_packed, put_rows, unpack
from ..probe_stats.state import DIVERGENCES, MAX, POSSIBLE, REST, Layout, PartialState, TopList, normalisers, pivot
from ..probe_stats.state_columns import columns
from ..probe_stats.triton import check_device, few_exponentials
from .head import LmHead
from .triton_divergences import tile_divergences
from .triton_merge import BLOCK, merge_tiles
from .triton_rows import Model, from_logits, long_nuclei
from .triton_tiles import ROWS, tile_states
from .triton_tiling import Tiling

STATE_BYTES = 128 << 20  # of the tiles' states and the candidates
CANDIDATE_BYTES = 36  # the key, the other model's logit, and the workspace of sorting
SAMPLE_BYTES = 64 << 20  # of the sampled logits of one model and the products of its tokens
SAMPLED = 32  # one in this many vocabulary entries is in the sample that sets the bars


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
    wide = spec.eval_sampling.top_k == 0 or spec.train_sampling.top_k == 0
    aligned = all(size % 16 == 0 for model in models for size in (model.size, *_strides(model)))
    with torch.cuda.device_of(hidden_base_NH):
        if wide or not aligned or hidden_base_NH.dtype == torch.float32:
            from_logits(models, token_N, spec, torch.arange(n, device=token_N.device), stats)
            return floats, ints
        sampled_bytes = 4 * triton.cdiv(models[0].vocabulary, SAMPLED) + 14 * max(model.size for model in models)
        for rows in _blocks(n, SAMPLE_BYTES, sampled_bytes):
            put_rows(stats, rows, _from_tiles([model.rows(rows) for model in models], token_N[rows], spec))
    return floats, ints


def _blocks(n: int, max_bytes: int, bytes_per_row: int) -> list[slice]:
    """N rows in blocks of whole tiles that take at most ``max_bytes``."""
    step = max(1, max_bytes // (bytes_per_row * ROWS.value)) * ROWS.value
    return [slice(i, min(n, i + step)) for i in range(0, n, step)]


def _from_tiles(models: list[Model], token_N: Tensor, spec: ProbeSpec) -> ProbeStats:
    """Every column of some rows."""
    layout, tiling = Layout.from_spec(spec, len(models) == 2), Tiling.for_device(token_N.device)
    capacity = max(1024, triton.next_power_of_2(2 * SAMPLED * spec.top_logprobs))
    bytes_per_row = 4 * tiling.tiles(models[0].vocabulary) * layout.slots + len(models) * capacity * CANDIDATE_BYTES
    token_z_MN = torch.stack([_token_logits(model, token_N) for model in models])
    bar_MN = torch.stack([bars(model, spec.top_logprobs, capacity) for model in models])
    states, counts, divergences = [], [], []
    for rows in _blocks(token_N.shape[0], STATE_BYTES, bytes_per_row):
        block = [model.rows(rows) for model in models]
        state, count_MN = _sweep(
            block, token_N[rows], token_z_MN[:, rows], bar_MN[:, rows], spec, layout, tiling, capacity
        )
        states.append(state)
        counts.append(count_MN)
        if len(models) == 2 and spec.sweeps == 2:
            divergences.append(_second_sweep(block, state, tiling))
    joined = _concat(states)
    stats = columns(joined, spec, torch.cat(divergences, 1) if divergences else None)
    count_MN = torch.cat(counts, 1)
    possible_MN = torch.stack([joined.model(i)[POSSIBLE] for i in range(len(models))])
    # A list with too many candidates, or too few, is wrong. An invalid row is NaN, and has neither.
    wrong_MN = (count_MN > capacity) | (count_MN < possible_MN.clamp(max=spec.top_logprobs))
    from_logits(models, token_N, spec, wrong_MN.any(0).nonzero()[:, 0], stats)
    if spec.sweeps == 2 and spec.eval_sampling.top_p < 1:
        for model, own in zip(models, (stats.base, stats.trained), strict=False):
            assert own is not None
            long_R = ((own.nucleus_size == -1) & own.lse.isfinite()).nonzero()[:, 0]
            long_nuclei(model, token_N, spec, long_R, own.nucleus_size)
    return stats


def _concat(states: list[PartialState]) -> PartialState:
    """The states of consecutive rows as one."""
    first = states[0]
    lists = []
    for parts in zip(*(state.lists for state in states), strict=True):
        others = [part.other_NK for part in parts if part.other_NK is not None]
        lists.append(
            TopList(
                torch.cat([part.z_NK for part in parts]),
                torch.cat([part.ids_NK for part in parts]),
                torch.cat(others) if others else None,
            )
        )
    return PartialState(
        first.layout,
        torch.cat([state.slots_SN for state in states], 1),
        tuple(lists),
        torch.cat([state.token_N for state in states]),
        torch.cat([state.token_z_MN for state in states], 1),
    )


def bars(model: Model, top: int, capacity: int) -> Tensor:
    """Logits [N] that at least ``top`` tokens of a row reach, and about ``top * SAMPLED`` of them.

    A bar is the top-th largest logit of a sample, less a margin for another order of summation. It is -inf, which all
    tokens reach, where the list has room for the whole vocabulary.
    """
    n, v = model.hidden_NH.shape[0], model.vocabulary
    if v <= capacity or triton.cdiv(v, SAMPLED) < top:
        return model.hidden_NH.new_full((n,), -torch.inf, dtype=torch.float32)
    bar_N = model.sampled(SAMPLED).logits().topk(top, dim=1).values[:, -1]
    return bar_N - (0.01 + 0.001 * bar_N.abs()).nan_to_num(posinf=0)


def _sweep(
    models: list[Model], token_N: Tensor, token_z_MN: Tensor, bar_MN: Tensor, spec: ProbeSpec, layout: Layout,
    tiling: Tiling, capacity: int,
) -> tuple[PartialState, Tensor]:  # fmt: skip
    """The state of a block of rows, and each row's number of candidates [M, N]; those beyond the capacity are lost."""
    a, b = models[0], models[-1]
    n, v, m = token_N.shape[0], a.vocabulary, len(models)
    tiles = tiling.tiles(v)
    parts_PSN = token_z_MN.new_empty(tiles, layout.slots, n)
    count_MN = token_z_MN.new_zeros(m, n, dtype=torch.int32)
    keys_MNC = token_z_MN.new_full((m, n, capacity), torch.iinfo(torch.int64).min, dtype=torch.int64)
    others_MNC = token_z_MN.new_empty(m, n, capacity)
    listed_token_z_MN = token_z_MN.new_empty(m, n)
    roots, root_of, powers = few_exponentials(layout.rates)
    token_class = token_N if spec.token_class is None else spec.token_class.contiguous()
    tile_states[(_programs(token_N.device),)](
        *_operands(a), *_operands(b), token_N, token_z_MN.contiguous(), bar_MN.contiguous(), token_class,
        _scratch(models, tiling), parts_PSN, count_MN, keys_MNC, others_MNC, listed_token_z_MN, n, v, a.size, b.size,
        *_strides(a), *_strides(b), layout.slots, layout.model_slots, spec.n_classes,
        RATES=layout.rates, ROOTS=roots, ROOT_OF=root_of, POWERS=powers, MODELS=m, PAIR_SUMS=layout.pair_sums,
        CAPACITY=capacity, **_constants(a, b, tiling),
    )  # fmt: skip
    slots_SN = token_z_MN.new_empty(layout.slots, n, dtype=torch.float64)
    merge_tiles[(triton.cdiv(n, BLOCK.value),)](
        parts_PSN, slots_SN, n, tiles, layout.slots, layout.model_slots, spec.n_classes, RATES=layout.rates, MODELS=m,
        PAIR_SUMS=layout.pair_sums, num_warps=2,
    )  # fmt: skip
    lists = tuple(
        _top_list(keys_MNC[i], others_MNC[i], layout.select(slots_SN, i), spec.top_logprobs, m == 2) for i in range(m)
    )
    return PartialState(layout, slots_SN, lists, token_N, listed_token_z_MN), count_MN


def _top_list(keys_NC: Tensor, others_NC: Tensor, slots_SN: Tensor, top: int, pair: bool) -> TopList:
    """The K best candidates; the others join REST."""
    best = keys_NC.topk(top, dim=1)
    z_NK, ids_NK = _unpack(best.values)
    dropped_z_NC = torch.where(keys_NC < best.values[:, -1:], _unpack(keys_NC)[0], -torch.inf)
    dropped_NC = (dropped_z_NC - slots_SN[MAX].float()[:, None]).exp()
    slots_SN[REST] += dropped_NC.masked_fill(dropped_z_NC == -torch.inf, 0.0).sum(1, dtype=torch.float64)
    other_NK = others_NC.gather(1, best.indices).masked_fill(ids_NK < 0, -torch.inf) if pair else None
    return TopList(z_NK, ids_NK, other_NK)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(logit, id) of ``triton_math.pack``; -inf and -1 for an absent one."""
    bits = (keys >> 32).to(torch.int32)
    z = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).view(torch.float32)
    absent = keys == torch.iinfo(torch.int64).min
    ids = (keys & 0x7FFFFFFF) ^ 0x7FFFFFFF
    return torch.where(absent, -torch.inf, z), torch.where(absent, -1, ids)


def _second_sweep(models: list[Model], state: PartialState, tiling: Tiling) -> Tensor:
    """The divergences [D, N] of a pair."""
    a, b = models
    max_MN, log_sum_MN = (x.float() for x in normalisers(state))
    n = max_MN.shape[1]
    parts_PDN = max_MN.new_empty(tiling.tiles(a.vocabulary), DIVERGENCES, n)
    tile_divergences[(_programs(max_MN.device),)](
        *_operands(a), *_operands(b), max_MN, log_sum_MN, pivot(state), _scratch(models, tiling), parts_PDN, n,
        a.vocabulary, a.size, b.size, *_strides(a), *_strides(b), **_constants(a, b, tiling),
    )  # fmt: skip
    return parts_PDN.sum(0, dtype=torch.float64)


def _operands(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    bias_V = model.head.bias_V
    bias_V = model.hidden_NH.new_empty(1) if bias_V is None else bias_V  # unread
    return model.hidden_NH, model.head.weight_VH, bias_V.float().contiguous()


def _scratch(models: list[Model], tiling: Tiling) -> Tensor:
    hidden_NH = models[0].hidden_NH
    shape = _programs(hidden_NH.device), len(models), ROWS.value, tiling.ids
    return hidden_NH.new_empty(shape, dtype=torch.float32)


def _programs(device: torch.device) -> int:
    """The number of programs that run at the same time: one per multiprocessor."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _strides(model: Model) -> tuple[int, int]:
    return model.hidden_NH.stride(0), model.head.weight_VH.stride(0)


def _constants(a: Model, b: Model, tiling: Tiling) -> dict[str, object]:
    constants: dict[str, object] = tiling.launch(a.size, b.size)
    for name, head in (("A", a.head), ("B", b.head)):
        constants[f"SCALE_{name}"], constants[f"SOFTCAP_{name}"] = float(head.scale), float(head.softcap or 0)
        constants[f"HAS_BIAS_{name}"] = head.bias_V is not None
    return constants


def _token_logits(model: Model, token_N: Tensor) -> Tensor:
    """float32 logits [N] of the trace's tokens."""
    weight_NH, bias_V = model.head.weight_VH[token_N].float(), model.head.bias_V
    product_N = (model.hidden_NH.float() * weight_NH).sum(1)
    head = LmHead(weight_NH, None if bias_V is None else bias_V[token_N], model.head.scale, model.head.softcap)
    return head.finish_(product_N)
