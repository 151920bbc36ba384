"""The one table of hard cases of ``soft_label_ce``, and how far from float64 a backend may be.

The oracle is autograd through dense labels in float64: it shares no line with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssdfast.kernels import LmHead, soft_label_ce

INF = float("inf")


@dataclass(frozen=True)
class Problem:
    """Float32 operands; hidden [N, H], weight [V, H], bias [V] or None, labels [N, K], a factor for each row [N]."""

    hidden: Tensor
    weight: Tensor
    ids: Tensor
    probs: Tensor
    rows: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0

    def to(self, *args: object) -> Problem:
        """Operands in another dtype or on another device; their row strides stay."""
        copies = {name: _keep_strides(getattr(self, name), *args) for name in ("hidden", "weight")}
        return replace(self, **copies, bias=None if self.bias is None else self.bias.to(*args))

    def on(self, device: str) -> Problem:
        copies = {name: getattr(self, name).to(device) for name in ("ids", "probs", "rows")}
        return replace(self.to(device), **copies)


def _keep_strides(x: Tensor, *args: object) -> Tensor:
    if x.is_contiguous():
        return x.to(*args)
    converted = x.to(*args)
    return converted.new_full((x.shape[0], x.stride(0)), torch.nan)[:, : x.shape[1]].copy_(converted)


@dataclass(frozen=True)
class Answer:
    """Losses of the rows [N], and the gradients of their sum, each times its factor; None for no bias."""

    loss: Tensor
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None


Edit = Callable[[Problem, torch.Generator], Problem]


def problem(n: int, v: int, k: int, g: torch.Generator, h: int = 64, size: float = 3.0) -> Problem:
    """Logits of that size, labels of mass 1 on tokens that the model finds likely."""
    hidden, weight = torch.randn(n, h, generator=g), torch.randn(v, h, generator=g) * size / h**0.5
    z = hidden @ weight.T + torch.randn(n, v, generator=g)
    top = z.topk(min(k, v), dim=1)
    probs = torch.zeros(n, k)
    probs[:, : min(k, v)] = top.values.softmax(1)
    ids = torch.full((n, k), -1)
    ids[:, : min(k, v)] = top.indices
    return Problem(hidden, weight, ids, probs, torch.rand(n, generator=g) + 0.5)


@dataclass(frozen=True)
class Case:
    name: str
    n: int = 9
    v: int = 1003
    k: int = 20
    edit: Edit = lambda p, g: p
    size: float = 3.0
    large: bool = False

    def make(self) -> Problem:
        g = torch.Generator().manual_seed(sum(map(ord, self.name)))
        return self.edit(problem(self.n, self.v, self.k, g, size=self.size), g)


def _some_ignored(p: Problem, g: torch.Generator) -> Problem:
    """Rows without labels and rows of weight 0; what their hidden states hold does not matter."""
    p.probs[[1, 4]] = 0
    p.ids[4] = -1
    p.hidden[1, 3], p.hidden[4] = torch.nan, INF
    p.rows[6], p.rows[7] = 0, -2
    p.hidden[6, 0] = torch.nan
    return p


def _all_ignored(p: Problem, g: torch.Generator) -> Problem:
    p.hidden[2, 5] = torch.nan
    return replace(p, probs=torch.zeros_like(p.probs))


def _empty_slots(p: Problem, g: torch.Generator) -> Problem:
    p.ids[:, ::3] = -1
    p.probs[:, ::3] = 0
    p.probs[3, 1] = 0  # an id of probability 0 is an empty slot too
    return p


def _repeated(p: Problem, g: torch.Generator) -> Problem:
    p.ids[:, 5:] = p.ids[:, :1]
    p.ids[2] = 0
    p.ids[3] = p.weight.shape[0] - 1
    return p


def _other_mass(p: Problem, g: torch.Generator) -> Problem:
    return replace(p, probs=p.probs * torch.linspace(0.01, 1.5, p.probs.shape[0])[:, None])


def _converged(p: Problem, g: torch.Generator) -> Problem:
    """All of the mass is on K tokens and labelled as the model has it: what is left of the gradient is rounding."""
    p.weight[20:] = 0
    p.hidden[:] *= 12
    z = p.hidden.double() @ p.weight.double().T
    top = z.topk(p.ids.shape[1], dim=1)
    return replace(p, ids=top.indices, probs=z.softmax(1).gather(1, top.indices).float())


def _apart(p: Problem, g: torch.Generator) -> Problem:
    hidden, weight = (torch.full((x.shape[0], 101), torch.nan)[:, :64].copy_(x) for x in (p.hidden, p.weight))
    return replace(p, hidden=hidden, weight=weight, ids=p.ids.T.clone().T, probs=p.probs.T.clone().T)


def _head(p: Problem, g: torch.Generator) -> Problem:
    return replace(p, bias=torch.randn(p.weight.shape[0], generator=g), scale=0.6, softcap=5.0)


def _forbidden(p: Problem, g: torch.Generator) -> Problem:
    bias = torch.randn(p.weight.shape[0], generator=g)
    bias[300:500] = -INF
    inside = (p.ids >= 300) & (p.ids < 500)
    return replace(p, bias=bias, probs=p.probs.masked_fill(inside, 0))


CASES = [
    Case("hard labels", k=1),
    Case("hard labels, N = 1", n=1, k=1),
    Case("K = 20", n=40),
    Case("K = 200", k=200),
    Case("N = 0", n=0),
    Case("V = 1", v=1),
    Case("V = 17", v=17),
    Case("V = 1024", v=1024),
    Case("some rows ignored", edit=_some_ignored),
    Case("all ignored", edit=_all_ignored),
    Case("logits of 1e4", size=4000.0),
    Case("empty slots", edit=_empty_slots),
    Case("ids repeated", edit=_repeated),
    Case("another mass", edit=_other_mass),
    Case("converged", edit=_converged),
    Case("rows apart", edit=_apart),
    Case("bias, scale and soft-cap", edit=_head),
    Case("forbidden tokens", edit=_forbidden),
    Case("forbidden tokens under a soft-cap", edit=lambda p, g: replace(_forbidden(p, g), softcap=7.0)),
    Case("saturated soft-cap", edit=_head, size=60.0),
    Case("z-loss", edit=lambda p, g: replace(p, z_loss=0.01)),
    Case("z-loss with everything", edit=lambda p, g: replace(_head(_some_ignored(p, g), g), z_loss=0.1)),
    Case("V = 151,936", n=2, v=151_936, large=True),
]


def dense(p: Problem) -> Answer:
    """Plain torch in the operands' dtype with labels [N, V]; the loss of 16-bit logits in float32."""
    leaves = [x.detach().clone().requires_grad_() for x in (p.hidden, p.weight)]
    bias = None if p.bias is None else p.bias.detach().clone().requires_grad_()
    counted = (p.probs > 0).any(1) & (p.rows != 0)
    z = leaves[0][counted] @ leaves[1].T
    if bias is not None:
        z = z + bias
    z = z * p.scale
    if p.softcap is not None:
        z = p.softcap * torch.tanh(z / p.softcap)
        if p.bias is not None:
            z = z.masked_fill(p.bias == -INF, -INF)
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    q = torch.zeros_like(z).scatter_add(1, p.ids[counted].clamp(min=0), p.probs[counted].to(z.dtype))
    lse = z.logsumexp(1)
    loss = q.sum(1) * lse - torch.where(q > 0, q * torch.where(q > 0, z, 0.0), 0.0).sum(1) + p.z_loss * lse**2
    (loss * p.rows[counted].to(z.dtype)).sum().backward()
    losses = torch.zeros(p.hidden.shape[0], dtype=z.dtype).masked_scatter(counted, loss.detach())
    return Answer(losses, leaves[0].grad, leaves[1].grad, None if bias is None else bias.grad)


