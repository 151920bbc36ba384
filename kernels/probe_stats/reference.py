"""The definition of every column, in plain torch and, whatever the logits' dtype, in float64: the oracle of the tests.

It sorts whole rows and keeps several [N, V] tensors, about 200 bytes per logit: it is for reading, for checks and for
small inputs.

Shape legend: N scored positions, V vocabulary, K = ``spec.top_logprobs``. A name ending in ``_NV`` is [N, V].
"Sorted" means by falling logit, ties by smaller token id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .schema import ModelStats, PairStats, ProbeSpec, ProbeStats, SamplingParams, pack


def probe_stats_packed(
    logits_base_NV: Tensor, logits_trained_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns (see ``schema.columns``), computed in float64; float32 but for float64 logits."""
    floats, ints = packed_in(torch.float64, logits_base_NV, logits_trained_NV, token_N, spec)
    return floats if logits_base_NV.dtype == torch.float64 else floats.float(), ints


def packed_in(
    dtype: torch.dtype, logits_base_NV: Tensor, logits_trained_NV: Tensor | None, token_N: Tensor, spec: ProbeSpec
) -> tuple[Tensor, Tensor]:
    """The packed columns as plain torch computes them in ``dtype``, float64 or float32.

    In float32, they are what plain torch makes of 16-bit or float32 logits: the tests allow a backend a multiple of its
    error, and the benchmarks time it. A nucleus may end elsewhere then, and a tiny variance have the wrong sign.
    """
    a = _Row.from_logits(logits_base_NV.to(dtype))
    if logits_trained_NV is None:
        return pack(ProbeStats(_model_stats(a, token_N, spec), None, None), spec)
    b = _Row.from_logits(logits_trained_NV.to(dtype))
    stats = ProbeStats(_model_stats(a, token_N, spec), _model_stats(b, token_N, spec), _pair_stats(a, b, spec))
    return pack(stats, spec)


@dataclass
class _Row:
    """One model's logits of N positions, and what every column is computed from."""

    z_NV: Tensor  # logits in the dtype of the computation; all zero in an invalid row
    logp_NV: Tensor  # log softmax
    p_NV: Tensor
    order_NV: Tensor  # token ids, sorted
    lse_N: Tensor
    possible_N: Tensor  # how many tokens can occur (logit above -inf)
    bad_N: Tensor  # the row holds NaN or +inf, or is all -inf

    @staticmethod
    def from_logits(z_NV: Tensor) -> _Row:
        bad_N = (z_NV.isnan() | (z_NV == torch.inf)).any(1) | (z_NV == -torch.inf).all(1)
        z_NV = z_NV.masked_fill(bad_N[:, None], 0.0)
        lse_N = z_NV.logsumexp(1)
        logp_NV = z_NV.log_softmax(1)
        order_NV = z_NV.sort(dim=1, descending=True, stable=True).indices
        return _Row(z_NV, logp_NV, logp_NV.exp(), order_NV, lse_N, (z_NV > -torch.inf).sum(1), bad_N)


