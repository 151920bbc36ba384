"""The time that a sampling run still takes, also while one batch holds all of its traces.

Lengths are taken to be Weibull, up to the maximum, with a fraction of traces that only the maximum ends, such as loops.
A shape of 1 ends a trace at any token alike, larger ones end all at similar lengths. None of the three parameters is
known, so each point of a grid has its own forecast, and its weight is its likelihood: of the lengths of the traces that
ended, and of the others' being longer than they are so far. Their weighted median is what is shown. A step of n traces
is taken to cost a part that does not depend on n (weights are read once) and a part in proportion to n.

Shape legend: K shapes, S scales, E fractions that never end, P points of length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .engine import Completion
from .run_stats import Speed

_FIXED = 0.4
"""The part of a full batch's step that one trace alone would take too, as measured with 32 traces of a 135M model on a
CPU (0.42); on a GPU it is larger, and batches drain for a small part of a run."""
_MIN_SECONDS = 1.0
_SHAPES_K11 = np.array([0.7, 1.0, 2.0, 4.0])[:, None, None]
_ENDLESS_E = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.5])
_SCALES = 48
"""From 1 token to four times the maximum, evenly on a logarithmic scale: before the first trace ends, any length is as
likely as its double."""
_POINTS = 48
"""At which survival is summed."""
_LAST = math.exp(-0.5772)
"""The expected number of unfinished traces of a batch when its last one ends, as of a Gumbel maximum."""


class Forecast:
    """max_tokens: of each trace to sample. capacity: how many traces the engine samples at the same time."""

    def __init__(self, max_tokens: Sequence[int], capacity: int) -> None:
        self.unfinished, self.capacity = len(max_tokens), capacity
        self.full = max(1, min(capacity, len(max_tokens)))
        self.max_tokens = sum(max_tokens) / max(1, len(max_tokens))
        self.speed, self._full_steps = Speed(), Speed()
        self._step = 0.0
        self._begun = [0.0] * self.full
        """The steps at which the traces of the batch began."""
        self._scales_S1 = np.geomspace(1, 4 * max(1.0, self.max_tokens), _SCALES)[:, None]
        self._log_weight_KSE = np.zeros((len(_SHAPES_K11), _SCALES, len(_ENDLESS_E)))
        """By the traces that ended; before, all are as likely."""

    def add_tokens(self, tokens: int) -> None:
        self.speed.add(tokens)
        batch = max(1, len(self._begun))
        if not self._step:  # prompts were read, and that is over
            self._full_steps = Speed()
        else:
            self._full_steps.add(tokens * (_FIXED / batch + (1 - _FIXED) / self.full))
        self._step += tokens / batch

    def finish(self, completion: Completion) -> None:
        self.unfinished -= 1
        length = len(completion.ids)
        if self._begun:
            self._begun.remove(min(self._begun, key=lambda begun: abs(self._step - begun - length)))
        if self.unfinished > len(self._begun):
            self._begun.append(self._step)
        if not length:
            return
        if completion.finish_reason in ("stop", "loop"):
            relative_S1 = length / self._scales_S1
            density_KS1 = np.log(_SHAPES_K11 * relative_S1**_SHAPES_K11 / length) - relative_S1**_SHAPES_K11
            self._log_weight_KSE += density_KS1 + np.log1p(-_ENDLESS_E)
        else:
            self._log_weight_KSE += np.log(self._survival(np.array([length]))[..., 0])

    def seconds_left(self) -> float | None:
        """None before anything is known."""
        rate = self._full_steps.per_second
        if not self.unfinished:
            return 0.0
        if self.speed.seconds < _MIN_SECONDS or not rate:
            return None
        ages_P = np.clip(self._step - np.array(self._begun), 0, self.max_tokens - 1)
        log_weight_KSE = self._log_weight_KSE + np.log(self._survival(ages_P)).sum(-1)
        weight_KSE = np.exp(log_weight_KSE - log_weight_KSE.max())
        steps = self._steps(ages_P).ravel()
        order = np.argsort(steps)
        below = np.cumsum(weight_KSE.ravel()[order])
        return float(steps[order[np.searchsorted(below, below[-1] / 2)]]) / rate

    def _survival(self, lengths_P: np.ndarray) -> np.ndarray:
        """[K, S, E, P]: the probability that a trace is longer."""
        ended_KS1P = np.exp(-((lengths_P / self._scales_S1[..., None]) ** _SHAPES_K11[..., None]))
        endless_E1 = _ENDLESS_E[:, None]
        return np.maximum(1e-300, endless_E1 + (1 - endless_E1) * ended_KS1P)

    def _steps(self, ages_P: np.ndarray) -> np.ndarray:
        """[K, S, E]: the time left in steps of a full batch; the unfinished traces of a batch have so many tokens."""
        batch = len(ages_P)
        points_P = np.linspace(0, self.max_tokens, _POINTS)
        whole_KSE = np.trapezoid(self._survival(points_P), points_P)
        length = float(ages_P.mean())
        points_P = np.linspace(length, self.max_tokens, _POINTS)
        survival_KSEP = self._survival(points_P)
        survival_KSEP /= survival_KSEP[..., :1]
        rest_KSE = np.trapezoid(survival_KSEP, points_P)
        last_KSE = (survival_KSEP * batch > _LAST).sum(-1) / _POINTS * (self.max_tokens - length)
        waiting_KSE = (self.unfinished - batch) / self.full * whole_KSE
        return np.maximum(1e-9, waiting_KSE + _FIXED * last_KSE + (1 - _FIXED) * rest_KSE * batch / self.full)
