"""Other packages: which of our columns each gives, and figures that their authors publish.

The figures were not measured by us; each has its device and its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Package(NamedTuple):
    """A call of a package, and what it gives per position."""

    name: str
    call: str
    reads: str
    gives: str
    differs: str


class Figure(NamedTuple):
    """A published figure."""

    what: str
    value: str
    device: str
    source: str


PACKAGES = (
    Package(
        "Liger-Kernel", "`LigerFusedLinearCrossEntropyLoss`", "hidden states", "`token_logprob`", "16-bit logits"
    ),
    Package(
        "Liger-Kernel", "`LigerFusedLinearScaledCrossEntropyFunction`", "hidden states", "`token_logprob`, `entropy`",
        "the entropy is rounded to 16 bits",
    ),
    Package(
        "Liger-Kernel", "`LigerFusedLinearJSD`", "hidden states of two models", "the mean of `js`",
        "no row's own value; it always computes the gradient",
    ),
    Package(
        "Liger-Kernel", "`LigerFusedLinearKLDivLoss`", "hidden states, dense labels", "our loss, less a constant",
        "labels are [N, V]",
    ),
    Package("TRL", "`selective_log_softmax_and_entropy`", "logits", "`token_logprob`, `entropy`", ""),
    Package("TRL", "`ChunkedLogProbFunction`", "hidden states", "`token_logprob`, `entropy`", "16-bit logits"),
    Package(
        "TRL", "`ChunkedDivergenceFunction`", "hidden states of two models",
        "one of `js`, `kl_base_trained`, `kl_trained_base`; one model's `entropy`", "multiplies twice for `js`",
    ),
    Package("verl", "`linear_cross_entropy`", "hidden states", "`token_logprob`, `entropy`", ""),
    Package("cut-cross-entropy", "`linear_cross_entropy`", "hidden states", "`token_logprob`", "skips small gradients"),
    Package("quack", "`cross_entropy_fwd`", "logits", "`token_logprob`, `lse`", ""),
    Package("quack", "`chunked_linear_cross_entropy`", "hidden states", "`token_logprob`", "16-bit logits"),
)  # fmt: skip

_TRL = "[TRL issue 7244](https://github.com/huggingface/trl/issues/7244)"
_H100 = "H100, bf16, V 151,936, H 4,096, 8,192 tokens"
FIGURES = (
    Figure("log-probability and entropy from logits, fused in Triton, forward", "0.89 ms", _H100, _TRL),
    Figure("the same by torch in two calls", "12.8 ms", _H100, _TRL),
    Figure("bare lm_head product, forward and backward", "42 ms", _H100, _TRL),
    Figure("cross-entropy from hidden states on full logits, forward and backward", "59 ms, 19.9 GiB", _H100, _TRL),
    Figure("the same in TRL's chunks of 256", "167 ms, 13.1 GiB", _H100, _TRL),
    Figure("the same by Liger", "192 ms, 6.1 GiB", _H100, _TRL),
    Figure(
        "fused linear KL divergence with dense labels, forward and backward, by Liger", "129.2 ms, 2.0 GB",
        "A100-SXM4-80GB, bf16, torch 2.11, V 128,256, H 4,096, 8,192 tokens",
        "[Liger pull request 1423](https://github.com/linkedin/Liger-Kernel/pull/1423)",
    ),
    Figure(
        "memory of the loss by cut-cross-entropy", "1 MB instead of 24 GB",
        "A100-SXM4-80GB, torch 2.4.1, Gemma 2 (2B), 8,192 tokens", "[arXiv 2411.09009](https://arxiv.org/abs/2411.09009)",
    ),
)  # fmt: skip


def section() -> Iterator[str]:
    """Both tables, for docs/benchmarks.md."""
    yield "## Other packages"
    yield (
        "Of our columns, each gives these per position. `bench/` measures them on our inputs where they are installed,"
        " and leaves out an answer that float64 rejects."
    )
    yield _table(("package", "call", "reads", "gives", "differs"), PACKAGES)
    yield "Figures that their authors published, on their machines:"
    yield _table(("what", "figure", "device and size", "source"), FIGURES)


def _table(heading: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
