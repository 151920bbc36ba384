"""Every column from the state of the whole vocabulary, in float64 torch: a handful of numbers per row.

Shape legend: N scored positions, K = ``spec.top_logprobs``, S slots of one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .reference import blank, ce_terms, decoded_logprobs, entropy, nucleus, squared_ratio
from .schema import ModelStats, PairStats, ProbeSpec, ProbeStats, SamplingParams
from .state import (
    A_D,
    A_DD,
    AHEAD,
    B_D,
    GAP,
    GAP_SQUARED,
    JS,
    KL_AB,
    KL_BA,
    POSSIBLE,
    REST,
    SUM,
    TV,
    WEIGHTED,
    PartialState,
    TopList,
    normalisers,
    pivot,
)


def columns(state: PartialState, spec: ProbeSpec, divergences_DN: Tensor | None = None) -> ProbeStats:
    """Every column, float32 and int64, from the state of the whole vocabulary.

    divergences_DN: float64 [DIVERGENCES, N], summed over the vocabulary, for a pair and ``spec.sweeps == 2``.
    ``nucleus_size`` is -1 where the nucleus reaches beyond the top list. Both ``top_k`` must be at least 1.
    """
    if spec.eval_sampling.top_k == 0 or spec.train_sampling.top_k == 0:
        raise ValueError("top_k = 0 makes supports as long as the vocabulary, which a top list does not hold")
    max_MN, log_sum_MN = normalisers(state)
    models = [
        _Model.from_state(state, i, max_MN[i], log_sum_MN[i], spec.eval_sampling) for i in range(state.layout.models)
    ]
    stats = [_model_stats(model, state, spec) for model in models]
    if len(models) == 1:
        return ProbeStats(stats[0], None, None)
    divergences = _from_one_sweep(state, models) if divergences_DN is None else _from_two_sweeps(state, divergences_DN)
    return ProbeStats(stats[0], stats[1], _pair_stats(models[0], models[1], divergences, spec))


@dataclass
class _Model:
    slots_SN: Tensor
    top: TopList
    z_NK: Tensor  # the list's logits, float64
    token_z_N: Tensor
    max_N: Tensor
    log_sum_N: Tensor
    bad_N: Tensor
    support_size_N: Tensor  # of ``spec.eval_sampling``
    support_logprobs_NK: Tensor

    @staticmethod
    def from_state(
        state: PartialState, index: int, max_N: Tensor, log_sum_N: Tensor, sampling: SamplingParams
    ) -> _Model:
        top = state.lists[index]
        z_NK = top.z_NK.double()
        size_N, log_q_NK = _support(z_NK, sampling)
        return _Model(state.model(index), top, z_NK, state.token_z_MN[index].double(), max_N, log_sum_N,
                      log_sum_N.isnan(), size_N, log_q_NK)  # fmt: skip

    @property
    def p_NK(self) -> Tensor:
        return self.logprobs(self.z_NK).exp()

    @property
    def rest_N(self) -> Tensor:
        """Mass outside the list."""
        return self.slots_SN[REST] / self.slots_SN[SUM]

    def logprobs(self, z_NK: Tensor) -> Tensor:
        """Of tokens by their logits under this model, -inf where there is no token."""
        return z_NK.double() - self.max_N[:, None] - self.log_sum_N[:, None]


def _support(z_NK: Tensor, sampling: SamplingParams) -> tuple[Tensor, Tensor]:
    """How many tokens of a sorted list these parameters can draw, [N], and their log-probabilities, [N, K]."""
    survivors_N = (z_NK > -torch.inf).sum(1).clamp(max=sampling.top_k)
    q_NK = decoded_logprobs(z_NK, survivors_N, sampling.temperature).exp()
    size_N = nucleus(q_NK, sampling.top_p, survivors_N)
    return size_N, decoded_logprobs(z_NK, size_N, sampling.temperature)


def _model_stats(model: _Model, state: PartialState, spec: ProbeSpec) -> ModelStats:
    slots_SN, p_NK, bad_N = model.slots_SN, model.p_NK, model.bad_N
    rates = state.layout.rates
    k = spec.eval_sampling.top_k
    possible_N = slots_SN[POSSIBLE].long()
    size_N = nucleus(p_NK, spec.eval_sampling.top_p, possible_N)
    if spec.eval_sampling.top_p < 1 or spec.sweeps == 1:
        size_N = torch.where(size_N > spec.top_logprobs, -1, size_N)

    is_token_NK = model.top.ids_NK == state.token_N[:, None]
    rank_N = torch.where(is_token_NK.any(1), is_token_NK.int().argmax(1), slots_SN[AHEAD].nan_to_num(0).long())
    lse_T = [model.max_N * r + slots_SN[SUM + rates.index(r)].log() for r in (1 / t for t in spec.lse_temperatures)]
    first_class = SUM + len(rates)

    def floats(column: Tensor) -> Tensor:
        return blank(column.float(), bad_N)

    return ModelStats(
        lse=floats(model.max_N + model.log_sum_N),
        entropy=floats(model.log_sum_N - slots_SN[WEIGHTED] / slots_SN[SUM]),
        token_logprob=floats(model.token_z_N - model.max_N - model.log_sum_N),
        top_mass=floats(p_NK[:, :k].sum(1)),
        tail_mass=floats(p_NK[:, k:].sum(1) + model.rest_N),
        support_entropy=floats(entropy(model.support_logprobs_NK)),
        top_logprobs=floats(model.logprobs(model.z_NK)),
        class_mass=floats((slots_SN[first_class:] / slots_SN[SUM]).T),
        lse_T=floats(torch.stack(lse_T, 1) if lse_T else slots_SN.new_zeros(bad_N.shape[0], 0)),
        token_rank=blank(rank_N, bad_N),
        nucleus_size=blank(size_N, bad_N),
        support_size=blank(model.support_size_N, bad_N),
        top_ids=blank(model.top.ids_NK, bad_N),
    )


@dataclass
class _Divergences:
    kl_ab_N: Tensor
    kl_ba_N: Tensor
    js_N: Tensor
    tv_N: Tensor
    square_N: Tensor  # mean square of the gap under a, less a constant
    mean_N: Tensor  # mean of the same
    constant_N: Tensor


def _from_one_sweep(state: PartialState, models: list[_Model]) -> _Divergences:
    a, b = models
    pair_SN = state.slots_SN[2 * state.layout.model_slots :]
    a_d_N, b_d_N, a_dd_N = pair_SN[A_D], pair_SN[B_D], pair_SN[A_DD]
    sum_a_N, sum_b_N = a.slots_SN[SUM], b.slots_SN[SUM]
    log_ratio_N = b.log_sum_N - a.log_sum_N
    mean_N, mean_b_N = a_d_N / sum_a_N, b_d_N / sum_b_N
    kl_ba_N = torch.where(b_d_N == -torch.inf, torch.inf, mean_b_N - log_ratio_N).clamp(min=0)
    nan_N = torch.full_like(mean_N, torch.nan)
    return _Divergences(
        (log_ratio_N - mean_N).clamp(min=0), kl_ba_N, nan_N, nan_N, a_dd_N / sum_a_N, mean_N, torch.zeros_like(mean_N)
    )


def _from_two_sweeps(state: PartialState, sums_DN: Tensor) -> _Divergences:
    return _Divergences(
        sums_DN[KL_AB], sums_DN[KL_BA], sums_DN[JS], sums_DN[TV], sums_DN[GAP_SQUARED], sums_DN[GAP],
        pivot(state).double(),
    )  # fmt: skip


def _pair_stats(a: _Model, b: _Model, divergences: _Divergences, spec: ProbeSpec) -> PairStats:
    other_a_NK, other_b_NK = a.top.other_NK, b.top.other_NK
    assert other_a_NK is not None
    assert other_b_NK is not None
    bad_N = a.bad_N | b.bad_N
    infinite_N = divergences.kl_ab_N == torch.inf
    logratio_var_N = (divergences.square_N - divergences.mean_N**2).clamp(min=0).masked_fill(infinite_N, torch.nan)

    size_N, log_q_NK = _support(a.z_NK, spec.train_sampling)
    inside_NK = torch.arange(spec.top_logprobs, device=size_N.device) < size_N[:, None]
    q_NK = log_q_NK.exp()
    log_p_a_NK, log_p_b_NK = a.logprobs(a.z_NK), b.logprobs(other_a_NK)
    p_a_NK, p_b_NK = log_p_a_NK.exp(), log_p_b_NK.exp()
    kept_a_N, kept_b_N = (torch.where(inside_NK, p, 0.0).sum(1) for p in (p_a_NK, p_b_NK))
    ce_a = ce_terms(q_NK, a.z_NK, log_p_a_NK, inside_NK, spec.train_sampling.temperature)
    ce_b = ce_terms(q_NK, other_a_NK.double(), log_p_b_NK, inside_NK, spec.train_sampling.temperature)

    # Cov_a(Δ, q / p_a - 1) is E_q[Δ] - E_a[Δ]: the normalisers cancel, so the difference is taken between the logits
    # alone. It is rounded as in the sweeps, so that the gap of a sure token cancels to the last bit.
    lowest = torch.finfo(other_a_NK.dtype).min  # of a difference that overflows: a token of S can occur
    x_a_NK = (a.top.z_NK - a.max_N.to(a.top.z_NK.dtype)[:, None]).clamp(min=lowest)
    x_b_NK = (other_a_NK - b.max_N.to(other_a_NK.dtype)[:, None]).clamp(min=lowest)
    gap_NK = torch.where(inside_NK & (other_a_NK > -torch.inf), x_b_NK - x_a_NK, 0.0).double()
    mean_q_N = (q_NK * (gap_NK - divergences.constant_N[:, None])).sum(1)
    ssd_cov_N = (mean_q_N - divergences.mean_N).masked_fill(infinite_N, torch.nan)
    square_NK = torch.where(inside_NK, squared_ratio(log_q_NK, log_p_a_NK, inside_NK), p_a_NK)
    ssd_var_N = square_NK.sum(1) + a.rest_N
    variance_N = logratio_var_N * ssd_var_N
    alignment_N = torch.where(variance_N > 0, ssd_cov_N / variance_N.sqrt(), torch.nan).clamp(-1, 1)

    def floats(column: Tensor) -> Tensor:
        return blank(column.float(), bad_N)

    return PairStats(
        kl_base_trained=floats(divergences.kl_ab_N),
        kl_trained_base=floats(divergences.kl_ba_N),
        js=floats(divergences.js_N),
        tv=floats(divergences.tv_N),
        logratio_var=floats(logratio_var_N),
        ssd_cov=floats(ssd_cov_N),
        ssd_var=floats(ssd_var_N),
        ssd_alignment=floats(alignment_N),
        trained_logprobs_at_base_top=floats(log_p_b_NK),
        base_logprobs_at_trained_top=floats(a.logprobs(other_b_NK)),
        base_ce_compression=floats(ce_a.compression_N),
        base_ce_reshaping=floats(ce_a.reshaping_N),
        base_ce_alignment=floats(ce_a.alignment_N),
        trained_ce_compression=floats(ce_b.compression_N),
        trained_ce_reshaping=floats(ce_b.reshaping_N),
        trained_ce_alignment=floats(ce_b.alignment_N),
        base_kept_mass=floats(kept_a_N),
        trained_kept_mass=floats(kept_b_N),
        support_overlap=blank(_overlap(a, b), bad_N),
    )


def _overlap(a: _Model, b: _Model) -> Tensor:
    """Tokens [N] in both models' supports at ``spec.eval_sampling``."""
    place_K = torch.arange(a.z_NK.shape[1], device=a.z_NK.device)
    ids_a = torch.where(place_K < a.support_size_N[:, None], a.top.ids_NK, -1)
    ids_b = torch.where(place_K < b.support_size_N[:, None], b.top.ids_NK, -2)
    return (ids_a[:, :, None] == ids_b[:, None, :]).sum((1, 2))
