"""Other code that computes some of our columns from hidden states and heads, for both models; ``peers`` has packages.

Shape legend: N rows, V vocabulary, H hidden size, C rows of a chunk.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import peers
import torch
import torch.nn.functional as F
from common import ON_GPU, REHEARSAL, interleaved
from gates import HiddenGate
from inputs import Hidden
from provider import SLOW_ROWS, Provider, assert_near
from torch import Tensor

from ssdfast.kernels import ProbeSpec, ProbeStats
from ssdfast.kernels.probe_stats import reference
from ssdfast.kernels.probe_stats.schema import new_packed, put_rows, unpack

# With exact logits, sums in float32 are what is left; a column of log-probabilities as rounded as bf16 logits would be
# wrong by 1e-2.
FLOAT32 = 1e-5
CHUNK = 1024 if ON_GPU else 128  # rows; 128 is TRL's own choice, a GPU wants more of them in a product
EAGER_CHUNK = 16  # eager torch needs a hundred bytes per logit


class Float32Logits:
    """The fastest way that torch has to the float32 logits of bf16 operands: ``product(hidden_CH, model)``.

    On a GPU it is a matmul with a float32 result. torch has none on a CPU: there the heads are converted beforehand
    (`prepared`), and it is the faster of a plain float32 matmul and one that multiplies in bf16.
    """

    def __init__(self, x: Hidden):
        self.heads = (x.head_base_VH, x.head_trained_VH)
        self.prepared: tuple[Tensor, ...] = ()
        self.precision = "none"
        if not ON_GPU:
            self.heads = self.prepared = (x.head_base_VH.float(), x.head_trained_VH.float())
            self.precision = self._fastest(x.rows(64).hidden_base_NH)

    def _fastest(self, hidden_CH: Tensor) -> str:
        calls: dict[str, Callable[[], Any]] = {p: partial(self._product, hidden_CH, 0, p) for p in ("none", "bf16")}
        seconds = interleaved(calls, 0)
        return min(seconds, key=lambda precision: seconds[precision])

    def __call__(self, hidden_CH: Tensor, model: int) -> Tensor:
        return self._product(hidden_CH, model, self.precision)

    def _product(self, hidden_CH: Tensor, model: int, precision: str) -> Tensor:
        if ON_GPU:
            return torch.mm(hidden_CH, self.heads[model].T, out_dtype=torch.float32)
        with float32_matmuls(precision):
            return hidden_CH.float() @ self.heads[model].T

    def bare(self, x: Hidden) -> None:
        """Both models' logits, one after the other, which are then dropped."""
        for model, hidden_NH in enumerate((x.hidden_base_NH, x.hidden_trained_NH)):
            self(hidden_NH, model)


@contextlib.contextmanager
def float32_matmuls(precision: str) -> Iterator[None]:
    """Lets a CPU multiply float32 operands as bf16 ("bf16", exact where they are bf16 values) or not ("none")."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


def eager(product: Float32Logits, spec: ProbeSpec, x: Hidden) -> ProbeStats:
    """Every column by the lines of the definition in float32, not its float64, on a few rows' logits at a time."""
    n = x.token_N.shape[0]
    stats = unpack(*new_packed(x.token_N.new_empty(0, dtype=torch.float32), n, spec, True), n, spec, True)
    for i in range(0, n, EAGER_CHUNK):
        rows = slice(i, i + EAGER_CHUNK)
        logits = product(x.hidden_base_NH[rows], 0), product(x.hidden_trained_NH[rows], 1)
        packed = reference.packed_in(torch.float32, *logits, x.token_N[rows], spec)
        put_rows(stats, rows, unpack(*packed, logits[0].shape[0], spec, True))
    return stats


