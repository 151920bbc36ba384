"""``soft_label_ce`` on the CPU: the table of hard cases, derivatives, and how the operator behaves inside torch."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from ssdfast.kernels import LmHead, soft_label_ce
from ssdfast.kernels.soft_label_ce import chunks, cpu, gradients
from ssdfast.kernels.workspace import gpu_workspace_bytes

from .soft_label_cases import CASES, Case, ask, assert_matches, problem

pytest.importorskip("ssdfast.kernels._C")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_matches_the_oracle(case, backend, dtype, reduction):
    if dtype == torch.float16 and (case.large or case.size > 1000):
        pytest.skip("logits beyond what plain fp16 holds" if case.size > 1000 else "fp16 takes the way of fp32")
    p = case.make().to(dtype)
    assert_matches(ask(p, backend, reduction), p)


@pytest.mark.parametrize("isa", ["avx2", "portable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_other_instruction_sets(isa, dtype, monkeypatch):
    if isa == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("not on this processor")
    monkeypatch.setenv("SSDFAST_CPU", isa)
    monkeypatch.setattr(gradients, "SLICE_BYTES", 4 * 64 * 100)
    for case in CASES:
        if not case.large:
            p = case.make().to(dtype)
            assert_matches(ask(p, "cpu"), p)


@pytest.mark.parametrize("isa", ["avx2", "portable"])
def test_gradients_in_the_logits_are_not_rounded_where_bf16_is_multiplied_as_float32(isa, monkeypatch):
    if isa == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("not on this processor")
    monkeypatch.setenv("SSDFAST_CPU", isa)
    add_rows, dtypes = gradients.Gradients.add_rows, set()

    def recorded(self, rows_B, grad_BV, *operands):
        dtypes.add(grad_BV.dtype)
        add_rows(self, rows_B, grad_BV, *operands)

    monkeypatch.setattr(gradients.Gradients, "add_rows", recorded)
    ask(_case("K = 20").make().to(torch.bfloat16), "cpu")
    assert dtypes == {torch.float32}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_of_rows_give_the_same(dtype, monkeypatch):
    p = _case("K = 20").make().to(dtype)
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 4 * 1003 * 16)
    monkeypatch.setattr(gradients, "SLICE_BYTES", 4 * 64 * 100)
    assert chunks.chunk_rows(40, 16) == 16
    assert_matches(ask(p, "cpu"), p)


@given(st.integers(1, 100_000), st.integers(1, 2_000))
def test_chunks_are_of_a_size(n, most):
    rows = chunks.chunk_rows(n, most)
    assert min(n, 8) <= rows <= max(8, most)
    assert -(-n // rows) <= -(-n // (max(8, most) // 8 * 8))


def _small():
    g = torch.Generator().manual_seed(1)
    p = problem(5, 23, 3, g, h=6)
    p.probs[2] = 0
    p.ids[3, 1], p.probs[3, 1] = -1, 0
    return p.hidden.double(), p.weight.double(), torch.randn(23, generator=g).double(), p.ids, p.probs.double()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_derivatives_of_the_definition(z_loss, softcap, reduction):
    *parameters, ids, probs = _small()
    parameters = [x.requires_grad_() for x in parameters]

    def loss(hidden, weight, bias):
        head = LmHead(weight, bias, 0.7, softcap)
        return soft_label_ce(hidden, head, ids, probs, reduction=reduction, z_loss=z_loss, backend="reference")

    assert torch.autograd.gradcheck(loss, parameters)


def test_reductions():
    p = _case("some rows ignored").make()
    loss_N = soft_label_ce(p.hidden, p.weight, p.ids, p.probs)
    assert loss_N.dtype == torch.float32
    total = soft_label_ce(p.hidden, p.weight, p.ids, p.probs, weight_N=p.rows, reduction="sum")
    mean = soft_label_ce(p.hidden, p.weight, p.ids, p.probs, reduction="mean", weight_N=p.rows)
    counted = p.rows != 0
    torch.testing.assert_close(total, (loss_N * p.rows)[counted].sum())
    torch.testing.assert_close(mean, total / 7)


def test_the_mean_of_float64_losses_is_float64():
    """1 / 3 in float32 would be off by 1e-8."""
    p = problem(3, 40, 2, torch.Generator().manual_seed(2), h=8)
    args = p.hidden.double(), p.weight.double(), p.ids, p.probs.double()
    loss_N = soft_label_ce(*args)
    for weight_N in (None, p.rows):
        weighted_N = loss_N if weight_N is None else loss_N * weight_N
        mean = soft_label_ce(*args, weight_N=weight_N, reduction="mean")
        torch.testing.assert_close(mean, weighted_N.mean(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_without_labels_the_loss_is_zero_and_has_gradients(reduction, backend):
    p = _case("all ignored").make()
    hidden, weight = p.hidden.requires_grad_(), p.weight.requires_grad_()
    loss = soft_label_ce(hidden, weight, p.ids, p.probs, reduction=reduction, z_loss=0.1, backend=backend)
    assert (loss == 0).all()
    loss.sum().backward()
    assert (hidden.grad == 0).all()
    assert (weight.grad == 0).all()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_nan_of_a_labelled_row_is_not_hidden(backend):
    p = _case("K = 20").make()
    p.hidden[2, 9] = torch.nan
    got = ask(p, backend, "none")
    assert got.loss.isnan().nonzero().tolist() == [[2]]
    assert got.hidden.isnan().any(1).nonzero().tolist() == [[2]]
    assert got.weight.isnan().all()


def test_what_is_left_behind_a_row_of_bf16_gradients_is_not_multiplied():
    """Logits whose lower halves read as NaN in bf16, where torch's product looks beyond the end of a row."""
    weight = torch.tensor([1.0, 2**-8, -(2**-17), *[0.0] * 61]).bfloat16().repeat(1003, 1)
    hidden = torch.ones(20, 64).bfloat16().requires_grad_()
    ids, probs = torch.zeros(20, 1, dtype=torch.int64), torch.ones(20, 1)
    soft_label_ce(hidden, weight, ids, probs, reduction="sum", backend="cpu").backward()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_label_that_cannot_occur(backend, softcap):
    p = _case("forbidden tokens").make()
    p.ids[1, 0], p.probs[1, 0] = 400, 0.5
    loss_N = soft_label_ce(p.hidden, LmHead(p.weight, p.bias, softcap=softcap), p.ids, p.probs, backend=backend)
    assert (loss_N == torch.inf).nonzero().tolist() == [[1]]


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_what_is_frozen_gets_no_gradient_and_no_work(reduction, monkeypatch):
    p = _case("bias, scale and soft-cap").make()
    required = []
    zeros = gradients.Gradients.zeros
    monkeypatch.setattr(gradients.Gradients, "zeros", lambda *args: (required.append(args[2]), zeros(*args))[1])
    everything = ask(p, "cpu", reduction)
    for trained in ("hidden", "weight", "bias"):
        required.clear()
        leaves = {name: getattr(p, name).detach().clone() for name in ("hidden", "weight", "bias")}
        leaves[trained].requires_grad_()
        head = LmHead(leaves["weight"], leaves["bias"], p.scale, p.softcap)
        loss = soft_label_ce(leaves["hidden"], head, p.ids, p.probs, weight_N=p.rows, reduction=reduction)
        loss.sum().backward()
        assert required[-1] == [name == trained for name in leaves]
        assert torch.equal(leaves[trained].grad, getattr(everything, trained))


