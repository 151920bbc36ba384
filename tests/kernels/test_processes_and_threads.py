"""Forked workers, as a ``DataLoader`` has them, and threads that call at the same time get the bits of a call alone."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ssdfast.kernels import LmHead, ProbeSpec, linear_probe_stats, lm_head_logits, probe_stats, soft_label_ce
from ssdfast.kernels.linear_probe_stats import cpu as linear_backend

pytest.importorskip("ssdfast.kernels._C")

CALLERS, ROUNDS = 3, 12
DTYPES = [torch.float32, torch.bfloat16]


def _columns(stats):
    return [column.nan_to_num(7) for group in vars(stats).values() if group for column in vars(group).values()]


def _operands(seed, dtype):
    g = torch.Generator().manual_seed(seed)
    hidden, other = (torch.randn(24, 48, generator=g).to(dtype) for _ in range(2))
    head, other_head = (torch.randn(2311, 48, generator=g).to(dtype) / 4 for _ in range(2))
    return hidden, head, other, other_head, torch.randint(0, 2311, (24,), generator=g)


def _probe_stats(seed, dtype):
    hidden, head, other, other_head, token = _operands(seed, dtype)
    spec = ProbeSpec(token_class=(torch.arange(2311) % 5).to(torch.uint8))
    return _columns(probe_stats(hidden @ head.T, other @ other_head.T, token, spec, backend="cpu"))


def _linear_probe_stats(seed, dtype):
    return _columns(linear_probe_stats(*_operands(seed, dtype), backend="cpu"))


def _lm_head_logits(seed, dtype):
    hidden, head, *_ = _operands(seed, dtype)
    return [lm_head_logits(hidden, LmHead(head, softcap=9.0))]


def _soft_label_ce(seed, dtype):
    hidden, head, _, _, token = _operands(seed, dtype)
    hidden.requires_grad_()
    head.requires_grad_()
    ids, probs = torch.stack([token, (token + 1) % 2311], 1), torch.full((24, 2), 0.5)
    loss = soft_label_ce(hidden, head, ids, probs, reduction="mean", backend="cpu")
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, head))]


OPERATIONS = [_probe_stats, _linear_probe_stats, _lm_head_logits, _soft_label_ce]


def _wrong_rounds(operation, seed, dtype, want, start):
    """How often the answer differs from ``want``."""
    wrong = 0
    for _ in range(ROUNDS):
        start.wait(60)
        wrong += not all(map(torch.equal, operation(seed, dtype), want))
    return wrong


def _worker(operation, seed, dtype, want, start, answers):
    answers.put((seed, _wrong_rounds(operation, seed, dtype, want, start)))


@pytest.fixture
def one_thread():
    """As in a ``DataLoader``'s workers. The threads of OpenMP do not survive a fork, and torch's own operators wait for
    them for ever in a child of a process that used them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_forked_children_that_run_together_get_the_bits_of_the_parent(operation, dtype):
    """Each on its own operands, after a call of the parent, whose workspace they inherit."""
    if operation is _soft_label_ce and torch.version.cuda:
        pytest.skip("torch's CUDA builds have no backward pass in a fork of a process that had one")
    want = [operation(seed, dtype) for seed in range(CALLERS)]
    fork = multiprocessing.get_context("fork")
    start, answers = fork.Barrier(CALLERS), fork.SimpleQueue()
    children = [
        fork.Process(target=_worker, args=(operation, seed, dtype, want[seed], start, answers))
        for seed in range(CALLERS)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * CALLERS
    assert sorted(answers.get() for _ in children) == [(seed, 0) for seed in range(CALLERS)]
    assert all(map(torch.equal, operation(0, dtype), want[0]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_threads_that_call_together_get_the_bits_of_a_call_alone(operation, dtype):
    want = [operation(seed, dtype) for seed in range(CALLERS)]
    start = threading.Barrier(CALLERS)
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(_wrong_rounds, operation, seed, dtype, want[seed], start) for seed in range(CALLERS)]
        assert [call.result(120) for call in calls] == [0] * CALLERS


def test_a_call_inside_another_has_a_workspace_of_its_own(monkeypatch):
    """A signal handler, or a finaliser, may call in the middle of a call of the same thread."""
    want = [_linear_probe_stats(seed, torch.float32) for seed in (0, 1)]
    monkeypatch.setattr(linear_backend, "_thread", threading.local())
    whole, nested = linear_backend.cpu.probe_stats_packed, []

    def interrupted(*args):
        if not nested:
            nested.append(None)
            nested[0] = _linear_probe_stats(1, torch.float32)
        return whole(*args)

    monkeypatch.setattr(linear_backend.cpu, "probe_stats_packed", interrupted)
    assert all(map(torch.equal, _linear_probe_stats(0, torch.float32), want[0]))
    assert all(map(torch.equal, nested[0], want[1]))


def test_two_backwards_of_one_loss_at_once():
    """The gradients that came with the loss serve one of them, the other computes its own."""
    hidden, head, _, _, token = _operands(0, torch.float32)
    hidden.requires_grad_()
    ids, probs = token[:, None], torch.ones(24, 1)
    for _ in range(ROUNDS):
        loss = soft_label_ce(hidden, head, ids, probs, reduction="sum", backend="cpu")
        start = threading.Barrier(2)

        def gradient(factor, loss=loss, start=start):
            start.wait(60)
            return torch.autograd.grad(loss * factor, hidden, retain_graph=True)[0]

        with ThreadPoolExecutor(2) as pool:
            once, twice = pool.map(gradient, (1.0, 2.0))
        torch.testing.assert_close(twice, 2 * once)
