"""The GPU backend: checks, allocates and launches.

The kernels, in order of reading: ``triton_first_sweep``, ``triton_second_sweep`` (the vocabulary), ``triton_exact``
(the same where they leave NaN), ``triton_classes``, ``triton_top`` (the top list), ``triton_nucleus`` (a nucleus beyond
the list), ``triton_pair`` (two models). The workspace is 1 % of bf16 logits.

With ``top_k = 0`` a support may be as long as the vocabulary. The columns that depend on it come from the reference,
a few rows at a time: memory is bounded, but it is far slower than the kernels.

Legend: a is the baseline, b the trained model.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from . import reference
from .schema import CE_TERM_COLUMNS, KEPT_MASS_COLUMNS, ModelStats, PairStats, ProbeSpec, ProbeStats, new_packed, unpack
from .state import MAX, POSSIBLE, REST, SUM, PartialState, TopList, merge_slots
from .triton_classes import ROWS, class_masses
from .triton_merge import merge_model
from .triton_nucleus import THREADS, nucleus_sizes
from .triton_pair import compare_lists, merge_one_sweep, merge_two_sweeps
from .triton_rows import LOG_SUM, ROW_MAX, ROW_POSSIBLE, ROW_REST, ROW_SLOTS, choose_pivot, token_logits
from .triton_sweeps import Workspace, sweep_once, sweep_twice
from .triton_top import top_tokens
from .triton_vectors import Machine

CLASS_PART_TOKENS = 1 << 14
REFERENCE_LOGITS = 1 << 20  # logits per call of the reference, at about 200 bytes each

_EVAL_COLUMNS = ("top_mass", "tail_mass", "support_size", "support_entropy", "support_overlap")
_TRAIN_COLUMNS = ("ssd_cov", "ssd_var", "ssd_alignment", *CE_TERM_COLUMNS, *KEPT_MASS_COLUMNS)


def probe_stats_packed(
    logits_base_NV: Tensor, logits_trained_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns (see ``schema.columns``) of N >= 1 positions; bf16, fp16 or fp32 logits of any row stride.

    Raises ValueError for logits that are not on a GPU, unless Triton's interpreter is on.
    """
    check_device(logits_base_NV)
    n, pair = logits_base_NV.shape[0], logits_trained_NV is not None
    floats, ints = new_packed(logits_base_NV, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    token_N = token_N.contiguous()

    with torch.cuda.device_of(logits_base_NV):  # Triton launches on the current device, not on that of the tensors
        work = Workspace(logits_base_NV, pair, spec)
        token_z_MN = logits_base_NV.new_empty(work.layout.models, n, dtype=torch.float32)
        b_NV = logits_base_NV if logits_trained_NV is None else logits_trained_NV
        token_logits[(n,)](
            logits_base_NV,
            b_NV,
            token_N,
            token_z_MN,
            n,
            logits_base_NV.stride(0),
            b_NV.stride(0),
            HAS_B=pair,
            num_warps=1,
        )
        sweep_once(logits_base_NV, logits_trained_NV, token_N, token_z_MN, work)
        _one_model(logits_base_NV, token_z_MN[0], spec, work, 0, stats.base)
        if logits_trained_NV is not None and stats.trained is not None and stats.pair is not None:
            _one_model(logits_trained_NV, token_z_MN[1], spec, work, 1, stats.trained)
            _two_models(logits_base_NV, logits_trained_NV, spec, work, stats.base, stats.trained, stats.pair)
        if spec.eval_sampling.top_k == 0 or spec.train_sampling.top_k == 0:
            _wide_supports(logits_base_NV, logits_trained_NV, token_N, spec, stats)
    return floats, ints


def check_device(tensor: Tensor) -> None:
    """Raises ValueError for a tensor that is not on a GPU, unless Triton's interpreter is on."""
    if not (tensor.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the triton backend takes GPU tensors, got {tensor.device}: use backend='cpu'")


def _one_model(z: Tensor, token_z: Tensor, spec: ProbeSpec, work: Workspace, model: int, out: ModelStats) -> None:
    """The columns of one model; ``model`` is its index in the workspace."""
    layout, row = work.layout, work.rows[model]
    rate_of = tuple(layout.rates.index(1 / t) for t in spec.lse_temperatures)
    merge_model[(z.shape[0],)](
        token_z, work.state[:, model * layout.model_slots :], row, out.lse, out.entropy, out.token_logprob,
        out.token_rank, out.lse_T, work.sweep.parts, layout.slots, RATES=layout.rates, RATE_OF=rate_of,
        PARTS=triton.next_power_of_2(work.sweep.parts), num_warps=1,
    )  # fmt: skip
    if spec.token_class is not None:
        sums_NC = _class_sums(z, spec.token_class, spec.n_classes, row, work.machine)
        out.class_mass.copy_(sums_NC * (-row[:, LOG_SUM.value].double()).exp()[:, None])
    _top_list(z, spec, work, model, out)
    if spec.sweeps == 2 and spec.eval_sampling.top_p < 1:
        nucleus_sizes[(z.shape[0],)](
            z, row, out.nucleus_size, z.shape[1], z.stride(0), TOP_P=spec.eval_sampling.top_p, PTX=work.machine.ptx,
            num_warps=THREADS.value // work.machine.warp,
        )  # fmt: skip


def _class_sums(z: Tensor, token_class: Tensor, n_classes: int, row: Tensor, machine: Machine) -> Tensor:
    """Sums of e^(z - M) by class, float64 [N, C], with M in slot ROW_MAX of ``row``."""
    n, v = z.shape
    parts, width = triton.cdiv(v, CLASS_PART_TOKENS), min(64, max(16, triton.next_power_of_2(n_classes)))
    mass_PNC = z.new_empty(parts, n, n_classes, dtype=torch.float32)
    for first_class in range(0, n_classes, width):
        class_masses[(triton.cdiv(n, ROWS.value), parts)](
            z, token_class.contiguous(), row, mass_PNC, n, v, CLASS_PART_TOKENS, z.stride(0), first_class, n_classes,
            C=width, PRECISION="tf32" if machine.ptx else "ieee", num_warps=1,
        )  # fmt: skip
    return mass_PNC.sum(0, dtype=torch.float64)


def _top_list(z: Tensor, spec: ProbeSpec, work: Workspace, model: int, out: ModelStats) -> None:
    n, v = z.shape
    state, vectors = work.state[:, model * work.layout.model_slots :], work.sweep.chunks * work.sweep.steps
    grouped = z if work.grouped is None else work.grouped
    top_tokens[(n,)](
        z, grouped, work.group_max[model], work.group_sum[model], state, work.rows[model], out.top_ids,
        out.top_logprobs, out.top_mass, out.tail_mass, out.nucleus_size, out.support_size, out.support_entropy, v,
        work.sweep.parts, vectors, work.layout.slots, z.stride(0), grouped.stride(0), K=spec.top_logprobs,
        KP=work.list_size, ROOM=max(64, 2 * work.list_size), GROUPS=triton.next_power_of_2(work.groups),
        VECTORS=triton.next_power_of_2(vectors), TEMPERATURE=spec.eval_sampling.temperature,
        TOP_K=spec.eval_sampling.top_k, TOP_P=spec.eval_sampling.top_p, PTX=work.machine.ptx, num_warps=1,
    )  # fmt: skip


def _two_models(
    a: Tensor, b: Tensor, spec: ProbeSpec, work: Workspace, stats_a: ModelStats, stats_b: ModelStats, out: PairStats
) -> None:
    n = a.shape[0]
    row_a, row_b = work.rows
    mean_gap_N = a.new_empty(n, dtype=torch.float64)
    divergences = (out.kl_base_trained, out.kl_trained_base, out.js, out.tv, out.logratio_var, mean_gap_N)
    if spec.sweeps == 1:
        merge_one_sweep[(n,)](
            work.state, row_a, row_b, *divergences, work.sweep.parts, work.layout.slots, work.layout.model_slots,
            CHUNKS=triton.next_power_of_2(work.sweep.parts), num_warps=1,
        )  # fmt: skip
    else:
        pivot_N = torch.empty_like(out.kl_base_trained)
        choose_pivot[(n,)](
            a, b, row_a, row_b, stats_a.top_ids, pivot_N, a.stride(0), b.stride(0), K=spec.top_logprobs,
            KP=work.list_size, num_warps=1,
        )  # fmt: skip
        state = sweep_twice(a, b, row_a, row_b, pivot_N)
        parts = state.shape[2]
        merge_two_sweeps[(n,)](
            state, row_a, row_b, pivot_N, *divergences, parts, CHUNKS=triton.next_power_of_2(parts), num_warps=1
        )
    compare_lists[(n,)](
        a, b, row_a, row_b, stats_a.top_ids, stats_b.top_ids, stats_a.support_size, stats_b.support_size,
        out.kl_base_trained, out.logratio_var, mean_gap_N, out.trained_logprobs_at_base_top,
        out.base_logprobs_at_trained_top, out.support_overlap, out.ssd_cov, out.ssd_var, out.ssd_alignment,
        out.base_ce_compression, out.base_kept_mass, a.stride(0), b.stride(0), K=spec.top_logprobs, KP=work.list_size,
        TEMPERATURE=spec.train_sampling.temperature, TOP_K=spec.train_sampling.top_k, TOP_P=spec.train_sampling.top_p,
        num_warps=1,
    )  # fmt: skip


def _wide_supports(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec, stats: ProbeStats) -> None:
    """The columns that depend on a support with ``top_k = 0``, from the reference."""
    names = (_EVAL_COLUMNS if spec.eval_sampling.top_k == 0 else ()) + (
        _TRAIN_COLUMNS if spec.train_sampling.top_k == 0 else ()
    )
    n, v = a.shape
    step = max(1, REFERENCE_LOGITS // v)
    for i in range(0, n, step):
        rows = slice(i, i + step)
        packed = reference.probe_stats_packed(a[rows], None if b is None else b[rows], token[rows], spec)
        of_rows = unpack(*packed, token[rows].shape[0], spec, b is not None)
        for group, of_all in vars(stats).items():
            for name in names:
                if hasattr(of_all, name):
                    getattr(of_all, name)[rows] = getattr(getattr(of_rows, group), name)


def partial_state(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    token_z_MN: Tensor,
    spec: ProbeSpec,
    first_id: int,
) -> PartialState:
    """See ``reference_state.partial_state``; bf16, fp16 or fp32, and float32 lists."""
    check_device(logits_base_NV)
    v = logits_base_NV.shape[1]
    token_class = None if spec.token_class is None else spec.token_class[first_id:][:v].to(logits_base_NV.device)
    with torch.cuda.device_of(logits_base_NV):
        work = Workspace(logits_base_NV, logits_trained_NV is not None, spec)
        token_z = token_z_MN.float().contiguous()
        sweep_once(logits_base_NV, logits_trained_NV, token_N - first_id, token_z, work)
        slots_SN = merge_slots(work.state.permute(2, 1, 0), work.layout)
        logits = (logits_base_NV,) if logits_trained_NV is None else (logits_base_NV, logits_trained_NV)
        lists = []
        for m, z_NV in enumerate(logits):
            own_SN = work.layout.select(slots_SN, m)
            ids_NK = _list_ids(z_NV, spec, work, m, own_SN)
            if token_class is not None:
                sums_NC = _class_sums(z_NV, token_class, spec.n_classes, work.rows[m], work.machine)
                own_SN[SUM + len(work.layout.rates) :] = sums_NC.T
            other_NK = _logits_at(logits[1 - m], ids_NK) if len(logits) == 2 else None
            lists.append(TopList(_logits_at(z_NV, ids_NK), torch.where(ids_NK >= 0, ids_NK + first_id, -1), other_NK))
    return PartialState(work.layout, slots_SN, tuple(lists), token_N, token_z_MN)


def _list_ids(z: Tensor, spec: ProbeSpec, work: Workspace, model: int, slots_SN: Tensor) -> Tensor:
    """The ids, relative to this part, of one model's top list; fills slot REST."""
    row, sum_N = work.rows[model], slots_SN[SUM]
    row[:, ROW_MAX.value], row[:, ROW_POSSIBLE.value] = slots_SN[MAX], slots_SN[POSSIBLE]
    row[:, LOG_SUM.value] = torch.where(sum_N > 0, sum_N.log(), torch.nan)
    out = unpack(*new_packed(z, z.shape[0], spec, False), z.shape[0], spec, False).base
    _top_list(z, spec, work, model, out)
    slots_SN[REST] = torch.where(sum_N > 0, row[:, ROW_REST.value] * sum_N, sum_N)
    return out.top_ids


def _logits_at(z_NV: Tensor, ids_NK: Tensor) -> Tensor:
    return torch.where(ids_NK >= 0, z_NV.gather(1, ids_NK.clamp(min=0)).float(), -torch.inf)


def divergences(
    logits_base_NV: Tensor, logits_trained_NV: Tensor, max_MN: Tensor, log_sum_MN: Tensor, pivot_N: Tensor
) -> Tensor:
    """See ``reference_state.divergences``."""
    rows = logits_base_NV.new_empty(2, logits_base_NV.shape[0], ROW_SLOTS.value, dtype=torch.float32)
    rows[:, :, ROW_MAX.value], rows[:, :, LOG_SUM.value] = max_MN, log_sum_MN
    with torch.cuda.device_of(logits_base_NV):
        state = sweep_twice(logits_base_NV, logits_trained_NV, rows[0], rows[1], pivot_N.float())
    return state.sum(2, dtype=torch.float64).T.contiguous()
