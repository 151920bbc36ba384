"""Time of ``probe_stats`` beside plain torch: ``python bench/probe_stats.py [--rows 64] [--vocabulary 151936]``.

No time is shown for an answer that the float64 oracle rejects. Writes bench/results/probe_stats.jsonl and prints a
table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import interleaved, logits_pair, record, token_classes
from torch import Tensor

from ssdfast.kernels import ProbeSpec, ProbeStats, probe_stats
from ssdfast.kernels.probe_stats import reference
from tests.kernels.cases import assert_matches_oracle

GATE_ROWS = 8  # the oracle sorts float64 rows: a few are enough


def everything(v: int) -> ProbeSpec:
    """Every column: two sweeps, five temperatures, twelve classes."""
    return ProbeSpec(token_class=token_classes(v))


ONE_SWEEP = ProbeSpec(sweeps=1, temperatures=())


def gate(stats: Callable[..., ProbeStats], a: Tensor, b: Tensor, token: Tensor, spec: ProbeSpec) -> None:
    """Raises AssertionError unless `stats` agrees with the oracle, within the tests' own tolerance."""
    rows = slice(0, GATE_ROWS)
    assert_matches_oracle(stats(a[rows], b[rows], token[rows], spec), a[rows], b[rows], token[rows], spec)


def providers(a: Tensor, b: Tensor, token: Tensor) -> dict[str, tuple[str, Callable[[], Any]]]:
    """name -> (which columns it gives, the call). Each but logsumexp and copy has passed the gate."""
    spec = everything(a.shape[1])
    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "torch.logsumexp": ("lse", lambda: (torch.logsumexp(a, 1), torch.logsumexp(b, 1)))
    }
    for backend in [name for name in probe_stats.backends() if name != "reference"]:
        if (backend == "triton") != a.is_cuda:
            continue
        for columns, s in (("one sweep", ONE_SWEEP), ("all", spec)):
            call = partial(probe_stats, spec=s, backend=backend)
            gate(lambda a, b, token, _, call=call: call(a, b, token), a, b, token, s)
            found[f"{backend}, {columns}"] = (columns, partial(call, a, b, token))
    if a.is_cuda:
        copy = torch.empty_like(a), torch.empty_like(b)
        found["copy"] = ("none: the memory's speed", lambda: (copy[0].copy_(a), copy[1].copy_(b)))
    found["reference, eager"] = ("all", lambda: probe_stats(a, b, token, spec, backend="reference"))
    found["reference, torch.compile"] = ("all", compiled_reference(a, b, token, spec))
    return found


def compiled_reference(a: Tensor, b: Tensor, token: Tensor, spec: ProbeSpec) -> Callable[[], Any]:
    compiled = torch.compile(lambda a, b, token: reference.probe_stats_packed(a, b, token, spec), dynamic=False)
    return lambda: compiled(a, b, token)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30, help="how long the fast providers take turns")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b, token = logits_pair(args.rows, args.vocabulary, getattr(torch, args.dtype), device)
    found = providers(a, b, token)
    slow = {name: call for name, (_, call) in found.items() if name.startswith("reference")}
    fast = {name: call for name, (_, call) in found.items() if name not in slow}
    seconds = interleaved(fast, args.seconds) | interleaved(slow, 0)
    base = seconds["torch.logsumexp"]
    rows = [
        {"operation": "probe_stats", "provider": name, "columns": columns, "n": args.rows, "v": args.vocabulary,
         "dtype": args.dtype, "ms_per_row_pair": 1e3 * seconds[name] / args.rows, "of_logsumexp": seconds[name] / base}
        for name, (columns, _) in found.items()
    ]  # fmt: skip
    path = record("probe_stats", rows)
    print(f"{args.rows} rows of {args.vocabulary:,}, {args.dtype}, two models, {args.threads} threads\n")
    print(f"{'provider':28} {'columns':26} {'ms a row pair':>14} {'x logsumexp':>12}")
    for row in rows:
        print(f"{row['provider']:28} {row['columns']:26} {row['ms_per_row_pair']:14.3f} {row['of_logsumexp']:12.2f}")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