def _model_stats(row: _Row, token_N: Tensor, spec: ProbeSpec) -> ModelStats:
    n, v = row.z_NV.shape
    sorted_logp_NV = row.logp_NV.gather(1, row.order_NV)
    sorted_p_NV = sorted_logp_NV.exp()
    k = spec.eval_sampling.top_k or v

    id_V = torch.arange(v, device=row.z_NV.device)
    y_N1 = token_N[:, None]
    z_y_N1 = row.z_NV.gather(1, y_N1)
    ahead_NV = (row.z_NV > z_y_N1) | ((row.z_NV == z_y_N1) & (id_V < y_N1))

    size_N = nucleus(sorted_p_NV, spec.eval_sampling.top_p, row.possible_N)
    if spec.sweeps == 1:
        size_N = torch.where(size_N > spec.top_logprobs, -1, size_N)
    support_N = _support_size(row, spec.eval_sampling)
    log_q_NV = decoded_logprobs(row.z_NV.gather(1, row.order_NV), support_N, spec.eval_sampling.temperature)

    impossible_NV = sorted_logp_NV == -torch.inf
    top_ids_NK = row.order_NV.masked_fill(impossible_NV, -1)[:, : spec.top_logprobs]
    top_logprobs_NK = sorted_logp_NV[:, : spec.top_logprobs]
    if v < spec.top_logprobs:
        pad = (0, spec.top_logprobs - v)
        top_ids_NK = torch.nn.functional.pad(top_ids_NK, pad, value=-1)
        top_logprobs_NK = torch.nn.functional.pad(top_logprobs_NK, pad, value=-torch.inf)

    class_mass_NC = row.p_NV.new_zeros(n, spec.n_classes)
    if spec.token_class is not None:
        class_mass_NC.index_add_(1, spec.token_class.to(row.p_NV.device, torch.int64), row.p_NV)
    lse_T = [(row.z_NV / t).logsumexp(1) for t in spec.lse_temperatures]

    return ModelStats(
        lse=blank(row.lse_N, row.bad_N),
        entropy=blank(entropy(row.logp_NV), row.bad_N),
        token_logprob=blank(row.logp_NV.gather(1, y_N1)[:, 0], row.bad_N),
        top_mass=blank(sorted_p_NV[:, :k].sum(1), row.bad_N),
        tail_mass=blank(sorted_p_NV[:, k:].sum(1), row.bad_N),
        support_entropy=blank(entropy(log_q_NV), row.bad_N),
        top_logprobs=blank(top_logprobs_NK, row.bad_N),
        class_mass=blank(class_mass_NC, row.bad_N),
        lse_T=blank(torch.stack(lse_T, 1) if lse_T else row.lse_N.new_zeros(n, 0), row.bad_N),
        token_rank=blank(ahead_NV.sum(1), row.bad_N),
        nucleus_size=blank(size_N, row.bad_N),
        support_size=blank(support_N, row.bad_N),
        top_ids=blank(top_ids_NK, row.bad_N),
    )


