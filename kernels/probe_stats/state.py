"""The partial state of a part of the vocabulary: one definition for a block of a kernel and for a rank's shard.

A part is a set of vocabulary entries. Its state holds sums relative to its own largest logit, and the states of parts
merge to the state of their union. From the state of the whole vocabulary, ``columns`` computes every statistic that
does not need the normalisers first. Those that do (``DIVERGENCES``) are sums over the vocabulary, and simply add.

Shape legend: N scored positions, P parts, S slots, K the length of the top lists, D the tokens that a merge drops from
them. a is the baseline, b the trained model; x = z - MAX, a logit below the largest of its part; d = x_b - x_a;
rate = 1 / T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .schema import ProbeSpec

# Slots of one model, relative to its first. SUM + j is the sum of exp(rate_j x); class masses, sums of e^x, follow.
MAX = 0  # -inf in a part without a token that can occur; NaN where the row is invalid
WEIGHTED = 1  # sum of e^x x, for the entropy
AHEAD = 2  # tokens ranked before the token of the trace
POSSIBLE = 3  # tokens that can occur
REST = 4  # sum of e^x outside the part's top list, summed directly, so that a tail of 1e-7 is right
SUM = 5

# Slots of the pair, relative to the first one after both models, where ``Layout.pair_sums``. A token that one model
# allows and the other forbids makes the sum -inf.
A_D = 0  # sum of e^x_a d
B_D = 1  # sum of e^x_b d
A_DD = 2  # sum of e^x_a d², meaningless where A_D is -inf
PAIR_SLOTS = 3

# The divergences, once the normalisers are known. p_a and p_b are probabilities over the whole vocabulary.
KL_AB = 0
KL_BA = 1
JS = 2
TV = 3
GAP = 4  # sum of p_a times the gap x_b - x_a less the pivot (see ``pivot``)
GAP_SQUARED = 5
DIVERGENCES = 6

ALIKE = 0.5  # the largest mean of log p_b - log p_a about which moments lose nothing that matters
SATURATED = 1e18  # where differences of logits saturate: float32 holds the square


@dataclass(frozen=True)
class Layout:
    """Which slots a state has.

    rates: 1 / T of every sum, the first 1, without repeats. models: 1 or 2. pair_sums: A_D, B_D and A_DD are there.
    """

    rates: tuple[float, ...]
    n_classes: int
    models: int
    pair_sums: bool

    @staticmethod
    def from_spec(spec: ProbeSpec, pair: bool) -> Layout:
        """The layout of a specification. Only one sweep needs the pair's sums: a second sweep computes better ones."""
        rates = tuple(dict.fromkeys((1.0, *(1 / t for t in spec.lse_temperatures))))
        return Layout(rates, spec.n_classes, 2 if pair else 1, pair and spec.sweeps == 1)

    @property
    def model_slots(self) -> int:
        return SUM + len(self.rates) + self.n_classes

    def select(self, slots_SN: Tensor, index: int) -> Tensor:
        """The slots of one model, a view."""
        return slots_SN[index * self.model_slots :][: self.model_slots]

    @property
    def slots(self) -> int:
        return self.models * self.model_slots + (PAIR_SLOTS if self.pair_sums else 0)


@dataclass(frozen=True)
class TopList:
    """The K likeliest tokens of a part under one model, by falling logit, ties by smaller id.

    z_NK, other_NK: this model's and the other's logits, float32 (float64 from plain torch), -inf where there is no such
    token; other_NK is None where there is one model. ids_NK: int64, of the whole vocabulary, -1 where absent.
    """

    z_NK: Tensor
    ids_NK: Tensor
    other_NK: Tensor | None


@dataclass(frozen=True)
class PartialState:
    """Everything that one read of a part of the vocabulary gives.

    slots_SN: float64 [S, N]. lists: one for each model. token_N: int64, the token of the trace; token_z_MN: its logit
    under each model, [models, N], whichever part it lies in.
    """

    layout: Layout
    slots_SN: Tensor
    lists: tuple[TopList, ...]
    token_N: Tensor
    token_z_MN: Tensor

    def model(self, index: int) -> Tensor:
        """The slots of one model, a view."""
        return self.layout.select(self.slots_SN, index)


