"""The claims about ``ssdfast sample``: SmolLM2-135M on two threads."""

from __future__ import annotations

from collections.abc import Iterator

import sampling
from claim import Claim

TRACES = 200


def on_cpu() -> Iterator[Claim]:
    race = sampling.Race()
    mine, theirs, batch = race.run()
    print(f"     {mine:.0f} tokens/s, generate() {theirs:.0f} at batch {batch}, its best of {sampling.BATCHES}")
    what = f"tokens/s of {sampling.PROMPTS} prompts x {sampling.TOKENS} tokens over those of one tuned generate()"
    yield Claim(what, mine / theirs, 0.9, "x", at_least=True)
    a_token = sampling.loop_seconds_a_token(race.traces)
    print(f"     looking for loops: {1e6 * a_token:.1f} us a token")
    yield Claim("looking for loops, of decode time", a_token * mine, 0.01)
    yield Claim("a loop of 40 tokens is found within", sampling.periods_until_found(40, race.traces[0]), 4, "periods")
    kills, whole, rows = sampling.killed_run()
    found = dict(rows)
    yield Claim(f"kill -9 during a run of {TRACES} traces", kills, sampling.KILLS, "kills", at_least=True)
    yield Claim("traces missing after them", TRACES - len(found), 0)
    yield Claim("traces there twice", len(rows) - len(found), 0)
    unlike = sum(found.get(key) != ids for key, ids in whole.items())
    yield Claim("traces unlike those of an undisturbed run", unlike, 0)


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
