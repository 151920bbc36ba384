"""Time and memory of ``linear_probe_stats`` and of other code: ``python bench/linear_probe_stats.py [--shape N V H]``.

Every provider gets hidden states and heads of two models in bf16. A provider whose answer the float64
oracle rejects gets no time. Writes bench/results/linear_probe_stats.jsonl and prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import others
import torch
from common import DEVICE, FOR_GPU, REHEARSAL, record
from gates import HiddenGate
from inputs import Hidden, hidden_pair
from memory import bytes_of
from probe_stats import ONE_SWEEP, fast_backends
from provider import SLOW_ROWS, Provider, measured, table
from roofline import floor, measured_rates

from ssdfast.kernels import ProbeSpec, ProbeStats, linear_probe_stats

GPU_SHAPES = [(4, 1_500, 64)] if REHEARSAL else [(4_096, 248_320, 2_560)]
SHAPES = GPU_SHAPES if FOR_GPU else [(256, 49_152, 576)]
inputs = hidden_pair


def providers(x: Hidden) -> Iterator[Provider]:
    gate = HiddenGate(x)
    product = others.Float32Logits(x)
    yield Provider("bare matmuls, float32 logits", "none", product.bare, prepared=product.prepared)
    yield from ours(x, gate)
    eager = partial(others.eager, product, ProbeSpec())
    yield Provider("eager torch, chunked", "all", eager, gate.plain, SLOW_ROWS, prepared=product.prepared)
    yield from others.providers(x, product, gate)


def ours(x: Hidden, gate: HiddenGate | None = None) -> Iterator[Provider]:
    gate = gate or HiddenGate(x)
    for backend in fast_backends():
        for gives, spec in (("all of one sweep", ONE_SWEEP), ("all", ProbeSpec())):
            run = partial(_ours, spec=spec, backend=backend)
            yield Provider(f"ssdfast {backend}, sweeps={spec.sweeps}", gives, run, gate.ours(spec))


def _ours(x: Hidden, spec: ProbeSpec, backend: str) -> ProbeStats:
    return linear_probe_stats(*x, spec, backend=backend)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, metavar=("N", "V", "H"), help="rows, vocabulary, hidden size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="how long the fast providers take turns")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in [tuple(args.shape)] if args.shape else SHAPES:
        n, v, h = shape
        x = inputs(*shape)
        floor_seconds = floor(
            measured_rates(x.hidden_base_NH, x.head_base_VH), bytes_of(x[:4]), flops=2 * 2 * n * v * h
        )
        rows += measured("linear_probe_stats", shape, x, providers(x), floor_seconds, args.seconds)
        print(f"\nN {n:,}, V {v:,}, H {h:,}, bf16 operands, two models, {DEVICE}\n{table(rows)}")
        print(f"\nwritten to {record('linear_probe_stats', rows)}")


if __name__ == "__main__":
    main()