def test_nothing_is_computed_for_a_gradient_that_nobody_wants(monkeypatch):
    p = _case("K = 20").make()
    monkeypatch.setattr(gradients.Gradients, "add_rows", None)
    weight = torch.nn.Parameter(p.weight)
    with torch.no_grad():
        total = soft_label_ce(p.hidden, weight, p.ids, p.probs, reduction="sum")
    assert not total.requires_grad
    assert not soft_label_ce(p.hidden, p.weight, p.ids, p.probs, reduction="sum").requires_grad


def test_what_flows_in_multiplies_and_a_second_backward_is_right():
    p = _case("K = 20").make()
    leaves = (p.hidden.requires_grad_(), p.weight.requires_grad_())
    once = torch.autograd.grad(soft_label_ce(*leaves, p.ids, p.probs, reduction="mean"), leaves)
    loss = soft_label_ce(*leaves, p.ids, p.probs, reduction="mean")
    for factor in (3.0, -0.5):
        again = torch.autograd.grad(loss * factor, leaves, retain_graph=True)
        for actual, first in zip(again, once, strict=True):
            torch.testing.assert_close(actual, factor * first)


def test_gradients_accumulate():
    p = _case("K = 20").make()
    hidden, weight = p.hidden, p.weight.requires_grad_()
    soft_label_ce(hidden, weight, p.ids, p.probs, reduction="sum").backward()
    whole, weight.grad = weight.grad, None
    for rows in (slice(0, 7), slice(7, 40)):
        soft_label_ce(hidden[rows], weight, p.ids[rows], p.probs[rows], reduction="sum").backward()
    torch.testing.assert_close(weight.grad, whole)