def _pair_stats(a: _Row, b: _Row, spec: ProbeSpec) -> PairStats:
    v = a.z_NV.shape[1]
    bad_N = a.bad_N | b.bad_N
    log_mean_NV = torch.logaddexp(a.logp_NV, b.logp_NV) - torch.log(torch.tensor(2.0, dtype=a.p_NV.dtype))
    js_N = (kl(a.logp_NV, log_mean_NV) + kl(b.logp_NV, log_mean_NV)) / 2
    tv_N = (a.p_NV - b.p_NV).abs().sum(1) / 2
    if spec.sweeps == 1:
        js_N, tv_N = torch.full_like(js_N, torch.nan), torch.full_like(tv_N, torch.nan)
    kl_ab_N = kl(a.logp_NV, b.logp_NV)

    possible_a_NV, possible_b_NV = a.logp_NV > -torch.inf, b.logp_NV > -torch.inf
    infinite_N = (possible_a_NV & ~possible_b_NV).any(1)
    delta_NV = torch.where(possible_a_NV & possible_b_NV, b.logp_NV - a.logp_NV, 0.0)
    logratio_var_N = ((a.p_NV * delta_NV**2).sum(1) - kl_ab_N**2).masked_fill(infinite_N, torch.nan)

    # Self-distillation samples from q, which lives on the first `size` sorted tokens of the baseline.
    size_N = _support_size(a, spec.train_sampling)
    inside_NV = torch.arange(v, device=size_N.device) < size_N[:, None]
    z_a_NV, z_b_NV = a.z_NV.gather(1, a.order_NV), b.z_NV.gather(1, a.order_NV)
    log_q_NV = decoded_logprobs(z_a_NV, size_N, spec.train_sampling.temperature)
    q_NV = log_q_NV.exp()
    log_p_a_NV, log_p_b_NV = a.logp_NV.gather(1, a.order_NV), b.logp_NV.gather(1, a.order_NV)
    p_a_NV, p_b_NV = log_p_a_NV.exp(), log_p_b_NV.exp()
    ssd_cov_N = (q_NV * delta_NV.gather(1, a.order_NV)).sum(1) + kl_ab_N
    # Var_a(q / p - 1), written as a sum of squares: outside S the integrand is 1, inside (q - p)^2 / p.
    square_NV = torch.where(inside_NV, squared_ratio(log_q_NV, log_p_a_NV, inside_NV), p_a_NV)
    ssd_var_N = square_NV.sum(1) * (0.0 if spec.train_sampling.is_identity else 1.0)
    ssd_cov_N = ssd_cov_N.masked_fill(infinite_N, torch.nan)
    variance_N = logratio_var_N * ssd_var_N
    alignment_N = torch.where(variance_N > 0, ssd_cov_N / variance_N.sqrt(), torch.nan).clamp(-1, 1)
    kept_a_N, kept_b_N = (torch.where(inside_NV, p, 0.0).sum(1) for p in (p_a_NV, p_b_NV))
    ce_a = ce_terms(q_NV, z_a_NV, log_p_a_NV, inside_NV, spec.train_sampling.temperature)
    ce_b = ce_terms(q_NV, z_b_NV, log_p_b_NV, inside_NV, spec.train_sampling.temperature)

    in_a_NV = _membership(a, _support_size(a, spec.eval_sampling))
    in_b_NV = _membership(b, _support_size(b, spec.eval_sampling))
    return PairStats(
        kl_base_trained=blank(kl_ab_N, bad_N),
        kl_trained_base=blank(kl(b.logp_NV, a.logp_NV), bad_N),
        js=blank(js_N, bad_N),
        tv=blank(tv_N, bad_N),
        logratio_var=blank(logratio_var_N, bad_N),
        ssd_cov=blank(ssd_cov_N, bad_N),
        ssd_var=blank(ssd_var_N, bad_N),
        ssd_alignment=blank(alignment_N, bad_N),
        trained_logprobs_at_base_top=blank(_at_top(a, b.logp_NV, spec.top_logprobs), bad_N),
        base_logprobs_at_trained_top=blank(_at_top(b, a.logp_NV, spec.top_logprobs), bad_N),
        base_ce_compression=blank(ce_a.compression_N, bad_N),
        base_ce_reshaping=blank(ce_a.reshaping_N, bad_N),
        base_ce_alignment=blank(ce_a.alignment_N, bad_N),
        trained_ce_compression=blank(ce_b.compression_N, bad_N),
        trained_ce_reshaping=blank(ce_b.reshaping_N, bad_N),
        trained_ce_alignment=blank(ce_b.alignment_N, bad_N),
        base_kept_mass=blank(kept_a_N, bad_N),
        trained_kept_mass=blank(kept_b_N, bad_N),
        support_overlap=blank((in_a_NV & in_b_NV).sum(1), bad_N),
    )


def entropy(logp_NV: Tensor) -> Tensor:
    return -torch.where(logp_NV > -torch.inf, logp_NV.exp() * logp_NV, 0.0).sum(1)


def nucleus(sorted_p_NV: Tensor, top_p: float, possible_N: Tensor) -> Tensor:
    """Length [N] of the shortest prefix whose mass reaches top_p; every possible token for top_p = 1."""
    if top_p == 1:
        return possible_N
    short_N = (sorted_p_NV.double().cumsum(1) < top_p).sum(1)
    return torch.minimum(short_N + 1, possible_N)


def _support_size(row: _Row, sampling: SamplingParams) -> Tensor:
    """How many tokens [N] these parameters can draw: always the first ones in sorted order."""
    v = row.z_NV.shape[1]
    survivors_N = row.possible_N.clamp(max=sampling.top_k or v)
    log_q_NV = decoded_logprobs(row.z_NV.gather(1, row.order_NV), survivors_N, sampling.temperature)
    return nucleus(log_q_NV.exp(), sampling.top_p, survivors_N)


def decoded_logprobs(sorted_z_NV: Tensor, size_N: Tensor, temperature: float) -> Tensor:
    """log softmax of z / T over the first ``size`` sorted tokens, -inf beyond them."""
    inside_NV = torch.arange(sorted_z_NV.shape[1], device=size_N.device) < size_N[:, None]
    return torch.where(inside_NV, sorted_z_NV / temperature, -torch.inf).log_softmax(1)


def kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(p || q) [N] as the sum of p (e^d - 1 - d) with d = log q - log p: every term is >= 0 and right when tiny.

    The added e^d - 1 sums to zero. Where p is 0, the term is its limit q.
    """
    p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
    both_NV = (log_p_NV > -torch.inf) & (log_q_NV > -torch.inf)
    d_NV = torch.where(both_NV, log_q_NV - log_p_NV, 0.0)
    near_NV = p_NV * (torch.expm1(d_NV.clamp(max=1)) - d_NV)
    far_NV = q_NV - p_NV - p_NV * d_NV
    kl_N = torch.where((d_NV.abs() < 1) & both_NV, near_NV, far_NV).sum(1)
    forbidden_N = ((log_p_NV > -torch.inf) & (log_q_NV == -torch.inf)).any(1)
    return kl_N.masked_fill(forbidden_N, torch.inf)


def squared_ratio(log_q_NV: Tensor, log_p_NV: Tensor, inside_NV: Tensor) -> Tensor:
    """(q - p)² / p inside, as the squared difference of q / sqrt(p) and sqrt(p): right however small p is."""
    half_NV = torch.where(inside_NV, log_p_NV, 0.0) / 2
    return ((torch.where(inside_NV, log_q_NV, 0.0) - half_NV).exp() - half_NV.exp()) ** 2


class CeTerms(NamedTuple):
    """The terms of CE(q, p), each [N]."""

    compression_N: Tensor
    reshaping_N: Tensor
    alignment_N: Tensor


def ce_terms(q_NV: Tensor, z_NV: Tensor, log_p_NV: Tensor, inside_NV: Tensor, temperature: float) -> CeTerms:
    """-log p(S), (1 - T) H_{1/T}(r), T KL(q || r tempered by T), with r the model restricted to S.

    z_NV, log_p_NV: the model's logits and log-probabilities. -log p(S) is finite unless the model forbids all of S,
    however small the mass. The Rényi term is -T log sum r^(1/T), which needs no case for T = 1. The last is +inf where
    the model forbids a token of S; where it forbids all of S, r does not exist and the second is NaN.
    """
    log_kept_N = torch.where(inside_NV, log_p_NV, -torch.inf).logsumexp(1)
    log_r_NV = torch.where(inside_NV, z_NV, -torch.inf).log_softmax(1)
    log_power_N = torch.where(inside_NV, log_r_NV / temperature, -torch.inf).logsumexp(1)
    log_tempered_NV = log_r_NV / temperature - log_power_N[:, None]
    gap_NV = torch.where(q_NV > 0, q_NV * (q_NV.log() - log_tempered_NV), 0.0)
    forbidden_N = (inside_NV & (z_NV == -torch.inf)).any(1)
    gap_N = gap_NV.sum(1).masked_fill(forbidden_N, torch.inf)
    return CeTerms(-log_kept_N, -temperature * log_power_N, temperature * gap_N)


def _membership(row: _Row, size_N: Tensor) -> Tensor:
    inside_NV = torch.arange(row.z_NV.shape[1], device=size_N.device) < size_N[:, None]
    return torch.zeros_like(inside_NV).scatter(1, row.order_NV, inside_NV)


def _at_top(row: _Row, other_logp_NV: Tensor, top: int) -> Tensor:
    """The other model's log-probabilities at this model's top ids, -inf where there is no such token."""
    logp_NK = other_logp_NV.gather(1, row.order_NV[:, :top])
    logp_NK = logp_NK.masked_fill(row.logp_NV.gather(1, row.order_NV[:, :top]) == -torch.inf, -torch.inf)
    return torch.nn.functional.pad(logp_NK, (0, top - logp_NK.shape[1]), value=-torch.inf)


def blank(column: Tensor, bad_N: Tensor) -> Tensor:
    """NaN, or -1 in an integer column, in the invalid rows."""
    bad = bad_N.view(-1, *([1] * (column.dim() - 1)))
    return torch.where(bad, torch.nan if column.is_floating_point() else -1, column)