def merge_slots(parts_PSN: Tensor, layout: Layout) -> Tensor:
    """The state [S, N], float64, of the union of P >= 1 parts, from float32 or float64 [P, S, N].

    Parts may be empty. A row that is invalid in a part (NaN in MAX or SUM, or MAX +inf) has NaN in its model's slots.
    Sums run in float64 over the parts, one slot at a time, with a few float64 [P, N] as workspace.
    """
    merged_SN = parts_PSN.new_empty(parts_PSN.shape[1:], dtype=torch.float64)
    shifts = []
    for model in range(layout.models):
        first = model * layout.model_slots
        shifts.append(_merge_model(parts_PSN[:, first:], merged_SN[first : first + layout.model_slots], layout))
    if layout.pair_sums:
        _merge_pair(parts_PSN, merged_SN, shifts[0], shifts[1], layout)
    return merged_SN


def _merge_model(parts_PSN: Tensor, merged_SN: Tensor, layout: Layout) -> Tensor:
    """Fills the slots of one model; returns the parts' maxima minus the row's, [P, N]."""
    max_PN = parts_PSN[:, MAX].double()
    merged_SN[MAX] = max_N = max_PN.amax(0)
    possible_PN = max_PN > -torch.inf
    shift_PN = torch.where(possible_PN, max_PN - max_N, -torch.inf)
    scale_PN = shift_PN.exp()
    sum_PN = parts_PSN[:, SUM].double()
    weighted_PN = parts_PSN[:, WEIGHTED].double() + sum_PN * torch.where(possible_PN, shift_PN, 0.0)
    merged_SN[WEIGHTED] = (weighted_PN * scale_PN).sum(0)
    for slot in (AHEAD, POSSIBLE):
        merged_SN[slot] = parts_PSN[:, slot].sum(0, dtype=torch.float64)
    for slot in (REST, SUM, *range(SUM + len(layout.rates), layout.model_slots)):
        merged_SN[slot] = (parts_PSN[:, slot] * scale_PN).sum(0)
    for j, rate in enumerate(layout.rates[1:], start=1):
        merged_SN[SUM + j] = (parts_PSN[:, SUM + j] * (shift_PN * rate).exp()).sum(0)
    invalid_N = max_N.isnan() | (max_N == torch.inf) | merged_SN[SUM].isnan()
    merged_SN.masked_fill_(invalid_N, torch.nan)
    return shift_PN


def _merge_pair(parts_PSN: Tensor, merged_SN: Tensor, shift_a_PN: Tensor, shift_b_PN: Tensor, layout: Layout) -> None:
    """A part took d relative to its own maxima; ``offset`` converts it to those of the row."""
    first = 2 * layout.model_slots
    a_d_PN, b_d_PN = parts_PSN[:, first + A_D].double(), parts_PSN[:, first + B_D].double()
    forbidden_by_b_N, forbidden_by_a_N = (a_d_PN == -torch.inf).any(0), (b_d_PN == -torch.inf).any(0)
    a_d_PN = torch.where(a_d_PN == -torch.inf, 0.0, a_d_PN)
    b_d_PN = torch.where(b_d_PN == -torch.inf, 0.0, b_d_PN)
    sum_a_PN, sum_b_PN = parts_PSN[:, SUM].double(), parts_PSN[:, layout.model_slots + SUM].double()
    both_PN = (shift_a_PN > -torch.inf) & (shift_b_PN > -torch.inf)
    offset_PN = torch.where(both_PN, shift_b_PN - shift_a_PN, 0.0)
    scale_a_PN, scale_b_PN = shift_a_PN.exp(), shift_b_PN.exp()
    a_d_N = _scaled(scale_a_PN, a_d_PN + offset_PN * sum_a_PN).sum(0)
    b_d_N = _scaled(scale_b_PN, b_d_PN + offset_PN * sum_b_PN).sum(0)
    merged_SN[first + A_D] = a_d_N.masked_fill(forbidden_by_b_N, -torch.inf)
    merged_SN[first + B_D] = b_d_N.masked_fill(forbidden_by_a_N, -torch.inf)
    a_dd_PN = parts_PSN[:, first + A_DD] + offset_PN * (2 * a_d_PN + offset_PN * sum_a_PN)
    merged_SN[first + A_DD] = _scaled(scale_a_PN, a_dd_PN).sum(0)


