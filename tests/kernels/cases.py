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
from ssdfast.kernels.probe_stats.schema import CE_TERM_COLUMNS, KEPT_MASS_COLUMNS

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


def language_like(n: int, v: int, g: torch.Generator, spread: float = 2.0) -> Tensor:
    """Logits with a broad tail and a few likely tokens, as a language model has them."""
    z = torch.randn(n, v, generator=g) * spread
    heads = torch.randint(0, v, (n, min(v, 12)), generator=g)
    return z.scatter_add(1, heads, torch.rand(n, min(v, 12), generator=g) * 14)


def _pair(n: int, v: int, spread: float = 2.0, shift: float = 0.3):
    def make(g):
        a = language_like(n, v, g, spread)
        return a, a + shift * torch.randn(n, v, generator=g)

    return make


def _edit(edit: Callable[[Tensor, Tensor], object], n: int = 4, v: int = 1003):
    def make(g):
        a, b = _pair(n, v)(g)
        edit(a, b)
        return a, b

    return make


def _flat(g):
    """Nuclei of thousands of tokens, in rows of negative logits and in rows where float32 has few bits left."""
    a, b = torch.randn(4, 3001, generator=g) * 0.4 - 1, torch.randn(4, 3001, generator=g) - 1
    a[2:] -= 20000
    b[2:] += 20000
    return a, b


def _bad_rows(a: Tensor, b: Tensor) -> None:
    a[1, 5], a[3, 0], b[4, -1] = torch.nan, INF, torch.nan
    a[6], b[7] = -INF, -INF


def _some_impossible(a: Tensor, b: Tensor) -> None:
    a[0, ::2] = b[0, ::2] = -INF  # the same tokens
    a[1, ::3] = -INF  # forbidden by the baseline alone
    b[2, 5:40] = -INF  # by the trained model alone: KL(a || b) is infinite
    a[3, 7:], b[3, 7:] = -INF, -INF  # fewer tokens than top_k


def _one_token(a: Tensor, b: Tensor) -> None:
    a[:], b[:] = 0.0, 0.0
    a[:, 17], b[:, 17] = 27.6, 28.5  # mass 1 - 1e-9


def _tiny_kl(g):
    a = language_like(6, 5000, g)
    return a, a + 4.5e-4 * torch.randn(6, 5000, generator=g)


def _sorted(g):
    a = language_like(3, 4099, g).sort(1).values  # every element is a new maximum
    a[1] = a[1].flip(0)
    return a, a.flip(1)


def _signed_zeros(g):
    a = torch.zeros(2, 300)
    a[:, ::2] = -0.0
    a[:, 7] = 1.0
    return a, a.clone()


def _tied(g):
    a = (language_like(4, 2050, g) * 2).round() / 2
    return a, (a + torch.randn(4, 2050, generator=g)).round()


def _all_equal(g):
    return torch.full((2, 1000), 3.0), torch.full((2, 1000), -3.0)


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

