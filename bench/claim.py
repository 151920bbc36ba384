"""A measured figure and its bar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """`value` must be at most the bar, or at least with `at_least`; None where this machine cannot measure it."""

    what: str
    value: float | None
    bar: float
    unit: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[self.holds]
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{mark} {self.what:78} {value:>12} {sign} {self.bar:g} {self.unit}"
