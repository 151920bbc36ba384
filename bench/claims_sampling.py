"""The claims about ``ssdfast sample``: SmolLM2-135M on two threads."""

from __future__ import annotations

from collections.abc import Iterator

import sampling
from claim import Claim

TRACES = 200


def on_cpu() -> Iterator[Claim]:
    race = sampling.Race(unequal=True)
    engine, generate = _run(race)
    lengths = f"{sampling.SHORTEST} to {sampling.LONGEST}"
    what = f"tokens per second, {sampling.PROMPTS} prompts x {lengths} tokens, over one tuned generate() call"
    yield Claim(what, engine / generate, 2, "x", at_least=True)
    race = sampling.Race()
    engine, generate = _run(race)
    what = f"tokens per second, {sampling.PROMPTS} prompts x {sampling.TOKENS} tokens, over one tuned generate() call"
    yield Claim(what, engine / generate, 1.5, "x", at_least=True)
    if vllm := race.vllm():
        print(f"     {vllm:.0f} tokens/s by vLLM's CPU build")
        yield Claim("the same over vLLM's CPU build", engine / vllm, 0.7, "x", at_least=True)
    else:
        print("     vLLM's CPU build is not here: make .venv-vllm/installed")
    per_token = sampling.loop_seconds_per_token(race.traces)
    print(f"     loop detection: {1e6 * per_token:.1f} us per token")
    yield Claim("loop detection as a fraction of decode time", per_token * engine, 0.01)
    periods = sampling.periods_until_detected(40, race.traces[0])
    yield Claim("time until a loop of 40 tokens is detected", periods, 4, "periods")
    kills, whole, rows = sampling.killed_run()
    stored = dict(rows)
    yield Claim(f"kill -9 during a run of {TRACES} traces", kills, sampling.KILLS, "kills", at_least=True)
    yield Claim("traces missing after the kills", TRACES - len(stored), 0)
    yield Claim("traces stored twice", len(rows) - len(stored), 0)
    different = sum(stored.get(key) != ids for key, ids in whole.items())
    yield Claim("traces that differ from an undisturbed run", different, 0)


def _run(race: sampling.Race) -> tuple[float, float]:
    engine, generate, batch = race.run()
    print(f"     {engine:.0f} tokens/s, generate() {generate:.0f} at batch {batch}, its best of {sampling.BATCHES}")
    return engine, generate


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
