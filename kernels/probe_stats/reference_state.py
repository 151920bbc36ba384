"""The definition of a partial state and of the divergences, in plain torch and always in float64.

Shape legend: N scored positions, V vocabulary entries of this part, K = ``spec.top_logprobs``, S slots, M models.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .reference import kl
from .schema import ProbeSpec
from .state import (
    A_D,
    A_DD,
    AHEAD,
    B_D,
    DIVERGENCES,
    GAP,
    GAP_SQUARED,
    JS,
    KL_AB,
    KL_BA,
    MAX,
    POSSIBLE,
    REST,
    SUM,
    TV,
    WEIGHTED,
    Layout,
    PartialState,
    TopList,
)


def partial_state(
    logits_base_NV: Tensor,
    logits_trained_NV: Tensor | None,
    token_N: Tensor,
    token_z_MN: Tensor,
    spec: ProbeSpec,
    first_id: int,
) -> PartialState:
    """The state of vocabulary entries first_id .. first_id + V, V >= 1; ``token_N`` counts in the whole vocabulary.

    token_z_MN: the logit of the trace's token under each model, whichever part has it. The lists are float64.
    """
    layout = Layout.from_spec(spec, logits_trained_NV is not None)
    logits = [z.double() for z in (logits_base_NV, logits_trained_NV) if z is not None]
    bad_MN = torch.stack([(z.isnan() | (z == torch.inf)).any(1) for z in logits])
    z_MNV = torch.stack(logits).masked_fill(bad_MN[:, :, None], 0.0)
    max_MN = z_MNV.amax(2)
    x_MNV = z_MNV - torch.where(max_MN > -torch.inf, max_MN, 0.0)[:, :, None]
    slots_SN = z_MNV.new_zeros(layout.slots, token_N.shape[0])
    lists = []
    for m in range(layout.models):
        slots = slots_SN[m * layout.model_slots :][: layout.model_slots]
        order_NV = z_MNV[m].sort(dim=1, descending=True, stable=True).indices
        _fill_model(slots, z_MNV[m], x_MNV[m], order_NV, token_N, token_z_MN[m].double(), spec, layout, first_id)
        slots[MAX] = max_MN[m]
        slots.masked_fill_(bad_MN[m], torch.nan)
        lists.append(_top_list(z_MNV, m, order_NV[:, : spec.top_logprobs], spec.top_logprobs, first_id))
    if layout.pair_sums:
        _fill_pair(slots_SN[2 * layout.model_slots :], x_MNV[0], x_MNV[1], bad_MN.any(0))
    return PartialState(layout, slots_SN, tuple(lists), token_N, token_z_MN)


def _fill_model(
    slots_SN: Tensor, z_NV: Tensor, x_NV: Tensor, order_NV: Tensor, token_N: Tensor, token_z_N: Tensor, spec: ProbeSpec,
    layout: Layout, first_id: int,
) -> None:  # fmt: skip
    e_NV = x_NV.exp()
    ids_V = first_id + torch.arange(z_NV.shape[1], device=z_NV.device)
    y_N1, z_y_N1 = token_N[:, None], token_z_N[:, None]
    slots_SN[WEIGHTED] = torch.where(x_NV > -torch.inf, e_NV * x_NV, 0.0).sum(1)
    slots_SN[AHEAD] = ((z_NV > z_y_N1) | ((z_NV == z_y_N1) & (ids_V < y_N1))).sum(1).double()
    slots_SN[POSSIBLE] = (z_NV > -torch.inf).sum(1).double()
    slots_SN[REST] = e_NV.gather(1, order_NV)[:, spec.top_logprobs :].sum(1)
    for j, rate in enumerate(layout.rates):
        slots_SN[SUM + j] = (x_NV * rate).exp().sum(1)
    if spec.token_class is not None:
        class_V = spec.token_class[first_id:][: z_NV.shape[1]].to(z_NV.device, torch.int64)
        slots_SN[SUM + len(layout.rates) :].index_add_(0, class_V, e_NV.T)


def _fill_pair(slots_SN: Tensor, x_a_NV: Tensor, x_b_NV: Tensor, bad_N: Tensor) -> None:
    d_NV = x_b_NV - x_a_NV  # -inf where only a allows the token, +inf where only b does, NaN where neither
    finite_NV = torch.where(d_NV.isfinite(), d_NV, 0.0)
    slots_SN[A_D] = torch.where(d_NV == -torch.inf, -torch.inf, x_a_NV.exp() * finite_NV).sum(1)
    slots_SN[B_D] = torch.where(d_NV == torch.inf, -torch.inf, x_b_NV.exp() * finite_NV).sum(1)
    slots_SN[A_DD] = (x_a_NV.exp() * finite_NV**2).sum(1)
    slots_SN.masked_fill_(bad_N, torch.nan)


def _top_list(z_MNV: Tensor, model: int, best_NK: Tensor, k: int, first_id: int) -> TopList:
    z_NK = z_MNV[model].gather(1, best_NK)
    absent_NK = z_NK == -torch.inf
    other_NK = z_MNV[1 - model].gather(1, best_NK).masked_fill(absent_NK, -torch.inf) if len(z_MNV) == 2 else None

    def padded(column_NK: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(column_NK, (0, k - column_NK.shape[1]), value=value)

    ids_NK = padded((best_NK + first_id).masked_fill(absent_NK, -1), -1)
    return TopList(padded(z_NK, -torch.inf), ids_NK, None if other_NK is None else padded(other_NK, -torch.inf))


def divergences(
    logits_base_NV: Tensor, logits_trained_NV: Tensor, max_MN: Tensor, log_sum_MN: Tensor, pivot_N: Tensor
) -> Tensor:
    """This part's terms of each divergence, float64 [DIVERGENCES, N].

    The last three arguments are those of ``shards.divergences``.
    """
    a_NV, b_NV = logits_base_NV.double() - max_MN[0][:, None], logits_trained_NV.double() - max_MN[1][:, None]
    log_p_a_NV, log_p_b_NV = a_NV - log_sum_MN[0][:, None], b_NV - log_sum_MN[1][:, None]
    p_a_NV, p_b_NV = log_p_a_NV.exp(), log_p_b_NV.exp()
    log_mean_NV = torch.logaddexp(log_p_a_NV, log_p_b_NV) - math.log(2)
    gap_NV = b_NV - a_NV
    centred_NV = torch.where(gap_NV.isfinite(), gap_NV - pivot_N.double()[:, None], 0.0)
    out = a_NV.new_empty(DIVERGENCES, a_NV.shape[0])
    out[KL_AB] = kl(log_p_a_NV, log_p_b_NV)
    out[KL_BA] = kl(log_p_b_NV, log_p_a_NV)
    out[JS] = (kl(log_p_a_NV, log_mean_NV) + kl(log_p_b_NV, log_mean_NV)) / 2
    out[TV] = (p_a_NV - p_b_NV).abs().sum(1) / 2
    out[GAP] = (p_a_NV * centred_NV).sum(1)
    out[GAP_SQUARED] = (p_a_NV * centred_NV**2).sum(1)
    return out