def ask(p: Problem, backend: str, reduction: str = "sum") -> Answer:
    """What the package says, by one sweep or by two ("none"). The losses are those of all rows."""
    hidden, weight = (x.detach().requires_grad_() for x in (p.hidden, p.weight))
    bias = None if p.bias is None else p.bias.detach().requires_grad_()
    args = (hidden, LmHead(weight, bias, p.scale, p.softcap), p.ids, p.probs)
    given = {"z_loss": p.z_loss, "backend": backend}
    if reduction == "none":
        loss = soft_label_ce(*args, weight_N=p.rows, **given)
        loss.sum().backward()
        loss = torch.where(p.rows == 0, 0.0, loss.detach() / p.rows)
    else:
        total = soft_label_ce(*args, weight_N=p.rows, reduction=reduction, **given)
        total.backward()
        loss = soft_label_ce(*args, **given).detach()
        loss = torch.where(p.rows == 0, 0.0, loss)
        torch.testing.assert_close(total.detach(), (loss * p.rows).sum(), rtol=1e-5, atol=1e-5)
    return Answer(loss, hidden.grad, weight.grad, None if bias is None else bias.grad)


def assert_matches(got: Answer, p: Problem) -> None:
    """Largest error at most 4 x that of plain torch in the same dtype, plus 2e-6 of the largest value and 1e-6."""
    oracle, plain = dense(replace(p.to(torch.float64), rows=p.rows.double())), dense(p)
    for name, want in vars(oracle).items():
        actual, ref = getattr(got, name), getattr(plain, name)
        if want is None:
            assert actual is None
            continue
        assert actual.shape == want.shape
        if name != "loss":
            assert actual.dtype == p.hidden.dtype or name == "bias"
        if want.numel() == 0:
            continue
        assert actual.isfinite().all(), f"{name}: {actual[~actual.isfinite()][:5].tolist()}"
        error, plain_error = ((x.double().cpu() - want).abs().max().item() for x in (actual, ref))
        allowed = 4 * plain_error + 2e-6 * want.abs().max().item() + 1e-6
        assert error <= allowed, f"{name}: error {error:.2e} beyond {allowed:.2e}, plain torch {plain_error:.2e}"
    ignored = ~(p.probs > 0).any(1) | (p.rows == 0)
    assert (got.loss.cpu()[ignored] == 0).all()
    assert (got.hidden.cpu()[ignored] == 0).all()
