"""Measures every number that the documentation claims: ``python bench/claims.py TOPIC|all [--full]``.

Prints each figure with its bar and exits 1 where one does not hold. A machine with a GPU measures the claims about a
GPU, another machine those about a CPU.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator

import torch
from claim import Claim
from common import FOR_GPU, REHEARSAL, machine, record

THREADS = 2
TOPICS = ("probe-stats", "linear", "loss", "runner", "sampling", "evaluation", "training", "study", "demo")


def topic_claims(topic: str, full: bool) -> Iterator[Claim]:
    # Imported only now: a machine may lack the packages of other topics.
    claims = importlib.import_module(f"claims_{topic.replace('-', '_')}")
    if FOR_GPU:
        yield from claims.on_gpu()
        return
    yield from claims.on_cpu()
    if full and topic == "training":
        yield from claims.held_out(range(1, 5))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("topic", choices=[*TOPICS, "all"])
    parser.add_argument("--full", action="store_true", help="train with five seeds instead of one: 20 minutes more")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads\n{machine()}")
    failed = False
    for topic in TOPICS if args.topic == "all" else (args.topic,):
        print(f"\n{topic}")
        rows = []
        for claim in topic_claims(topic, args.full):
            print(claim, flush=True)
            rows.append({"claim": claim.what, "value": claim.value, "bar": claim.bar, "unit": claim.unit,
                         "holds": claim.holds})  # fmt: skip
            record(f"claims-{topic}", rows)  # each time: this process may be ended at any of them
            failed |= claim.holds is False
    return 1 if failed and not REHEARSAL else 0


if __name__ == "__main__":
    sys.exit(main())
