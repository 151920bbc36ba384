"""Regenerate every number that the README claims: ``python bench/claims.py probe-stats|linear|all [--no-demo]``.

Prints each figure beside its bar and exits 1 where one falls short. On a machine with a GPU the bars of the GPU are
measured, on one without those of the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import claims_linear
import claims_probe_stats
import torch
from claim import Claim
from common import ON_GPU, machine, record

THREADS = 2


def topic_claims(topic: str, with_demo: bool) -> Iterator[Claim]:
    claims = {"probe-stats": claims_probe_stats, "linear": claims_linear}[topic]
    yield from claims.on_gpu() if ON_GPU else claims.on_cpu()
    if topic == "probe-stats" and with_demo and not ON_GPU:
        yield from claims_probe_stats.demo()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic", choices=["probe-stats", "linear", "all"])
    parser.add_argument("--no-demo", action="store_true", help="leave out the minutes-long demo")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads\n{machine()}")
    failed = False
    for topic in ("probe-stats", "linear") if args.topic == "all" else (args.topic,):
        print(f"\n{topic}")
        claims = []
        for claim in topic_claims(topic, not args.no_demo):
            print(claim, flush=True)
            claims.append(claim)
        rows = [{"claim": c.what, "value": c.value, "bar": c.bar, "unit": c.unit, "holds": c.holds} for c in claims]
        record(f"claims-{topic}", rows)
        failed |= any(c.holds is False for c in claims)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
