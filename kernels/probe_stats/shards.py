"""The statistics of a vocabulary in shards on the ranks of a process group (tensor parallelism).

    from ssdfast.kernels import ProbeSpec, sharded_probe_stats
    stats = sharded_probe_stats(shard_base, shard_trained, tokens, ProbeSpec(), first_id=rank * shard_base.shape[1])

Every rank reads only its own shard; the ranks exchange a few hundred numbers per position. All ranks merge the same
states in the same order, so they get the same bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from ..backends import fastest, implementation
from . import reference_state
from .checks import check_logits, check_token, check_token_class, check_token_ids
from .schema import ProbeSpec, ProbeStats, new_packed, to_numbers, unpack
from .shard_nucleus import nucleus_sizes
from .state import DIVERGENCES, MAX, Layout, PartialState, TopList, merge_states, normalisers, pivot
from .state_columns import columns

SEARCH_LOGITS = 1 << 22  # of the whole vocabulary per step of the search for a long nucleus: about 60 bytes each


@torch.no_grad()
def sharded_probe_stats(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    spec: ProbeSpec,
    first_id: int,
    group: dist.ProcessGroup | None = None,
    backend: str | None = None,
) -> ProbeStats:
    """``probe_stats`` where each rank of ``group`` holds a shard of the vocabulary. Every rank calls it and gets every
    column.

    logits_base_NV, logits_trained_NV: [N, V_r], bf16, fp16 or fp32: entries first_id .. first_id + V_r of the
        vocabulary, V_r of its own on each rank, 0 too. ``logits_trained_NV`` may be None.
    token_N, spec: the same on every rank. Tokens, and ``spec.token_class``, count in the whole vocabulary; both
        ``top_k`` at least 1. backend: as for ``probe_stats``.
    Raises ValueError on every rank, naming the rank with the error: shapes, dtypes or devices that do not
    match, a token outside the vocabulary, shards that leave a gap or overlap, arguments that differ between ranks.
    """
    backend, vocabulary = _agree_on_arguments(
        logits_base_NV, logits_trained_NV, token_N, spec, first_id, group, backend
    )
    n = token_N.shape[0]
    if n == 0:
        return unpack(
            *new_packed(logits_base_NV, 0, spec, logits_trained_NV is not None), 0, spec, logits_trained_NV is not None
        )
    token_N = token_N.to(torch.int64)
    logits = (logits_base_NV,) if logits_trained_NV is None else (logits_base_NV, logits_trained_NV)
    token_z_MN = torch.stack([_token_logits(z_NV, token_N, first_id) for z_NV in logits])
    dist.all_reduce(token_z_MN, dist.ReduceOp.MAX, group)
    own = partial_state(logits_base_NV, logits_trained_NV, token_N, token_z_MN, spec, first_id, backend)
    state = merge_states([_unpacked(packed, own) for packed in _gather(_packed(own), group)])

    sums_DN = None
    if logits_trained_NV is not None and spec.sweeps == 2:
        own_DN = divergences(logits_base_NV, logits_trained_NV, *normalisers(state), pivot(state), backend)
        sums_DN = torch.stack(_gather(own_DN, group)).sum(0)
    stats = columns(state, spec, sums_DN)
    if spec.sweeps == 2 and spec.eval_sampling.top_p < 1:
        for i, (z_NV, model) in enumerate(zip(logits, (stats.base, stats.trained), strict=False)):
            assert model is not None
            _long_nuclei(z_NV, state.model(i)[MAX], spec.eval_sampling.top_p, vocabulary, group, model.nucleus_size)
    return stats


def partial_state(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    token_z_MN: Tensor,
    spec: ProbeSpec,
    first_id: int,
    backend: str | None = None,
) -> PartialState:
    """The state of vocabulary entries first_id .. first_id + V, V >= 0, of N >= 1 positions.

    token_N: int64 [N], ids of the whole vocabulary. token_z_MN: float32 [models, N], their logits, whichever part has
    them.
    """
    backend = backend or fastest(logits_base_NV)
    if logits_base_NV.shape[1] > 0:
        module = _module(backend, logits_base_NV)
        return module.partial_state(logits_base_NV, logits_trained_NV, token_N, token_z_MN, spec, first_id)
    layout = Layout.from_spec(spec, logits_trained_NV is not None)
    n, dtype = token_N.shape[0], torch.float64 if backend == "reference" else torch.float32
    slots_SN = logits_base_NV.new_zeros(layout.slots, n, dtype=torch.float64)
    z_NK = logits_base_NV.new_full((n, spec.top_logprobs), -torch.inf, dtype=dtype)
    ids_NK = torch.full_like(z_NK, -1, dtype=torch.int64)
    state = PartialState(
        layout, slots_SN, (TopList(z_NK, ids_NK, z_NK if layout.models == 2 else None),) * layout.models, token_N,
        token_z_MN,
    )  # fmt: skip
    for model in range(layout.models):
        state.model(model)[MAX] = -torch.inf
    return state


def divergences(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor,
    max_MN: Tensor,
    log_sum_MN: Tensor,
    pivot_N: Tensor,
    backend: str | None = None,
) -> Tensor:
    """The terms of each divergence from a part of the vocabulary, which may be empty: float64 [DIVERGENCES, N].

    max_MN, log_sum_MN and pivot_N come from ``normalisers`` and ``pivot`` of the state of the whole vocabulary.
    """
    if logits_base_NV.shape[1] == 0:
        return max_MN.new_zeros(DIVERGENCES, max_MN.shape[1])
    module = _module(backend or fastest(logits_base_NV), logits_base_NV)
    return module.divergences(logits_base_NV, logits_trained_NV, max_MN, log_sum_MN, pivot_N)


def _module(backend: str, logits: Tensor) -> ModuleType:
    module = implementation("probe_stats", backend, logits.dtype)
    return reference_state if backend == "reference" else module


def _token_logits(z_NV: Tensor, token_N: Tensor, first_id: int) -> Tensor:
    """The tokens' logits, float32 [N]; -inf for tokens of other shards."""
    v, local_N = z_NV.shape[1], token_N - first_id
    if v == 0:
        return z_NV.new_full(local_N.shape, -torch.inf, dtype=torch.float32)
    z_N = z_NV.gather(1, local_N.clamp(0, v - 1)[:, None])[:, 0].float()
    return torch.where((local_N >= 0) & (local_N < v), z_N, -torch.inf)