def providers(x: Hidden, product: Float32Logits, gate: HiddenGate) -> Iterator[Provider]:
    def logprob_gate(tolerance: float) -> Callable[[Any], None]:
        def check(answer: list[tuple[Tensor, ...]]) -> None:
            for model, got in zip((gate.oracle.base, gate.oracle.trained), answer, strict=True):
                for name, column in zip(("token_logprob", "entropy"), got, strict=False):
                    assert_near(column.cpu(), getattr(model, name), tolerance, name)

        return check

    both = "token_logprob, entropy"
    float32: dict[str, Any] = {"gate": logprob_gate(FLOAT32), "prepared": product.prepared}
    yield Provider("TRL-style, chunked", both, partial(_both, partial(_trl, product, _logprob_and_entropy)), **float32)
    heads = x.head_base_VH, x.head_trained_VH
    yield Provider(
        "TRL-style, chunked, bf16 logits",
        both,
        partial(_both, partial(_trl, lambda hidden, model: hidden @ heads[model].T, _logprob_and_entropy)),
        logprob_gate(peers.ROUNDED_INSIDE),
    )
    compiled = torch.compile(_logprob_and_entropy, dynamic=False)
    yield Provider(
        "TRL-style, torch.compile", both, partial(_both, partial(_trl, product, compiled)), compiled=True,
        missing="a rehearsal compiles nothing" if REHEARSAL else "", **float32,
    )  # fmt: skip
    yield from _torch_linear_cross_entropy(product, float32)
    yield _cut_cross_entropy(product, float32, logprob_gate(peers.ROUNDED_INSIDE))
    yield from peers.from_hidden_states(gate)


def _both(columns: Callable[[Tensor, int, Tensor], tuple[Tensor, ...]], x: Hidden) -> list[tuple[Tensor, ...]]:
    return [columns(x.hidden_base_NH, 0, x.token_N), columns(x.hidden_trained_NH, 1, x.token_N)]


def _trl(product: Callable, columns: Callable, hidden_NH: Tensor, model: int, token_N: Tensor) -> tuple[Tensor, ...]:
    """The log-probability and entropy of GRPO-like trainers, a chunk of rows' logits at a time."""
    parts = [
        columns(product(hidden_NH[i : i + CHUNK], model), token_N[i : i + CHUNK])
        for i in range(0, len(hidden_NH), CHUNK)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _logprob_and_entropy(logits_CV: Tensor, token_C: Tensor) -> tuple[Tensor, Tensor]:
    logp_CV = logits_CV.float().log_softmax(1)
    return logp_CV.gather(1, token_C[:, None])[:, 0], -(logp_CV.exp() * logp_CV).sum(1)


def _torch_linear_cross_entropy(product: Float32Logits, float32: dict[str, Any]) -> Iterator[Provider]:
    """torch's own. It rounds the logits of bf16 operands to bf16: on a CPU it gets the float32 ones."""
    missing = "" if hasattr(F, "linear_cross_entropy") else f"not in torch {torch.__version__}"

    def logprobs(chunked: bool, hidden: Tensor, model: int, token: Tensor) -> tuple[Tensor]:
        head = product.heads[model]
        options = torch.nn.LinearCrossEntropyOptions() if chunked else None
        with float32_matmuls(product.precision):
            return (-F.linear_cross_entropy(hidden.to(head.dtype), head, token, reduction="none", options=options),)

    for name, chunked in (("F.linear_cross_entropy", False), ("F.linear_cross_entropy, chunked", True)):
        run = partial(_both, partial(logprobs, chunked))
        yield Provider(name, "token_logprob", run, rows=4 * SLOW_ROWS if chunked else None, missing=missing, **float32)


def _cut_cross_entropy(product: Float32Logits, float32: dict[str, Any], bf16_gate: Callable[[Any], None]) -> Provider:
    """Apple's kernels on a GPU; on a CPU its torch.compile version, on the operands that give float32 logits."""

    def logprobs(hidden: Tensor, model: int, token: Tensor) -> tuple[Tensor]:
        loss = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        head = product.heads[model]
        with float32_matmuls(product.precision):
            implementation = "cce" if ON_GPU else "torch_compile"
            return (-loss(hidden.to(head.dtype), head, token, reduction="none", impl=implementation),)

    given: dict[str, Any] = {"gate": bf16_gate} if ON_GPU else {**float32, "compiled": True}
    missing = peers.why_missing("cut_cross_entropy", on_cpu=not REHEARSAL)
    return Provider("cut-cross-entropy", "token_logprob", partial(_both, logprobs), missing=missing, **given)
