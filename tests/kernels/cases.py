"""The one table of hard cases, and how far from the float64 oracle a backend may be.

Every backend, at every dtype, goes through ``CASES`` and ``assert_matches_oracle``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ssdfast.kernels import ModelStats, PairStats, ProbeSpec, ProbeStats, SamplingParams, probe_stats
from ssdfast.kernels.probe_stats import reference
from ssdfast.kernels.probe_stats.schema import CE_TERM_COLUMNS, KEPT_MASS_COLUMNS, unpack

from . import empty_blocks, hard_rows
from .hard_rows import language_like

INF = float("inf")
Group = TypeVar("Group", ModelStats, PairStats)


DEFAULT = ProbeSpec()


@dataclass(frozen=True)
class Case:
    """Makes float32 logits of both models; slow backends leave out `large` cases."""

    name: str
    make: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    spec: ProbeSpec = DEFAULT
    large: bool = False


def _classes(v: int, n: int = 12) -> Tensor:
    return torch.randint(0, n, (v,), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


WIDE = ProbeSpec(eval_sampling=SamplingParams(0.9, 0, 0.9), train_sampling=SamplingParams(1.3, 0, 0.8))
UNTRUNCATED = ProbeSpec(eval_sampling=SamplingParams(), train_sampling=SamplingParams())
ONE_SWEEP = ProbeSpec(sweeps=1, lse_temperatures=())
GREEDY = ProbeSpec(
    top_logprobs=1, eval_sampling=SamplingParams(1.0, 1, 1.0), train_sampling=SamplingParams(0.7, 1, 0.5)
)
LONG_TOP = ProbeSpec(
    top_logprobs=64,
    eval_sampling=SamplingParams(0.6, 40, 0.9),
    train_sampling=SamplingParams(2.0, 64, 1.0),
    lse_temperatures=(3.0, 0.9),
)
HOT = ProbeSpec(train_sampling=SamplingParams(2.5, 20, 1.0))
HOT_AND_WIDE = ProbeSpec(train_sampling=SamplingParams(2.5, 0, 0.99999))
WIDE_AT_2 = ProbeSpec(train_sampling=SamplingParams(2.0, 0, 1.0))
BY_CLASS = ProbeSpec(token_class=_classes(empty_blocks.V))
BOTH_WAYS = ProbeSpec(eval_sampling=SamplingParams(1.0, 20, 1.0), train_sampling=SamplingParams(3.0, 20, 0.95))

CASES = [
    Case("plain", hard_rows.pair(8, 3001), ProbeSpec(token_class=_classes(3001))),
    Case("one sweep", hard_rows.pair(8, 3001), dataclasses.replace(ONE_SWEEP, token_class=_classes(3001))),
    Case("far apart", hard_rows.pair(5, 2500, shift=4.0)),
    Case("no head: long nucleus", hard_rows.flat),
    Case("wide support", hard_rows.pair(4, 1500), WIDE),
    Case("no truncation", hard_rows.pair(4, 1500), UNTRUNCATED),
    Case("no truncation, some -inf", hard_rows.edit(hard_rows.some_impossible), UNTRUNCATED),
    Case("wide support, some -inf", hard_rows.edit(hard_rows.some_impossible), WIDE),
    Case("greedy", hard_rows.pair(4, 700), GREEDY),
    Case("top 64", hard_rows.pair(4, 1999), LONG_TOP),
    Case("V = 1", hard_rows.pair(3, 1)),
    Case("V = 17, top_k above V", hard_rows.pair(3, 17)),
    Case("N = 0", hard_rows.pair(0, 50)),
    Case("bad rows", hard_rows.edit(hard_rows.bad_rows, n=9)),
    Case("bad rows, one sweep", hard_rows.edit(hard_rows.bad_rows, n=9), ONE_SWEEP),
    Case("some -inf", hard_rows.edit(hard_rows.some_impossible)),
    Case("some -inf, one sweep", hard_rows.edit(hard_rows.some_impossible), ONE_SWEEP),
    Case("one token has all", hard_rows.edit(hard_rows.one_token)),
    Case("all equal", hard_rows.all_equal),
    Case("ties", hard_rows.tied),
    Case("ties, wide", hard_rows.tied, WIDE),
    Case("signed zeros", hard_rows.signed_zeros),
    Case("sorted", hard_rows.sorted),
    Case("KL of 1e-7", hard_rows.tiny_kl),
    Case("the same model", lambda g: (z := language_like(4, 900, g), z.clone())),
    Case("the same model, one sweep", lambda g: (z := language_like(4, 900, g), z.clone()), ONE_SWEEP),
    Case("far from zero", hard_rows.edit(lambda a, b: (a.add_(3000), b.sub_(20000)))),
    Case("empty blocks", empty_blocks.near(0.0), BY_CLASS),
    Case("empty blocks, one sweep", empty_blocks.near(0.0), ONE_SWEEP),
    Case("empty blocks far below zero", empty_blocks.near(-720.0), BY_CLASS),
    Case("empty blocks far below zero, one sweep", empty_blocks.near(-720.0), ONE_SWEEP),
    Case("empty blocks far below zero, wide", empty_blocks.near(-720.0), WIDE),
    Case("empty blocks of each model", empty_blocks.forbidden_apart),
    Case("empty blocks of each model, one sweep", empty_blocks.forbidden_apart, ONE_SWEEP),
    Case("empty blocks, logits next to zero", empty_blocks.flat_and_tiny),
    Case("one token at the largest logits", empty_blocks.one_largest, BOTH_WAYS),
    Case("tied at the largest logits", empty_blocks.tied_largest, BOTH_WAYS),
    Case("tied at the largest logits, one sweep", empty_blocks.tied_largest, ONE_SWEEP),
    Case("tied at the smallest logits", empty_blocks.all_smallest),
    Case("support far from the trained model", hard_rows.far_support, HOT),
    Case("support far from the trained model, wide", hard_rows.far_support, HOT_AND_WIDE),
    Case("support far below the top token", hard_rows.steep, HOT),
    Case("support far below the top token, wide", hard_rows.steep, HOT_AND_WIDE),
    Case("support far below the top token, T = 2, wide", hard_rows.steep, WIDE_AT_2),
    Case("V = 129,920", hard_rows.pair(2, 129_920), ProbeSpec(token_class=_classes(129_920)), large=True),
    Case("V = 151,936", hard_rows.pair(2, 151_936, spread=1.0), LONG_TOP, large=True),
    Case("V = 248,320", hard_rows.pair(2, 248_320), large=True),
    Case("V = 248,320, wide", hard_rows.pair(2, 248_320), WIDE, large=True),
]

# Columns that jump where a nucleus boundary falls within this much mass of p.
BOUNDARY = 1e-6
_AFTER_DECODING = ("support_entropy", "support_overlap")
_AFTER_TRAIN = ("ssd_cov", "ssd_var", "ssd_alignment", *CE_TERM_COLUMNS, *KEPT_MASS_COLUMNS)


def on_cpu(stats: ProbeStats) -> ProbeStats:
    """The oracle works on the CPU, whatever the device."""
    return ProbeStats(_on_cpu(stats.base), stats.trained and _on_cpu(stats.trained), stats.pair and _on_cpu(stats.pair))


def _on_cpu(group: Group) -> Group:
    return type(group)(**{name: column.cpu() for name, column in vars(group).items()})


def tokens(n: int, v: int) -> Tensor:
    return torch.arange(n) * 7919 % v


@functools.cache  # the oracle below is kept for the same tensors
def make(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    a, b = case.make(torch.Generator().manual_seed(sum(map(ord, case.name))))
    return a.to(dtype), b.to(dtype), tokens(*a.shape)


def assert_matches_oracle(got: ProbeStats, a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> None:
    """Floats: error at most 4 x that of the same-dtype plain torch, plus 2e-6 + 1e-5 relative. Integers: exact.

    A nucleus size may be any that p within BOUNDARY of its value allows; columns that depend on a support are
    compared where its size is not in doubt.
    """
    oracle, plain, lower, upper, edges = _expected(a, b, token, spec)
    slack_of = _one_sweep_slack if spec.sweeps == 1 else _two_sweep_slack
    sure = torch.ones(a.shape[0], dtype=torch.bool)
    sure_train = sure.clone()
    for model in ("base", "trained") if b is not None else ("base",):
        low, high, actual = getattr(lower, model), getattr(upper, model), getattr(got, model)
        for size in ("nucleus_size", "support_size"):
            size_low, size_high, size_actual = (getattr(m, size) for m in (low, high, actual))
            in_doubt_top = (spec.sweeps == 1) & (size == "nucleus_size")
            ok = (size_low <= size_actual) & (size_actual <= size_high)
            if in_doubt_top:  # -1 stands for longer than the top list
                ok |= (size_actual == -1) & (size_high == -1)
                ok |= (
                    (size_actual >= size_low) & (size_low >= 0) & (size_high == -1) & (size_actual <= spec.top_logprobs)
                )
            assert ok.all(), f"{model}.{size}: {size_actual.tolist()} not in {size_low.tolist()}..{size_high.tolist()}"
        sure &= low.support_size == high.support_size
    if b is not None:
        sure_train &= edges[0].base.support_size == edges[1].base.support_size
    for group in ("base", "trained", "pair") if b is not None else ("base",):
        for name, want in vars(getattr(oracle, group)).items():
            if name in ("nucleus_size", "support_size"):
                continue
            actual, ref = getattr(getattr(got, group), name), getattr(getattr(plain, group), name)
            assert actual.shape == want.shape, f"{group}.{name}: shape {list(actual.shape)}, not {list(want.shape)}"
            keep = sure if name in _AFTER_DECODING else sure_train if name in _AFTER_TRAIN else torch.ones_like(sure)
            actual, want, ref = actual[keep], want[keep], ref[keep]
            if name == "ssd_alignment":  # a ratio of two noises where nothing shifted, undefined for the same logits
                assert b is not None
                assert actual[(a == b).all(1)[keep]].isnan().all(), f"{group}.{name}: {actual.tolist()}"
                shifted_positions = (oracle.pair.logratio_var[keep] > 1e-9) & (oracle.pair.ssd_var[keep] > 1e-9)
                shifted_positions |= oracle.pair.logratio_var[keep].isnan()
                actual, want, ref = actual[shifted_positions], want[shifted_positions], ref[shifted_positions]
                keep = keep.nonzero()[:, 0][shifted_positions]
            if not want.is_floating_point():
                assert torch.equal(actual, want), f"{group}.{name}: {actual.tolist()} is not {want.tolist()}"
                continue
            slack = slack_of(name, oracle, keep)
            if name == "ssd_alignment":  # a variance that rounding has lost leaves the correlation undefined
                lost = (slack > 2) | (oracle.pair.logratio_var[keep] <= slack_of("logratio_var", oracle, keep))
                lost &= actual.isnan()
                actual, want, ref, slack = (x[~lost] for x in (actual, want, ref, slack))
            _assert_close(f"{group}.{name}", actual.double(), want, ref.double(), slack)


def _one_sweep_slack(name: str, oracle: ProbeStats, keep: Tensor) -> Tensor:
    """One sweep gives KL to 2e-7 + 1e-4 relative; what is made of the same sums inherits that error. Its variance is
    a mean square minus a squared mean, which is right to 1e-6 of the latter."""
    pair = oracle.pair
    if pair is None:
        return torch.zeros(())
    if name in ("kl_base_trained", "kl_trained_base"):
        return 2e-7 + 1e-4 * getattr(pair, name)[keep]
    if name == "logratio_var":
        return (1e-4 * pair.logratio_var + 1e-6 * pair.kl_base_trained**2)[keep]
    if name in ("ssd_cov", "ssd_alignment"):
        error = 2e-7 + 1e-4 * pair.kl_base_trained
        return (error if name == "ssd_cov" else error / (pair.logratio_var * pair.ssd_var).sqrt())[keep]
    return torch.zeros(())


def _two_sweep_slack(name: str, oracle: ProbeStats, keep: Tensor) -> Tensor:
    """``ssd_cov`` is E_q of the log ratio plus KL, each right to 1e-6 of itself.

    Where the two nearly cancel, their sum is not, nor the alignment that is computed from it.
    """
    if name != "ssd_alignment":
        return torch.zeros(())
    pair = oracle.pair
    assert pair
    terms = (pair.ssd_cov - pair.kl_base_trained).abs() + pair.kl_base_trained
    return (1e-6 * terms / (pair.logratio_var * pair.ssd_var).sqrt())[keep]


def _assert_close(name: str, actual: Tensor, want: Tensor, plain: Tensor, slack: Tensor) -> None:
    want = torch.where(want.abs() > torch.finfo(torch.float32).max, want * INF, want)  # of logits near the largest
    finite = want.isfinite()
    same_odd = (actual == want) | (actual.isnan() & want.isnan())
    assert same_odd[~finite].all(), f"{name}: {actual[~finite].tolist()} is not {want[~finite].tolist()}"
    error = (actual - want).abs()
    allowed = 4 * (plain - want).abs().nan_to_num(0, 0) + 2e-6 + 1e-5 * want.abs() + slack.nan_to_num(0)
    wrong = finite & ~(error <= allowed)
    assert not wrong.any(), f"{name}: {actual[wrong][:5].tolist()} is not {want[wrong][:5].tolist()}"


@functools.cache
def _expected(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec):
    """The oracle, plain torch in float32, and the oracle with p a little lower and higher (twice: for
    the decoding setting of `spec` and for its training setting)."""
    swapped = dataclasses.replace(spec, eval_sampling=spec.train_sampling, sweeps=2)
    shifted = [_oracle(a, b, token, _shift_p(spec, s)) for s in (-BOUNDARY, BOUNDARY)]
    edges = [_oracle(a, None, token, _shift_p(swapped, s)) for s in (-BOUNDARY, BOUNDARY)]
    return _oracle(a, b, token, spec), in_float32(a, b, token, spec), *shifted, edges


def in_float32(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> ProbeStats:
    """What plain torch makes of the logits in float32."""
    return unpack(*reference.packed_in(torch.float32, a, b, token, spec), a.shape[0], spec, b is not None)


def _oracle(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> ProbeStats:
    return probe_stats(a.double(), None if b is None else b.double(), token, spec, backend="reference")


def _shift_p(spec: ProbeSpec, by: float) -> ProbeSpec:
    def shifted(d: SamplingParams) -> SamplingParams:
        return d if d.top_p == 1 else dataclasses.replace(d, top_p=d.top_p + by)

    return dataclasses.replace(
        spec, eval_sampling=shifted(spec.eval_sampling), train_sampling=shifted(spec.train_sampling)
    )