def _long_nuclei(
    z_NV: Tensor, max_N: Tensor, top_p: float, vocabulary: int, group: dist.ProcessGroup | None, size_N: Tensor
) -> None:
    """Replaces the -1 of a nucleus beyond the top list in valid rows: the same rows on every rank."""

    def all_sum(part: Tensor) -> Tensor:
        dist.all_reduce(part, group=group)
        return part

    searched = ((size_N == -1) & max_N.isfinite()).nonzero()[:, 0]
    for rows_R in searched.split(max(1, SEARCH_LOGITS // vocabulary)):
        if rows_R.numel() > 0:
            size_N[rows_R] = nucleus_sizes(z_NV[rows_R], max_N[rows_R], top_p, vocabulary, all_sum)


def _gather(part: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    """The tensors of all ranks, in their order."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, part, group)
    return parts


def _packed(state: PartialState) -> Tensor:
    """The slots and lists in one float64 tensor, which is exact."""
    flat = [state.slots_SN]
    for top in state.lists:
        flat += [column.T.double() for column in (top.z_NK, top.ids_NK, top.other_NK) if column is not None]
    return torch.cat(flat)


def _unpacked(packed: Tensor, like: PartialState) -> PartialState:
    slots_SN, rest = packed[: like.layout.slots], packed[like.layout.slots :]
    dtype, k = like.lists[0].z_NK.dtype, like.lists[0].z_NK.shape[1]
    lists = []
    for columns_KN in rest.split(rest.shape[0] // like.layout.models):
        z_NK, ids_NK, *other_NK = (column.T for column in columns_KN.split(k))
        lists.append(TopList(z_NK.to(dtype), ids_NK.long(), other_NK[0].to(dtype) if other_NK else None))
    return PartialState(like.layout, slots_SN, tuple(lists), like.token_N, like.token_z_MN)


@dataclass(frozen=True)
class _Shard:
    """A rank's arguments. ``shared`` must be the same on all ranks."""

    first_id: int
    entries: int
    shared: dict[str, object]


def _agree_on_arguments(
    a: Tensor,
    b: Tensor | None,
    token: Tensor,
    spec: ProbeSpec,
    first_id: int,
    group: dist.ProcessGroup | None,
    backend: str | None,
) -> tuple[str, int]:
    """The backend and the size of the vocabulary. An error on one rank is raised on all, so that no rank waits."""
    backend = backend or fastest(a)
    own: _Shard | str
    try:
        own = _describe(a, b, token, spec, first_id, backend)
    except (ValueError, RuntimeError) as error:
        own = str(error)
    answers: list[_Shard | str] = [own] * dist.get_world_size(group)
    dist.all_gather_object(answers, own, group)
    shards = []
    for rank, shard in enumerate(answers):
        if isinstance(shard, str):
            raise ValueError(f"rank {rank}: {shard}")
        shards.append(shard)
        for name, value in shard.shared.items():
            first = shards[0].shared[name]
            if value != first:
                values = "" if value is None or isinstance(value, bytes) else f": {value} and {first}"
                raise ValueError(f"rank {rank} and rank 0 differ in their {name}{values}")
    vocabulary = _vocabulary_size(shards)
    check_token_ids(token, vocabulary)  # the same on every rank, as are the classes
    check_token_class(spec, vocabulary)
    return backend, vocabulary


def _describe(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec, first_id: int, backend: str) -> _Shard:
    check_logits(a, b)
    check_token(token, a)
    if a.dtype == torch.float64:
        raise ValueError("shards must be bf16, fp16 or fp32, got torch.float64")
    if first_id < 0:
        raise ValueError(f"first_id must be at least 0, got {first_id}")
    if spec.eval_sampling.top_k == 0 or spec.train_sampling.top_k == 0:
        raise ValueError(
            "top_k = 0 makes supports as long as the vocabulary, which no rank holds: set top_k to 1 or more"
        )
    _module(backend, a)
    token_class, *numbers = to_numbers(spec, torch.device("cpu"))
    shared: dict[str, object] = {
        "number of positions": token.shape[0], "number of models": 1 if b is None else 2, "dtype": a.dtype,
        "backend": backend, "specification": numbers, "tokens": _digest(token.to(torch.int64)),
        "token classes": None if token_class is None else _digest(token_class),
    }  # fmt: skip
    return _Shard(first_id, a.shape[1], shared)


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).digest()


def _vocabulary_size(shards: list[_Shard]) -> int:
    """The size of the vocabulary that the shards cover. Raises ValueError unless they cover each entry once."""
    end = 0
    for first_id, entries, rank in sorted((s.first_id, s.entries, rank) for rank, s in enumerate(shards) if s.entries):
        if first_id != end:
            fault = "leave a gap" if first_id > end else "overlap"
            raise ValueError(f"the shards {fault}: rank {rank} begins at {first_id}, those before it end at {end}")
        end += entries
    if end == 0:
        raise ValueError("the vocabulary is empty on every rank")
    return end
