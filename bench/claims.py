"""Regenerate every number that the README claims: ``python bench/claims.py TOPIC|all [--no-demo] [--full]``.

Prints each figure beside its bar and exits 1 where one falls short. On a machine with a GPU the bars of the GPU are
measured, on one without those of the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import claims_evaluation
import claims_linear
import claims_probe_stats
import claims_runner
import claims_sampling
import claims_study
import claims_training
import torch
from claim import Claim
from common import ON_GPU, machine, record

THREADS = 2
TOPICS = {
    "probe-stats": claims_probe_stats,
    "linear": claims_linear,
    "runner": claims_runner,
    "sampling": claims_sampling,
    "evaluation": claims_evaluation,
    "training": claims_training,
    "study": claims_study,
}


def topic_claims(topic: str, with_demo: bool, full: bool) -> Iterator[Claim]:
    yield from TOPICS[topic].on_gpu() if ON_GPU else TOPICS[topic].on_cpu()
    if topic == "probe-stats" and with_demo and not ON_GPU:
        yield from claims_probe_stats.demo()
    if topic == "study" and with_demo and not ON_GPU:
        yield from claims_study.demo()
    if topic == "training" and full and not ON_GPU:
        yield from claims_training.held_out(range(1, 5))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic", choices=[*TOPICS, "all"])
    parser.add_argument("--no-demo", action="store_true", help="leave out the demo and the demo study, minutes long")
    parser.add_argument("--full", action="store_true", help="train with five seeds, not one: 20 minutes more")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(f"{THREADS} threads\n{machine()}")
    failed = False
    for topic in TOPICS if args.topic == "all" else (args.topic,):
        print(f"\n{topic}")
        claims = []
        for claim in topic_claims(topic, not args.no_demo, args.full):
            print(claim, flush=True)
            claims.append(claim)
        rows = [{"claim": c.what, "value": c.value, "bar": c.bar, "unit": c.unit, "holds": c.holds} for c in claims]
        record(f"claims-{topic}", rows)
        failed |= any(c.holds is False for c in claims)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
