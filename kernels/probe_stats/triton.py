"""The GPU backend: checks, allocates and launches.

The kernels, in order of reading: ``triton_sweeps`` (the vocabulary), ``triton_top`` (the top list), ``triton_pair``
(two models), ``triton_nucleus`` (a nucleus beyond the list). The workspace is 3 % of bf16 logits.

With ``top_k = 0`` a support may be as long as the vocabulary. The columns that rest on it come from the reference,
a few rows at a time: bounded memory, but far slower than the kernels.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from . import reference
from .schema import ModelStats, PairStats, ProbeSpec, ProbeStats, new_packed, unpack
from .triton_nucleus import DIGITS, PASSES, choose_digit, digit_masses
from .triton_pair import compare_lists, merge_one_sweep, merge_two_sweeps
from .triton_sweeps import (
    CHUNK,
    GROUP,
    LOG_SUM,
    ONE_SWEEP_SLOTS,
    ROW_SLOTS,
    SUM,
    TWO_SWEEP_SLOTS,
    first_sweep,
    merge_model,
    second_sweep,
)
from .triton_top import top_tokens

REFERENCE_LOGITS = 1 << 21  # logits that the reference takes at once, at about 100 bytes each

_OF_DECODING = ("top_mass", "tail_mass", "support_size", "support_entropy", "support_overlap")
_OF_TRAIN = ("ssd_push", "ssd_chi2", "ssd_alignment", "ssd_terms", "kept_mass")


def probe_stats_packed(
    logits_a_NV: Tensor, logits_b_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns (see ``schema.columns``) of N >= 1 positions; bf16, fp16 or fp32 logits of any row stride.

    Raises ValueError for logits that are not on a GPU, unless Triton's interpreter is on.
    """
    if not (logits_a_NV.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the triton backend takes GPU tensors, got {logits_a_NV.device}: use backend='cpu'")
    n, pair = logits_a_NV.shape[0], logits_b_NV is not None
    floats, ints = new_packed(logits_a_NV, n, spec, pair)
    stats = unpack(floats, ints, n, spec, pair)
    token_N = token_N.contiguous()

    with torch.cuda.device_of(logits_a_NV):  # kernels go to the current device, whatever device their tensors are on
        work = _Workspace(logits_a_NV, pair, spec)
        _sweep_once(logits_a_NV, logits_b_NV, token_N, spec, work)
        _one_model(logits_a_NV, token_N, spec, work, 0, stats.a)
        if logits_b_NV is not None and stats.b is not None and stats.pair is not None:
            _one_model(logits_b_NV, token_N, spec, work, 1, stats.b)
            _two_models(logits_a_NV, logits_b_NV, spec, work, stats.a, stats.b, stats.pair)
        if spec.decoding.top_k == 0 or spec.train.top_k == 0:
            _wide_supports(logits_a_NV, logits_b_NV, token_N, spec, stats)
    return floats, ints


class _Workspace:
    """What the kernels hand to each other; the layouts are described where they are written."""

    def __init__(self, logits_NV: Tensor, pair: bool, spec: ProbeSpec) -> None:
        n, v = logits_NV.shape
        models = 2 if pair else 1
        self.pair_sums = pair and spec.sweeps == 1
        self.chunks = triton.cdiv(v, CHUNK.value)
        self.padded_chunks = triton.next_power_of_2(self.chunks)
        self.groups = self.chunks * (CHUNK.value // GROUP.value)
        self.padded_groups = triton.next_power_of_2(self.groups)
        self.list_size = triton.next_power_of_2(spec.top)
        self.rates = tuple(dict.fromkeys((1.0, *(1 / t for t in spec.temperatures))))
        self.model_slots = SUM.value + len(self.rates) + spec.n_classes
        self.slots = models * self.model_slots + (ONE_SWEEP_SLOTS.value if self.pair_sums else 0)

        def floats(*shape: int) -> Tensor:
            return logits_NV.new_empty(shape, dtype=torch.float32)

        self.state = floats(n, self.slots, self.chunks)
        self.group_max, self.group_sum = floats(models, n, self.groups), floats(models, n, self.groups)
        self.rows = floats(models, n, ROW_SLOTS.value)


def powers_of_few(rates: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """(roots, root_of, powers) with rates[j] = powers[j] * roots[root_of[j]] and as few roots as whole powers allow.

    exp(rate x) is then a power of exp(root x): a multiplication instead of an exponential.
    """
    roots: list[float] = []
    found: dict[float, tuple[int, int]] = {}
    for rate in sorted(set(rates)):
        for i, root in enumerate(roots):
            power = round(rate / root)
            if power <= 8 and abs(rate / root - power) < 1e-9:
                found[rate] = (i, power)
                break
        else:
            found[rate] = (len(roots), 1)
            roots.append(rate)
    return tuple(roots), tuple(found[r][0] for r in rates), tuple(found[r][1] for r in rates)


def _sweep_once(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec, work: _Workspace) -> None:
    n, v = a.shape
    roots, root_of, powers = powers_of_few(work.rates)
    token_class = token if spec.token_class is None else spec.token_class.contiguous()
    first_sweep[(n * work.chunks,)](
        a, a if b is None else b, token, token_class, work.state, work.group_max, work.group_sum,
        n, v, work.chunks, a.stride(0), a.stride(0) if b is None else b.stride(0), work.slots, work.model_slots,
        spec.n_classes, RATES=work.rates, ROOTS=roots, ROOT_OF=root_of, POWERS=powers, HAS_B=b is not None,
        PAIR_SUMS=work.pair_sums,
        num_warps=8 if work.pair_sums else 4,  # the pair's sums keep both models' values in registers
    )  # fmt: skip


def _one_model(z: Tensor, token: Tensor, spec: ProbeSpec, work: _Workspace, model: int, out: ModelStats) -> None:
    """The columns of the model whose workspace is number ``model``."""
    n, v = z.shape
    state = work.state[:, model * work.model_slots :]
    row = work.rows[model]
    rate_of = tuple(work.rates.index(1 / t) for t in spec.temperatures)
    merge_model[(n,)](
        z, token, state, row, out.lse, out.entropy, out.token_logprob, out.token_rank, out.lse_T, out.class_mass,
        work.chunks, z.stride(0), work.slots, spec.n_classes, RATES=work.rates, RATE_OF=rate_of,
        CHUNKS=work.padded_chunks, num_warps=1,
    )  # fmt: skip
    top_tokens[(n,)](
        z, work.group_max[model], work.group_sum[model], state, row, out.top_ids, out.top_logprobs, out.top_mass,
        out.tail_mass, out.nucleus_size, out.support_size, out.support_entropy, v, work.groups, work.chunks, work.slots,
        z.stride(0), K=spec.top, KP=work.list_size, GROUPS=work.padded_groups,
        TEMPERATURE=spec.decoding.temperature, TOP_K=spec.decoding.top_k, TOP_P=spec.decoding.top_p,
        num_warps=min(8, triton.cdiv(work.padded_groups, 512)),
    )  # fmt: skip
    if spec.sweeps == 2 and spec.decoding.top_p < 1:
        _long_nucleus(z, spec.decoding.top_p, row, work, out.nucleus_size)


def _long_nucleus(z: Tensor, top_p: float, row: Tensor, work: _Workspace, nucleus_size_N: Tensor) -> None:
    """Replace the -1 of a nucleus beyond the top list, in rows that are valid.

    Listing those rows waits for the GPU, once a model; a search of all rows would read the logits 4 to 8 times more.
    """
    rows_R = ((nucleus_size_N == -1) & row[:, LOG_SUM.value].isfinite()).nonzero()[:, 0]
    searches = rows_R.shape[0]
    if searches == 0:
        return
    prefix_R, tokens_above_R = rows_R.new_empty(2, searches)
    mass_above_R, target_R = rows_R.new_empty(2, searches, dtype=torch.float64)
    mass = z.new_empty(searches, DIGITS.value, work.chunks, dtype=torch.float32)
    count = torch.empty_like(mass, dtype=torch.int32)
    passes = PASSES[z.dtype]
    for i in range(passes):
        digit_masses[(searches * work.chunks,)](
            z, rows_R, row, prefix_R, mass, count, z.shape[1], work.chunks, z.stride(0), 28 - 4 * i, FIRST=i == 0,
            num_warps=4,
        )  # fmt: skip
        choose_digit[(searches,)](
            rows_R, prefix_R, tokens_above_R, mass_above_R, target_R, mass, count, nucleus_size_N, work.chunks,
            CHUNKS=work.padded_chunks, TOP_P=top_p, FIRST=i == 0, LAST=i == passes - 1, num_warps=1,
        )  # fmt: skip


def _two_models(
    a: Tensor, b: Tensor, spec: ProbeSpec, work: _Workspace, in_a: ModelStats, in_b: ModelStats, out: PairStats
) -> None:
    n, v = a.shape
    row_a, row_b = work.rows
    mean_gap_N = a.new_empty(n, dtype=torch.float64)
    divergences = (out.kl_ab, out.kl_ba, out.js, out.tv, out.delta_var, mean_gap_N)
    if spec.sweeps == 1:
        merge_one_sweep[(n,)](
            work.state, row_a, row_b, *divergences, work.chunks, work.slots, work.model_slots,
            CHUNKS=work.padded_chunks, num_warps=1,
        )  # fmt: skip
    else:
        state = a.new_empty(n, TWO_SWEEP_SLOTS.value, work.chunks, dtype=torch.float32)
        second_sweep[(n * work.chunks,)](
            a, b, row_a, row_b, in_a.top_ids, state, v, work.chunks, a.stride(0), b.stride(0), K=spec.top, num_warps=4,
        )  # fmt: skip
        merge_two_sweeps[(n,)](
            state, b, row_a, row_b, in_a.top_ids, *divergences, work.chunks, b.stride(0), K=spec.top,
            CHUNKS=work.padded_chunks, num_warps=1,
        )  # fmt: skip
    compare_lists[(n,)](
        a, b, row_a, row_b, in_a.top_ids, in_b.top_ids, in_a.support_size, in_b.support_size, out.kl_ab, out.delta_var,
        mean_gap_N, out.b_at_a_top, out.a_at_b_top, out.support_overlap, out.ssd_push, out.ssd_chi2, out.ssd_alignment,
        out.ssd_terms, out.kept_mass, a.stride(0), b.stride(0), K=spec.top, KP=work.list_size,
        TEMPERATURE=spec.train.temperature, TOP_K=spec.train.top_k, TOP_P=spec.train.top_p, num_warps=1,
    )  # fmt: skip


def _wide_supports(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec, stats: ProbeStats) -> None:
    """The columns of every support with ``top_k = 0``, from the reference."""
    names = (_OF_DECODING if spec.decoding.top_k == 0 else ()) + (_OF_TRAIN if spec.train.top_k == 0 else ())
    n, v = a.shape
    step = max(1, REFERENCE_LOGITS // v)
    for i in range(0, n, step):
        part = slice(i, i + step)
        packed = reference.probe_stats_packed(a[part], None if b is None else b[part], token[part], spec)
        found = unpack(*packed, token[part].shape[0], spec, b is not None)
        for mine, theirs in ((stats.a, found.a), (stats.b, found.b), (stats.pair, found.pair)):
            for name in names:
                if hasattr(mine, name):
                    getattr(mine, name)[part] = getattr(theirs, name)