def test_there_is_no_second_derivative():
    p = _case("K = 20").make()
    loss = soft_label_ce(p.hidden.requires_grad_(), p.weight, p.ids, p.probs, reduction="sum")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, p.hidden, create_graph=True)


def test_autocast_rounds_nothing():
    p = _case("K = 20").make()
    plain = ask(p, "reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ask(p, "reference")
    assert torch.equal(got.loss, plain.loss)
    assert torch.equal(got.weight, plain.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_same_bits_whatever_the_threads(dtype):
    p = problem(50, 2003, 20, torch.Generator().manual_seed(2)).to(dtype)
    before = torch.get_num_threads()
    losses = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            losses.append(soft_label_ce(p.hidden, p.weight, p.ids, p.probs, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*losses)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_it_is_an_operator_that_traces(reduction):
    p = _case("z-loss with everything").make()

    def step(hidden, weight, bias):
        head = LmHead(weight * 2, bias, 0.5, 30.0)
        return soft_label_ce(hidden * 2, head, p.ids, p.probs, reduction=reduction, z_loss=0.01).sum() * 3

    leaves = [torch.nan_to_num(x, 0, 0).requires_grad_() for x in (p.hidden, p.weight, p.bias)]
    want = step(*leaves)
    expected = torch.autograd.grad(want, leaves)
    got = torch.compile(step, fullgraph=True, backend="aot_eager")(*leaves)
    assert torch.equal(got, want)
    for actual, other in zip(torch.autograd.grad(got, leaves), expected, strict=True):
        assert torch.equal(actual, other)


def test_opcheck():
    p = _case("K = 20").make()
    for rows, required in ((None, [False] * 3), (p.rows, [True, True, False])):
        leaves = (p.hidden.clone().requires_grad_(), p.weight.clone().requires_grad_())
        torch.library.opcheck(
            torch.ops.ssdfast.soft_label_ce.default,
            (*leaves, None, [1.0, 0.0], p.ids, p.probs, rows, 0.0, required, "cpu"),
            test_utils=("test_schema", "test_faketensor"),
        )


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20), v=st.sampled_from([1, 2, 15, 16, 17, 33, 1000, 2049]), k=st.integers(1, 9),
    h=st.integers(1, 70), size=st.sampled_from([0.0, 1.0, 5.0, 300.0]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_what_holds_for_any_labels(n, v, k, h, size, seed):
    """K = 1 of probability 1 is ``F.cross_entropy``; the loss is linear in the labels; slots have no order."""
    g = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(n, h, generator=g), torch.randn(v, h, generator=g) * size / h**0.5
    ids = torch.randint(0, v, (n, k), generator=g)
    logits, close = hidden @ weight.T, {"rtol": 1e-5, "atol": 1e-5 + 1e-6 * size}
    one = soft_label_ce(hidden, weight, ids[:, :1], torch.ones(n, 1), backend="cpu")
    torch.testing.assert_close(one, F.cross_entropy(logits, ids[:, 0], reduction="none"), **close)
    p, q = torch.rand(n, k, generator=g), torch.rand(n, k, generator=g)
    mixed, of_p, of_q = (soft_label_ce(hidden, weight, ids, x, backend="cpu") for x in (0.3 * p + 2 * q, p, q))
    torch.testing.assert_close(mixed, 0.3 * of_p + 2 * of_q, rtol=1e-5, atol=1e-4 + 1e-5 * size)
    order = torch.rand(n, k, generator=g).argsort(1)
    shuffled = soft_label_ce(hidden, weight, ids.gather(1, order), p.gather(1, order), backend="cpu")
    torch.testing.assert_close(shuffled, of_p, **close)


def _as_on_a_gpu(rounds):
    """Stands for torch.addmm on a GPU, which multiplies 16-bit operands into a float32 sum, or rounds it."""

    def addmm(x, a, b, *, out_dtype, out):
        assert out is x
        assert x.dtype == out_dtype == torch.float32
        assert a.dtype == b.dtype == torch.bfloat16
        product = a.float() @ b.float()
        return out.copy_((x.bfloat16() + product.bfloat16()).float() if rounds else x + product)

    return addmm


@pytest.mark.parametrize(("rounds", "expected"), [(False, True), (True, False)])
def test_a_device_that_rounds_the_sum_is_found_out(rounds, expected, monkeypatch):
    assert not gradients.adds_in_float32("cpu", torch.bfloat16)  # torch has no such product on a CPU
    monkeypatch.setattr(torch, "addmm", _as_on_a_gpu(rounds))
    assert gradients.adds_in_float32.__wrapped__("cpu", torch.bfloat16) is expected


def test_the_head_gradient_is_added_inside_the_product(monkeypatch):
    """Two chunks of 16-bit gradients: the same sum as by products that are added afterwards, and nothing else is."""
    g = torch.Generator().manual_seed(9)
    weight = torch.randn(50, 32, generator=g).bfloat16()
    chunks = [(torch.randn(n, 50, generator=g).bfloat16(), torch.randn(n, 32, generator=g).bfloat16()) for n in (5, 7)]

    def summed():
        sums = gradients.Gradients.zeros(chunks[0][1], gradients.LmHead(weight), [False, True, False])
        for grad_BV, hidden_BH in chunks:
            sums.add_rows(torch.arange(len(grad_BV)), grad_BV, hidden_BH, weight)
        return sums.weight_VH

    exact = sum(grad.double().T @ hidden.double() for grad, hidden in chunks)
    apart = summed()
    monkeypatch.setattr(torch, "addmm", _as_on_a_gpu(rounds=False))
    monkeypatch.setattr(gradients, "adds_in_float32", lambda device, dtype: True)
    monkeypatch.setattr(gradients, "_product", None)
    torch.testing.assert_close(summed().double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(apart.double(), exact, rtol=2e-2, atol=0.1)  # a CPU rounds each product to bf16


@pytest.mark.parametrize("value", ["0", "1.5", "-2", "much"])
def test_a_workspace_that_is_no_number_is_refused(value, monkeypatch):
    monkeypatch.setenv("SSDFAST_GPU_WORKSPACE_MB", value)
    with pytest.raises(
        ValueError, match=f"SSDFAST_GPU_WORKSPACE_MB must be a positive whole number of MiB, got '{value}'"
    ):
        gpu_workspace_bytes(5)


def test_a_workspace_is_the_default_or_the_setting(monkeypatch):
    assert gpu_workspace_bytes(5) == 5
    monkeypatch.setenv("SSDFAST_GPU_WORKSPACE_MB", "3")
    assert gpu_workspace_bytes(5) == 3 << 20
