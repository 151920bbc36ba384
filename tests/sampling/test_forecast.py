"""The time left of runs whose steps have a known cost, on a clock of the test's own."""

import numpy as np
import pytest

from ssdfast.sampling import run_stats
from ssdfast.sampling.engine import Completion, Request
from ssdfast.sampling.forecast import Forecast

FIXED = 0.4


def simulate(monkeypatch, lengths, limit, capacity, fixed=FIXED, prompts=0.0):
    """[(seconds so far, seconds left as forecast)] at each step, and all seconds. prompts: seconds before a token."""
    clock = [0.0]
    monkeypatch.setattr(run_stats.time, "monotonic", lambda: clock[0])
    forecast = Forecast([limit] * len(lengths), capacity)
    waiting, active, seen = list(lengths), [], []
    clock[0] += prompts
    while waiting or active:
        while waiting and len(active) < capacity:
            active.append([waiting.pop(0), 0])
        clock[0] += fixed + (1 - fixed) * len(active) / min(capacity, len(lengths))
        forecast.add_tokens(len(active))
        for trace in active:
            trace[1] += 1
        for length, _ in [trace for trace in active if trace[0] == trace[1]]:
            reason = "length" if length == limit else "stop"
            forecast.finish(Completion(Request("p", [1], 0, limit), [0] * length, reason))
        active = [trace for trace in active if trace[0] > trace[1]]
        seen.append((clock[0], forecast.seconds_left()))
    return seen, clock[0]


def lengths_of(rng, count, mean, limit):
    return [int(x) for x in np.minimum(rng.geometric(1 / mean, count), limit)]


@pytest.mark.parametrize(
    ("count", "capacity", "mean", "limit"),
    [
        (64, 64, 40, 48),
        (64, 64, 1000, 64),
        (64, 64, 100, 400),
        (512, 64, 100, 400),
        (1000, 64, 60, 4000),
        (48, 64, 30, 48),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_after_a_fifth_the_time_left_is_within_a_factor_of_one_and_a_half(
    monkeypatch, count, capacity, mean, limit, seed
):
    lengths = lengths_of(np.random.default_rng(seed), count, mean, limit)
    seen, total = simulate(monkeypatch, lengths, limit, capacity)
    at, left = next((at, left) for at, left in seen if at >= total / 5)
    assert (total - at) / 1.5 <= left <= 1.5 * (total - at)


@pytest.mark.parametrize("kind", ["short and long", "lognormal", "gamma", "loops"])
@pytest.mark.parametrize("seed", range(2))
def test_lengths_of_other_kinds_in_one_batch(monkeypatch, kind, seed):
    rng, n = np.random.default_rng(seed), 64
    lengths = {
        "short and long": np.where(rng.random(n) < 0.5, rng.integers(20, 60, n), rng.integers(200, 400, n)),
        "lognormal": rng.lognormal(4.5, 0.7, n),
        "gamma": rng.gamma(3, 40, n),
        "loops": np.where(rng.random(n) < 0.25, 400, rng.gamma(4, 20, n)),
    }[kind]
    seen, total = simulate(monkeypatch, [int(x) for x in np.clip(lengths, 1, 400)], 400, n)
    at, left = next((at, left) for at, left in seen if at >= total / 5)
    assert (total - at) / 1.5 <= left <= 1.5 * (total - at)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_that_has_run_down_is_not_as_fast_as_a_full_one(monkeypatch, seed):
    lengths = lengths_of(np.random.default_rng(seed), 64, 100, 400)
    seen, total = simulate(monkeypatch, lengths, 400, 64)
    at, left = next((at, left) for at, left in seen if at >= 0.6 * total)
    assert (total - at) / 1.5 <= left <= 1.5 * (total - at)


def test_the_time_of_the_prompts_is_not_that_of_tokens(monkeypatch):
    seen, total = simulate(monkeypatch, [30] * 64, 48, 64, prompts=10.0)
    at, left = next((at, left) for at, left in seen if at >= 13)
    assert left <= 1.8 * (total - at)  # with it, a token would seem to take four times as long


def test_nothing_is_said_before_anything_is_known_and_nothing_is_left_at_the_end(monkeypatch):
    seen, _ = simulate(monkeypatch, [5] * 8, 10, 8, fixed=0.05)
    assert seen[-1][1] == 0
    assert Forecast([10], 4).seconds_left() is None
