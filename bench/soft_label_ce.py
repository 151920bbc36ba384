"""Forward and backward of ``soft_label_ce`` and of other losses: ``python bench/soft_label_ce.py [--shape N V H]``.

fp32 hidden states and head on a CPU, bf16 on a GPU; the gradients of both. Soft labels are a baseline's 20 likeliest
tokens, hard ones its likeliest. A provider whose answer float64 rejects gets no time. Writes
bench/results/soft_label_ce.jsonl and prints a table.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import peers
import torch
import torch.nn.functional as F
from claim import Claim
from common import DEVICE, FOR_GPU, HALF, ON_GPU, REHEARSAL, interleaved, record
from inputs import DISTINCT, hidden_pair
from memory import bytes_of, peak_in_own_process, peak_on_gpu
from probe_stats import fast_backends
from provider import GATE_ROWS, Provider, gated, measured
from roofline import floor, measured_rates
from torch import Tensor

from ssdfast.kernels import soft_label_ce

MODEL = 49_152, 576
GPU_MODEL = (700, 64) if REHEARSAL else (151_936, 2_560)
GPU_ROWS = 16 if REHEARSAL else 16_384
SHAPES = [(GPU_ROWS, *GPU_MODEL)] if FOR_GPU else [(4_096, *MODEL)]
K = 20
EAGER_ROWS = 1_024  # full logits of more do not fit beside their gradients and dense labels
TORCH_CHUNK = 512  # rows; torch's own choice takes 16 times the time of the bare matmuls on a CPU
PLAIN = "F.linear_cross_entropy"
CHUNKED = f"F.linear_cross_entropy, {TORCH_CHUNK} rows"
# Of the largest value of a loss or gradient; what multiplies in bf16 rounds to eight bits.
TOLERANCE = 2e-2 if FOR_GPU else 1e-5

Answer = tuple[Tensor, Tensor, Tensor]  # the loss, summed over rows, and its gradients in hidden states and head


class Step(NamedTuple):
    """Hidden states [N, H] of a model in training, its head [V, H], soft labels [N, K] and hard labels [N]."""

    hidden_NH: Tensor
    head_VH: Tensor
    ids_NK: Tensor
    probs_NK: Tensor
    token_N: Tensor

    def rows(self, n: int) -> Step:
        return Step(self.hidden_NH[:n], self.head_VH, self.ids_NK[:n], self.probs_NK[:n], self.token_N[:n])


def inputs(n: int, v: int, h: int) -> Step:
    x = hidden_pair(n, v, h)
    few = x.hidden_base_NH[:DISTINCT].float() @ x.head_base_VH.float().T
    top = few.topk(K, dim=1)
    repeats = -(-n // few.shape[0])
    probs_NK = top.values.softmax(1).repeat(repeats, 1)[:n]
    dtype = HALF if FOR_GPU else torch.float32
    return Step(
        x.hidden_trained_NH.to(dtype),
        x.head_trained_VH.to(dtype),
        top.indices.repeat(repeats, 1)[:n],
        probs_NK,
        x.token_N,
    )


def _with_gradients(loss: Callable[[Tensor, Tensor], Tensor], x: Step) -> Answer:
    hidden_NH, head_VH = x.hidden_NH.detach().requires_grad_(), x.head_VH.detach().requires_grad_()
    total = loss(hidden_NH, head_VH)
    total.backward()
    assert hidden_NH.grad is not None
    assert head_VH.grad is not None
    return total.detach(), hidden_NH.grad, head_VH.grad


def ours(x: Step, backend: str, hard: bool = False, reduction: str = "sum") -> Answer:
    ids_NK, probs_NK = (x.token_N[:, None], torch.ones_like(x.probs_NK[:, :1])) if hard else (x.ids_NK, x.probs_NK)

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        return soft_label_ce(hidden, head, ids_NK, probs_NK, reduction=reduction, backend=backend).sum()

    return _with_gradients(loss, x)


def eager(x: Step, hard: bool = False) -> Answer:
    """Full logits, dense labels, autograd."""

    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        logits_NV = (hidden @ head.T).to(torch.promote_types(hidden.dtype, torch.float32))
        if hard:
            return F.cross_entropy(logits_NV, x.token_N, reduction="sum")
        q_NV = torch.zeros_like(logits_NV).scatter_add_(1, x.ids_NK, x.probs_NK.to(logits_NV.dtype))
        return F.cross_entropy(logits_NV, q_NV, reduction="sum")

    return _with_gradients(loss, x)


def liger_soft(x: Step) -> Answer:
    def loss(hidden: Tensor, head: Tensor) -> Tensor:
        return peers.liger_soft_loss(hidden, head, x.ids_NK, x.probs_NK)

    return _with_gradients(loss, x)


def bare(x: Step) -> None:
    """The products that any of them needs, all rows at once: the logits and two gradients."""
    z_NV = x.hidden_NH @ x.head_VH.T
    z_NV @ x.head_VH
    z_NV.T @ x.hidden_NH


class Gate:
    """Holds an answer for the first rows to float64."""

    def __init__(self, x: Step, rows: int = GATE_ROWS):
        self.x = x.rows(rows)

    @cached_property
    def soft(self) -> Answer:
        return eager(self._double)

    @cached_property
    def hard(self) -> Answer:
        return eager(self._double, hard=True)

    @property
    def _double(self) -> Step:
        return self.x._replace(hidden_NH=self.x.hidden_NH.double(), head_VH=self.x.head_VH.double())

    def check(self, answer: Answer, hard: bool = False) -> None:
        largest = error(answer, self.hard if hard else self.soft)
        assert largest <= TOLERANCE, f"{largest:.1e} of the largest value from float64, more than {TOLERANCE:g}"


def error(answer: Answer, want: Answer) -> float:
    """The largest of loss and gradients, each relative to its own largest value."""
    return max(((got.double() - w).abs().max() / w.abs().max()).item() for got, w in zip(answer, want, strict=True))


def providers(x: Step) -> Iterator[Provider]:
    gate = Gate(x)
    hard = partial(gate.check, hard=True)
    yield Provider("bare matmuls", "none", bare)
    for backend in fast_backends():
        yield Provider(f"ssdfast {backend}", "soft labels", partial(ours, backend=backend), gate.check)
        run = partial(ours, backend=backend, reduction="none")
        yield Provider(f"ssdfast {backend}, reduction none", "soft labels", run, gate.check)
        yield Provider(f"ssdfast {backend}, K = 1", "hard labels", partial(ours, backend=backend, hard=True), hard)
    yield Provider("eager torch, full logits", "soft labels", eager, gate.check, EAGER_ROWS)
    missing = peers.why_missing("liger_kernel", interpreted=True)
    yield Provider(
        "Liger fused linear KL", "soft labels", liger_soft, gate.check, min(EAGER_ROWS, x.token_N.shape[0]),
        missing=missing,
    )  # fmt: skip
    yield from _hard_label_losses(hard)


def _hard_label_losses(gate: Callable[[Answer], None]) -> Iterator[Provider]:
    def provider(name: str, loss: Callable[..., Tensor], missing: str = "", **given: Any) -> Provider:
        def run(x: Step) -> Answer:
            return _with_gradients(lambda hidden, head: loss(hidden, head, x.token_N), x)

        return Provider(name, "hard labels", run, gate, missing=missing, **given)

    def torch_loss(hidden: Tensor, head: Tensor, token: Tensor, chunk: int | None = None) -> Tensor:
        options = None if chunk is None else torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
        return F.linear_cross_entropy(hidden, head, token, reduction="sum", options=options)

    def cut(hidden: Tensor, head: Tensor, token: Tensor) -> Tensor:
        cross_entropy = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        return cross_entropy(hidden, head, token, reduction="sum", impl="cce" if ON_GPU else "torch_compile")

    missing = "" if hasattr(F, "linear_cross_entropy") else f"not in torch {torch.__version__}"
    yield provider(PLAIN, torch_loss, missing, rows=EAGER_ROWS)
    yield provider(CHUNKED, partial(torch_loss, chunk=TORCH_CHUNK), missing)
    rows = None if ON_GPU else EAGER_ROWS
    missing = peers.why_missing("cut_cross_entropy", on_cpu=not REHEARSAL)
    yield provider("cut-cross-entropy", cut, missing, compiled=not ON_GPU, rows=rows)
    for name, loss, reason in peers.hard_label_losses():
        yield provider(name, loss, reason)


def claims() -> Iterator[Claim]:
    """The bars of the CPU, two threads, and those of a GPU as not measured."""
    yield from gpu_claims()
    n, sizes = 4_096, f"N 4,096 V {MODEL[0]:,} H {MODEL[1]:,}"
    x = inputs(n, *MODEL)
    by_name = {p.name: p for p in providers(x)}
    names = {"soft": "ssdfast cpu", "hard": "ssdfast cpu, K = 1", "torch": CHUNKED}
    calls = {short: gated(by_name[name], x) for short, name in names.items()}
    seconds = interleaved({"bare": partial(bare, x), **calls}, seconds=30)
    ratio = seconds["soft"] / seconds["bare"]
    yield Claim(f"forward and backward over the three bare matmuls, {sizes}", ratio, 1.2, "x")
    yield Claim(f"hard labels, over F.linear_cross_entropy, {sizes}", seconds["hard"] / seconds["torch"], 1, "x")
    gate = Gate(x, rows=256)
    errors = {name: error(by_name[name].run(gate.x), gate.hard) for name in (names["hard"], PLAIN, CHUNKED)}
    yield Claim(f"error against float64, over {PLAIN}", errors[names["hard"]] / errors[PLAIN], 1, "x")
    # Both errors are those of float32 sums in another order.
    yield Claim(f"error against float64, over {CHUNKED}", errors[names["hard"]] / errors[CHUNKED], 1.25, "x")
    peaks = {rows: peak_in_own_process("soft_label_ce", names["soft"], (rows, *MODEL)) / 1e6 for rows in (1_024, n)}
    for rows, peak in peaks.items():
        yield Claim(f"extra memory, gradients excluded, N {rows:,} V {MODEL[0]:,} H {MODEL[1]:,}", peak, 128, "MB")
    yield Claim("memory at N 4,096 over that at N 1,024", peaks[n] / peaks[1_024], 1.1, "x")


def gpu_claims() -> Iterator[Claim]:
    """The bars of a GPU. The bare matmuls keep the logits and both gradients in 16 bits."""
    ratio = extra = None
    (v, h), n = GPU_MODEL, GPU_ROWS
    sizes = f"N {n:,} V {v:,} H {h:,}"
    if FOR_GPU:
        x = inputs(n, v, h)
        soft = next(p for p in providers(x) if p.gives == "soft labels")
        seconds = interleaved({"soft": gated(soft, x), "bare": partial(bare, x)}, seconds=3)
        ratio = seconds["soft"] / seconds["bare"]
        # The answer, which is left out already, holds half of the bytes of the head's float32 gradient.
        extra = max(0.0, (peak_on_gpu(partial(soft.run, x)) - 2 * v * h) / 1e6)
    yield Claim(f"GPU, forward and backward over the three bare matmuls, {sizes}", ratio, 1.4, "x")
    yield Claim(f"GPU, extra memory, gradients excluded, {sizes}", extra, 512, "MB")


def table(rows: list[dict[str, Any]]) -> str:
    """The records of providers that passed, beside the bare matmuls."""
    times = {r["provider"]: r["ms_per_row"] for r in rows if "left_out" not in r}
    lines = [f"{'provider':34} {'gives':12} {'ms per row':>10} {'of bare':>8} {'MiB extra':>10}"]
    for r in rows:
        if "left_out" not in r:
            ratio = r["ms_per_row"] / times["bare matmuls"]
            extra = r["peak_extra_bytes"] / 2**20
            lines.append(f"{r['provider']:34} {r['gives']:12} {r['ms_per_row']:10.4f} {ratio:8.2f} {extra:10.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, metavar=("N", "V", "H"), help="rows, vocabulary, hidden size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="seconds for which the fast providers take turns")
    parser.add_argument("--claims", action="store_true", help="only measure the claims")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.claims:
        for claim in gpu_claims() if FOR_GPU else claims():
            print(claim, flush=True)
        return
    rows = []
    for shape in [tuple(args.shape)] if args.shape else SHAPES:
        n, v, h = shape
        x = inputs(*shape)
        floor_seconds = floor(measured_rates(x.hidden_NH, x.head_VH), bytes_of(x[:2]), flops=3 * 2 * n * v * h)
        records = measured("soft_label_ce", shape, x, providers(x), floor_seconds, args.seconds)
        names = {"ms_per_row_pair": "ms_per_row"}
        rows += [{names.get(key, key): value for key, value in r.items()} for r in records]
        print(f"\nN {n:,}, V {v:,}, H {h:,}, {x.head_VH.dtype}, forward and backward, {DEVICE}\n{table(rows)}")
    print(f"\nwritten to {record('soft_label_ce', rows)}")


if __name__ == "__main__":
    main()