CASES = [
    Case("plain", _pair(8, 3001), ProbeSpec(token_class=_classes(3001))),
    Case("one sweep", _pair(8, 3001), dataclasses.replace(ONE_SWEEP, token_class=_classes(3001))),
    Case("far apart", _pair(5, 2500, shift=4.0)),
    Case("no head: long nucleus", _flat),
    Case("wide support", _pair(4, 1500), WIDE),
    Case("no truncation", _pair(4, 1500), UNTRUNCATED),
    Case("no truncation, some -inf", _edit(_some_impossible), UNTRUNCATED),
    Case("wide support, some -inf", _edit(_some_impossible), WIDE),
    Case("greedy", _pair(4, 700), GREEDY),
    Case("top 64", _pair(4, 1999), LONG_TOP),
    Case("V = 1", _pair(3, 1)),
    Case("V = 17, top_k above V", _pair(3, 17)),
    Case("N = 0", _pair(0, 50)),
    Case("bad rows", _edit(_bad_rows, n=9)),
    Case("bad rows, one sweep", _edit(_bad_rows, n=9), ONE_SWEEP),
    Case("some -inf", _edit(_some_impossible)),
    Case("some -inf, one sweep", _edit(_some_impossible), ONE_SWEEP),
    Case("one token has all", _edit(_one_token)),
    Case("all equal", _all_equal),
    Case("ties", _tied),
    Case("ties, wide", _tied, WIDE),
    Case("signed zeros", _signed_zeros),
    Case("sorted", _sorted),
    Case("KL of 1e-7", _tiny_kl),
    Case("the same model", lambda g: (z := language_like(4, 900, g), z.clone())),
    Case("far from zero", _edit(lambda a, b: (a.add_(3000), b.sub_(20000)))),
    Case("V = 129,920", _pair(2, 129_920), ProbeSpec(token_class=_classes(129_920)), large=True),
    Case("V = 151,936", _pair(2, 151_936, spread=1.0), LONG_TOP, large=True),
    Case("V = 248,320", _pair(2, 248_320), large=True),
    Case("V = 248,320, wide", _pair(2, 248_320), WIDE, large=True),
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
            if name == "ssd_alignment":  # a ratio of two noises where nothing shifted
                shifted_positions = (oracle.pair.logratio_var[keep] > 1e-9) & (oracle.pair.ssd_var[keep] > 1e-9)
                shifted_positions |= oracle.pair.logratio_var[keep].isnan()
                actual, want, ref = actual[shifted_positions], want[shifted_positions], ref[shifted_positions]
                keep = keep.nonzero()[:, 0][shifted_positions]
            if not want.is_floating_point():
                assert torch.equal(actual, want), f"{group}.{name}: {actual.tolist()} is not {want.tolist()}"
                continue
            slack = (_one_sweep_slack if spec.sweeps == 1 else _two_sweep_slack)(name, oracle, keep)
            _assert_close(f"{group}.{name}", actual.double(), want, ref.double(), slack)


def _one_sweep_slack(name: str, oracle: ProbeStats, keep: Tensor) -> Tensor:
    """One sweep gives KL to 2e-7 + 1e-4 relative; what is made of the same sums inherits that error. Its variance is
    a mean square minus a squared mean, which is right to 1e-6 of the latter."""
    pair = oracle.pair
    assert pair
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
    finite = want.isfinite()
    same_odd = (actual == want) | (actual.isnan() & want.isnan())
    assert same_odd[~finite].all(), f"{name}: {actual[~finite].tolist()} is not {want[~finite].tolist()}"
    error = (actual - want).abs()
    allowed = 4 * (plain - want).abs().nan_to_num(0, 0) + 2e-6 + 1e-5 * want.abs() + slack.nan_to_num(0)
    wrong = finite & ~(error <= allowed)
    assert not wrong.any(), f"{name}: {actual[wrong][:5].tolist()} is not {want[wrong][:5].tolist()}"


@functools.cache
def _expected(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec):
    """The oracle, plain torch in the logits' own dtype, and the oracle with p a little lower and higher (twice: for
    the decoding setting of `spec` and for its training setting)."""
    swapped = dataclasses.replace(spec, eval_sampling=spec.train_sampling, sweeps=2)
    shifted = [_oracle(a, b, token, _shift_p(spec, s)) for s in (-BOUNDARY, BOUNDARY)]
    edges = [_oracle(a, None, token, _shift_p(swapped, s)) for s in (-BOUNDARY, BOUNDARY)]
    return _oracle(a, b, token, spec), probe_stats(a, b, token, spec, backend="reference"), *shifted, edges


def _oracle(a: Tensor, b: Tensor | None, token: Tensor, spec: ProbeSpec) -> ProbeStats:
    return probe_stats(a.double(), None if b is None else b.double(), token, spec, backend="reference")


def _shift_p(spec: ProbeSpec, by: float) -> ProbeSpec:
    def shifted(d: SamplingParams) -> SamplingParams:
        return d if d.top_p == 1 else dataclasses.replace(d, top_p=d.top_p + by)

    return dataclasses.replace(
        spec, eval_sampling=shifted(spec.eval_sampling), train_sampling=shifted(spec.train_sampling)
    )
