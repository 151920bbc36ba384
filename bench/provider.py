"""The code that is compared, and the gate that its answer passes before it is timed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from common import FOR_GPU, interleaved
from memory import bytes_of, peak_in_own_process, peak_on_gpu
from torch import Tensor

from ssdfast.kernels import ProbeStats

GATE_ROWS = 8  # the oracle sorts float64 rows: a few are enough
SLOW_ROWS = 16  # of what takes a hundredth of a second per row, or more


@dataclass(frozen=True)
class Provider:
    """One way to get some or all of the columns.

    gives: the columns that it computes, as a text. run: from inputs to its answer. gate: takes the answer for the first
    GATE_ROWS rows and raises AssertionError where it is wrong; None without columns. rows: the number of rows that it
    is timed on, None for all. compiled: the first call at a size compiles. prepared: tensors that it needs and that are
    made before it is timed; they count as its memory. missing: why it cannot run here.
    """

    name: str
    gives: str
    run: Callable[[Any], Any]
    gate: Callable[[Any], None] | None = None
    rows: int | None = None
    compiled: bool = False
    prepared: tuple[Tensor, ...] = ()
    missing: str = ""

    def why_not(self, inputs: Any) -> str:
        """Empty where it runs here and its answer is right; or the reason why it is left out."""
        if self.missing or self.gate is None:
            return self.missing
        try:
            self.gate(self.run(inputs.rows(GATE_ROWS)))
        except AssertionError as error:
            return f"fails the gate: {_first_line(error)}"
        except Exception as error:  # of any kind: the other providers are still measured
            return f"does not run: {_first_line(error)}"
        return ""


def gated(provider: Provider, inputs: Any) -> Callable[[], Any]:
    """The provider's call. Raises RuntimeError where it cannot run, or its answer is wrong."""
    if reason := provider.why_not(inputs):
        raise RuntimeError(f"{provider.name}: {reason}")
    return lambda: provider.run(inputs)


def measured(
    operation: str, shape: tuple[int, ...], inputs: Any, providers: Iterable[Provider], floor: float, seconds: float
) -> list[dict[str, Any]]:
    """A record for each provider: time per row pair, peak memory, fraction of the roofline; or why it is left out.

    shape: the sizes of `inputs`, N first. floor: the fewest seconds that the device needs for all rows. seconds: how
    long the fast providers take turns; the slow ones are called four times.
    """
    n = shape[0]
    left_out, passed = {}, []
    for provider in providers:
        reason = provider.why_not(inputs)
        if reason:
            left_out[provider] = reason
            print(f"left out: {provider.name}: {reason}", file=sys.stderr)
        else:
            passed.append(provider)
    fast = {p.name: _call(p, inputs) for p in passed if p.rows is None}
    slow = {p.name: _call(p, inputs) for p in passed if p.rows is not None}
    times = interleaved(fast, seconds) | interleaved(slow, 0)
    rows = []
    for provider in passed:
        timed = min(provider.rows or n, n)
        seconds_per_row = times[provider.name] / timed
        rows.append(
            {"operation": operation, "provider": provider.name, "gives": provider.gives, "shape": list(shape),
             "rows_timed": timed, "ms_per_row_pair": 1e3 * seconds_per_row,
             "peak_extra_bytes": _peak(operation, provider, shape, inputs),
             "fraction_of_roofline": floor / n / seconds_per_row}
        )  # fmt: skip
    return rows + [
        {"operation": operation, "provider": p.name, "gives": p.gives, "shape": list(shape), "left_out": reason}
        for p, reason in left_out.items()
    ]


def _call(provider: Provider, inputs: Any) -> Callable[[], Any]:
    subset = inputs if provider.rows is None else inputs.rows(provider.rows)
    return lambda: provider.run(subset)


def _peak(operation: str, provider: Provider, shape: tuple[int, ...], inputs: Any) -> int:
    if not FOR_GPU:
        return peak_in_own_process(operation, provider.name, shape)
    return peak_on_gpu(_call(provider, inputs)) + bytes_of(provider.prepared)


def assert_near(got: Tensor, want: Tensor, tolerance: float, name: str) -> None:
    """|got - want| <= tolerance * (1 + |want|) everywhere: an absolute error in nats near zero, a relative one away."""
    if got.numel() == 0:
        return
    error = ((got.double() - want).abs() / (1 + want.abs())).max().item()
    assert error <= tolerance, f"{name} is {error:.1e} from float64, more than {tolerance:g}"


def assert_plain(got: ProbeStats, oracle: ProbeStats) -> None:
    """The gate of eager torch in float32, with torch's own sums and softmax: 1e-3 for floats, 1 % for sizes.

    It adds the hundred thousand terms of a class's mass one by one, and with such a softmax a nucleus of tens of
    thousands of tokens ends a few places early or late. Ids and ranks are exact.
    """
    for group in ("base", "trained", "pair"):
        for name, want in vars(getattr(oracle, group)).items():
            column, what = getattr(getattr(got, group), name).cpu(), f"{group}.{name}"
            if name in ("top_ids", "token_rank"):
                assert torch.equal(column, want), f"{what} differs from float64"
            elif want.is_floating_point():
                assert_near(column, want, 1e-3, what)
            else:
                assert_near(column, want.double(), 1e-2, what)


def table(rows: list[dict[str, Any]]) -> str:
    """The records of providers that passed, for a terminal."""
    lines = [f"{'provider':34} {'gives':44} {'ms per row pair':>15} {'MiB extra':>10} {'roofline':>9}"]
    for r in rows:
        if "left_out" not in r:
            lines.append(
                f"{r['provider']:34} {r['gives']:44} {r['ms_per_row_pair']:15.4f} "
                f"{r['peak_extra_bytes'] / 2**20:10.1f} {r['fraction_of_roofline']:9.0%}"
            )
    return "\n".join(lines)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__ + ': ' if not isinstance(error, AssertionError) else ''}{error}".splitlines()[0][
        :160
    ]