def _scaled(scale: Tensor, value: Tensor) -> Tensor:
    """scale * value; 0 for a scale of 0, of which an infinite value would make NaN."""
    return torch.where((scale == 0) & value.isinf(), 0.0, scale * value)


def merge_states(states: Sequence[PartialState]) -> PartialState:
    """The state of the union of disjoint parts, in any order; all of the same positions and layout."""
    first = states[0]
    slots_SN = merge_slots(torch.stack([state.slots_SN for state in states]), first.layout)
    token_z_MN = torch.stack([state.token_z_MN for state in states]).amax(0)
    merged = replace(first, slots_SN=slots_SN, token_z_MN=token_z_MN)
    lists = []
    for model in range(first.layout.models):
        best, dropped_z_ND = _merge_lists([state.lists[model] for state in states])
        slots = merged.model(model)
        x_ND = torch.where(dropped_z_ND > -torch.inf, dropped_z_ND.double() - slots[MAX][:, None], -torch.inf)
        slots[REST] += x_ND.exp().sum(1)
        lists.append(best)
    return replace(merged, lists=tuple(lists))


def _merge_lists(lists: Sequence[TopList]) -> tuple[TopList, Tensor]:
    """The K best of several lists, and the logits of the rest."""
    k = lists[0].z_NK.shape[1]
    ids = torch.cat([top.ids_NK for top in lists], 1)
    z = torch.cat([top.z_NK for top in lists], 1)
    by_id = ids.argsort(1)
    order = by_id.gather(1, z.gather(1, by_id).sort(dim=1, descending=True, stable=True).indices)
    best = order[:, :k]
    others = [top.other_NK for top in lists if top.other_NK is not None]
    other_NK = torch.cat(others, 1).gather(1, best) if others else None
    return TopList(z.gather(1, best), ids.gather(1, best), other_NK), z.gather(1, order[:, k:])


def normalisers(state: PartialState) -> tuple[Tensor, Tensor]:
    """Largest logit and log of sum of e^x, each float64 [models, N], of a state of the whole vocabulary.

    Both are NaN in a row that is invalid: one with NaN or +inf, or without a token that can occur.
    """
    slots = [state.model(i) for i in range(state.layout.models)]
    max_MN, sum_MN = torch.stack([s[MAX] for s in slots]), torch.stack([s[SUM] for s in slots])
    valid_MN = max_MN.isfinite() & (sum_MN > 0)
    return torch.where(valid_MN, max_MN, torch.nan), torch.where(valid_MN, sum_MN.log(), torch.nan)


def pivot(state: PartialState) -> Tensor:
    """The constant about which the moments of x_b - x_a are taken, [N] in the lists' dtype.

    They do not depend on it, but rounding is smallest where it is near the mean. It is the baseline's mean over its top
    list, 0 where b forbids all of it; where that is near the log ratio of the normalisers, it is this ratio, from which
    a kernel can tell that the models are alike.
    """
    top, max_a_N, max_b_N = state.lists[0], state.model(0)[MAX], state.model(1)[MAX]
    assert top.other_NK is not None  # a pair
    gap_NK = (top.other_NK - max_b_N[:, None]) - (top.z_NK - max_a_N[:, None])
    weight_NK = torch.where(gap_NK.isfinite(), (top.z_NK - max_a_N[:, None]).exp(), 0.0)
    mean_N = torch.where(gap_NK.isfinite(), weight_NK * gap_NK, 0.0).sum(1) / weight_NK.sum(1)
    mean_N = mean_N.nan_to_num(0.0).clamp(-SATURATED, SATURATED)
    log_sum_a_N, log_sum_b_N = normalisers(state)[1]
    ratio_N = log_sum_b_N - log_sum_a_N
    return torch.where((mean_N - ratio_N).abs() < ALIKE, ratio_N, mean_N).to(top.z_NK.dtype)
