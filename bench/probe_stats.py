"""Time and memory of ``probe_stats`` and of plain torch: ``python bench/probe_stats.py [--shape N V]``.

A provider whose answer the float64 oracle rejects gets no time. "Eager torch" and "torch.compile" run the lines of the
definition in float32: backend="reference" computes them in float64, which is slower. Writes
bench/results/probe_stats.jsonl and prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import peers
import torch
from common import DEVICE, FOR_GPU, REHEARSAL, record
from gates import LogitsGate
from inputs import Logits, logits_pair, token_classes
from memory import bytes_of
from provider import GATE_ROWS, SLOW_ROWS, Provider, measured, table
from roofline import floor, measured_rates

from ssdfast.kernels import ProbeSpec, ProbeStats, probe_stats
from ssdfast.kernels.probe_stats import reference
from ssdfast.kernels.probe_stats.schema import unpack

GPU_SHAPES = [(4, 1_500)] if REHEARSAL else [(8_192, 151_936), (16_384, 151_936)]  # the last has N V above 2^31
SHAPES = GPU_SHAPES if FOR_GPU else [(64, 151_936)]
ONE_SWEEP = ProbeSpec(sweeps=1, lse_temperatures=())
inputs = logits_pair


def everything(v: int) -> ProbeSpec:
    """Every column: two sweeps, five temperatures, twelve classes."""
    return ProbeSpec(token_class=token_classes(v))


def fast_backends() -> list[str]:
    """The backends for tensors of this machine's device, without the reference."""
    return [name for name in probe_stats.backends() if name == ("triton" if FOR_GPU else "cpu")]


def providers(x: Logits) -> Iterator[Provider]:
    spec = everything(x.base_NV.shape[1])
    gate = LogitsGate(x)
    yield Provider("torch.logsumexp", "lse", _logsumexp)
    yield from ours(x, gate)
    yield Provider("eager torch", "all", partial(_in_float32, spec=spec), gate.plain(spec), SLOW_ROWS)
    missing = "a rehearsal compiles nothing" if REHEARSAL else ""
    yield Provider(
        "torch.compile", "all", compiled_reference(spec), gate.plain(spec), GATE_ROWS, compiled=True, missing=missing
    )
    if FOR_GPU:
        yield from peers.from_logits(gate)


def ours(x: Logits, gate: LogitsGate | None = None) -> Iterator[Provider]:
    gate = gate or LogitsGate(x)
    for backend in fast_backends():
        for gives, spec in (("all of one sweep", ONE_SWEEP), ("all", everything(x.base_NV.shape[1]))):
            run = partial(_ours, spec=spec, backend=backend)
            yield Provider(f"ssdfast {backend}, sweeps={spec.sweeps}", gives, run, gate.ours(spec))


def _logsumexp(x: Logits) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.logsumexp(x.base_NV, 1), torch.logsumexp(x.trained_NV, 1)


def _ours(x: Logits, spec: ProbeSpec, backend: str) -> ProbeStats:
    return probe_stats(*x, spec, backend=backend)


def _in_float32(x: Logits, spec: ProbeSpec) -> ProbeStats:
    return unpack(*reference.packed_in(torch.float32, *x, spec), x.base_NV.shape[0], spec, True)


def compiled_reference(spec: ProbeSpec) -> Callable[[Logits], ProbeStats]:
    """The lines of the definition in float32."""
    compiled = torch.compile(
        lambda base, trained, token: reference.packed_in(torch.float32, base, trained, token, spec), dynamic=False
    )
    return lambda x: unpack(*compiled(*x), x.base_NV.shape[0], spec, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=2, metavar=("N", "V"), help="rows and vocabulary")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="how long the fast providers take turns")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rates = measured_rates()
    rows = []
    for shape in [tuple(args.shape)] if args.shape else SHAPES:
        x = inputs(*shape)
        floor_seconds = floor(rates, bytes_of(x[:2]))
        rows += measured("probe_stats", shape, x, providers(x), floor_seconds, args.seconds)
        print(f"\n{shape[0]:,} rows of {shape[1]:,} bf16 logits, two models, {DEVICE}\n{table(rows)}")
        print(f"\nwritten to {record('probe_stats', rows)}")


if __name__ == "__main__":
    main()
