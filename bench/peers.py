"""Published packages that compute some of our columns, on the same inputs; left out where they are not installed.

``published.PACKAGES`` says which columns each gives. In a rehearsal, Triton's interpreter runs
those kernels that it can.

Shape legend: N rows, V vocabulary, H hidden size, K label slots.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from common import ON_GPU, REHEARSAL
from gates import HiddenGate, LogitsGate
from inputs import Hidden, Logits
from provider import Provider, assert_near
from torch import Tensor

from ssdfast.kernels import ModelStats

# Products in 16 bits with float32 sums allow one more rounding than float32 does; logits rounded to 16 bits change a
# log-probability by 1e-2.
ROUNDED_INSIDE, ROUNDED_LOGITS = 1e-3, 5e-2
TRL_VOCABULARY_CHUNK = 32_768
QUACK_ROWS = 4_096

Columns = list[tuple[Tensor, ...]]  # a tuple for each model


def why_missing(package: str, interpreted: bool = False, on_cpu: bool = False) -> str:
    """Why a package of GPU kernels cannot run here; empty if it can.

    interpreted: Triton's interpreter runs them. on_cpu: the package has other code for a CPU.
    """
    if importlib.util.find_spec(package) is None:
        return f"{package.replace('_', '-')} is not installed"
    return "" if ON_GPU or on_cpu or (REHEARSAL and interpreted) else "its kernels need a GPU"


def load(module: str, name: str) -> Any:
    """Only when it runs: an import may take seconds, or packages that are not here."""
    return getattr(importlib.import_module(module), name)


def column_gate(models: Callable[[], tuple[ModelStats, ModelStats]], names: tuple[str, ...], tolerance: float) -> Any:
    """Compares both models' columns of these names with the oracle's."""

    def check(answer: Columns) -> None:
        for model, got in zip(models(), answer, strict=True):
            for name, column in zip(names, got, strict=True):
                assert_near(column.cpu(), getattr(model, name), tolerance, name)

    return check


def _both(columns: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]], x: Hidden) -> Columns:
    return [
        columns(x.hidden_base_NH, x.head_base_VH, x.token_N),
        columns(x.hidden_trained_NH, x.head_trained_VH, x.token_N),
    ]


def from_hidden_states(gate: HiddenGate) -> Iterator[Provider]:
    """Providers of ``linear_probe_stats``, both models one after the other. "16-bit logits": they round them."""

    def provider(name: str, columns: Any, gives: tuple[str, ...], tolerance: float, missing: str) -> Provider:
        check = column_gate(gate.models, gives, tolerance)
        return Provider(name, ", ".join(gives), partial(_both, columns), check, missing=missing)

    logprob, both = ("token_logprob",), ("token_logprob", "entropy")
    liger = why_missing("liger_kernel", interpreted=True)
    yield provider("Liger fused linear cross-entropy", _liger, logprob, ROUNDED_LOGITS, liger)
    scaled = why_missing("liger_kernel")
    yield provider("Liger fused linear scaled CE", _liger_scaled, both, ROUNDED_LOGITS, scaled)
    yield provider(
        "TRL chunked log-probability", _trl_logprob, both, ROUNDED_LOGITS, why_missing("trl", interpreted=True)
    )
    yield provider("verl linear cross-entropy", _verl, both, ROUNDED_INSIDE, why_missing("verl"))
    yield provider("quack linear cross-entropy", _quack, logprob, ROUNDED_LOGITS, why_missing("quack"))
    yield from _divergences(gate)


def _liger(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> tuple[Tensor]:
    loss = load("liger_kernel.transformers", "LigerFusedLinearCrossEntropyLoss")(reduction="none")
    return (-loss(head_VH, hidden_NH, token_N),)


def _liger_scaled(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    function = load("liger_kernel.ops", "LigerFusedLinearScaledCrossEntropyFunction")
    loss_N, entropy_N = function.apply(hidden_NH, head_VH, token_N, 1.0, -100, True)
    return -loss_N, entropy_N.float()


def _trl_logprob(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    function = load("trl.kernels.chunked_logprob", "ChunkedLogProbFunction")
    chunk = min(TRL_VOCABULARY_CHUNK, head_VH.shape[0])
    logprob_N, entropy_N, *_ = function.apply(hidden_NH, head_VH, None, token_N, 1.0, chunk, None, 1.0, ("entropy",))
    return logprob_N, entropy_N


def _verl(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
    function = load("verl.utils.kernel.linear_cross_entropy", "linear_cross_entropy")
    logprob_N, entropy_N = function(hidden_NH, head_VH, token_N, 1.0, "none")
    return logprob_N, entropy_N


def _quack(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> tuple[Tensor]:
    forward = load("quack.linear_cross_entropy", "chunked_linear_cross_entropy_fwd")
    loss_N, *_ = forward(hidden_NH, head_VH, token_N, chunk_size=QUACK_ROWS, need_dx=False, need_dw=False)
    return (-loss_N,)


def _divergences(gate: HiddenGate) -> Iterator[Provider]:
    """Losses that compare two models; the student is the trained one."""

    def trl(x: Hidden, beta: float) -> Tensor:
        function = load("trl.kernels.chunked_divergence", "ChunkedDivergenceFunction")
        student, teacher = (x.hidden_trained_NH, x.head_trained_VH, None), (x.hidden_base_NH, x.head_base_VH, None)
        divergence_N, _ = function.apply(*student, *teacher, beta)
        return divergence_N

    def liger(x: Hidden) -> Tensor:
        loss = load("liger_kernel.transformers", "LigerFusedLinearJSD")(jsd_beta=0.5)
        return loss(x.hidden_trained_NH, x.head_trained_VH, x.hidden_base_NH, x.head_base_VH, x.token_N)

    def near(name: str) -> Callable[[Tensor], None]:
        return lambda answer: assert_near(answer.cpu(), getattr(gate.pair, name), ROUNDED_INSIDE, name)

    def near_mean(answer: Tensor) -> None:
        ratio = answer.float().cpu() / gate.pair.js.mean()
        assert_near(ratio, torch.ones(()), ROUNDED_LOGITS, "js over its oracle")

    missing = why_missing("trl", interpreted=True)
    for name, gives, beta in (("JSD", "js", 0.5), ("forward KL", "kl_base_trained", 0.0)):
        run = partial(trl, beta=beta)
        yield Provider(f"TRL chunked {name}", gives, run, near(gives), missing=missing)
    missing = why_missing("liger_kernel", interpreted=True)
    yield Provider("Liger fused linear JSD", "js, its mean over rows", liger, near_mean, missing=missing)


def from_logits(gate: LogitsGate) -> Iterator[Provider]:
    """Providers of ``probe_stats``: one pass over the logits of each model."""

    def provider(name: str, columns: Any, gives: tuple[str, ...], missing: str) -> Provider:
        def run(x: Logits) -> Columns:
            return [columns(logits_NV, x.token_N) for logits_NV in (x.base_NV, x.trained_NV)]

        check = column_gate(gate.models, gives, ROUNDED_INSIDE)
        return Provider(name, ", ".join(gives), run, check, missing=missing)

    def trl(logits_NV: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
        return load("trl.kernels.logprob_entropy", "selective_log_softmax_and_entropy")(logits_NV, token_N)

    def quack(logits_NV: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
        loss_N, lse_N = load("quack.cross_entropy", "cross_entropy_fwd")(logits_NV, token_N, return_lse=True)
        return -loss_N, lse_N

    both = ("token_logprob", "entropy")
    yield provider("TRL fused log-probability, entropy", trl, both, why_missing("trl", interpreted=True))
    yield provider("quack cross-entropy", quack, ("token_logprob", "lse"), why_missing("quack"))


def hard_label_losses() -> Iterator[tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor], str]]:
    """Name, summed cross-entropy of (hidden_NH, head_VH, token_N) with gradients, and why it cannot run."""

    def liger(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> Tensor:
        loss = load("liger_kernel.transformers", "LigerFusedLinearCrossEntropyLoss")(reduction="sum")
        return loss(head_VH, hidden_NH, token_N)

    def quack(hidden_NH: Tensor, head_VH: Tensor, token_N: Tensor) -> Tensor:
        loss = load("quack.linear_cross_entropy", "chunked_linear_cross_entropy")
        return loss(hidden_NH, head_VH, token_N, chunk_size=QUACK_ROWS, reduction="sum")

    yield "Liger fused linear cross-entropy", liger, why_missing("liger_kernel", interpreted=True)
    yield "TRL chunked log-probability", lambda *x: -_trl_logprob(*x)[0].sum(), why_missing("trl", interpreted=True)
    yield "verl linear cross-entropy", lambda *x: -_verl(*x)[0].sum(), why_missing("verl")
    yield "quack linear cross-entropy", quack, why_missing("quack")


def liger_soft_loss(hidden_NH: Tensor, head_VH: Tensor, ids_NK: Tensor, probs_NK: Tensor) -> Tensor:
    """Liger's KL divergence to dense labels, made of the sparse ones, plus the labels' entropy: our loss, summed."""
    loss = load("liger_kernel.transformers", "LigerFusedLinearKLDivLoss")(reduction="sum")
    dense_NV = probs_NK.new_zeros(ids_NK.shape[0], head_VH.shape[0]).scatter_add_(1, ids_NK, probs_NK)
    return loss(hidden_NH, head_VH, dense_NV) + torch.special.entr(probs_NK).sum()
