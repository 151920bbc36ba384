"""What the caller gets wrong: one clear error each, and never another row's result."""

import dataclasses

import numpy as np
import pytest
import torch

from ssdfast.kernels import (
    LmHead,
    ProbeSpec,
    SamplingParams,
    linear_probe_stats,
    lm_head_logits,
    probe_stats,
    soft_label_ce,
)

from .cases import language_like

BACKENDS = [name for name in probe_stats.backends() if name != "triton"]  # the interpreter has its own tests


def _inputs(n=4, v=300):
    g = torch.Generator().manual_seed(3)
    return language_like(n, v, g), language_like(n, v, g), torch.arange(n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, y: (a[0], b, y), r"logits_base_NV must have shape \[N, V\]"),
        (lambda a, b, y: (a, b[:, :200], y), r"differ in shape: \[4, 300\] and \[4, 200\]"),
        (lambda a, b, y: (a, b[:3], y), "differ in shape"),
        (lambda a, b, y: (a, b.bfloat16(), y), "differ in dtype"),
        (lambda a, b, y: (a.long(), None, y), "must be bf16, fp16, fp32 or fp64"),
        (lambda a, b, y: (a.T[:, :4].T.T, None, y), "stride 300 along the vocabulary"),
        (lambda a, b, y: (a[:, :0], None, y), "empty vocabulary"),
        (lambda a, b, y: (a, b, y[:3]), r"token_N must be integer \[4\]"),
        (lambda a, b, y: (a, b, y.float()), "token_N must be integer"),
        (
            lambda a, b, y: (a, b, torch.tensor([0, 1, 300, 2])),
            r"token_N\[2\] must be in \[0, 299\], got 300",
        ),
        (lambda a, b, y: (a, b, torch.tensor([0, -1, 0, 2])), r"token_N\[1\] must be in \[0, 299\], got -1"),
        (lambda a, b, y: (a, b.to("meta"), y), "different devices"),
        (lambda a, b, y: (a, b, y.to("meta")), "token_N is on meta"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_mismatched_tensors(backend, change, message):
    with pytest.raises(ValueError, match=message):
        probe_stats(*change(*_inputs()), ProbeSpec(), backend=backend)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingParams(temperature=0), r"temperature must be in \[0.0001, 10000\], got 0"),
        (lambda: SamplingParams(temperature=-1), "temperature"),
        (lambda: SamplingParams(temperature=float("nan")), "temperature"),
        (lambda: SamplingParams(top_p=0), r"top_p must be in \(0, 1\]"),
        (lambda: SamplingParams(top_p=1.01), "top_p"),
        (lambda: SamplingParams(top_p=float("nan")), "top_p"),
        (lambda: SamplingParams(top_k=-1), "top_k"),
        (lambda: ProbeSpec(top_logprobs=0), r"top_logprobs must be in \[1, 128\]"),
        (lambda: ProbeSpec(top_logprobs=129), "top_logprobs must"),
        (lambda: ProbeSpec(sweeps=3), "sweeps must be 1 or 2"),
        (lambda: ProbeSpec(top_logprobs=10), "set top_logprobs to 20 or more"),
        (lambda: ProbeSpec(sweeps=1, train_sampling=SamplingParams()), "set sweeps to 2"),
        (lambda: ProbeSpec(lse_temperatures=(0.5, 0.0)), "lse_temperatures"),
        (lambda: ProbeSpec(token_class=torch.zeros(5)), "token_class must be a uint8 tensor"),
        (lambda: ProbeSpec(n_classes=3), "n_classes needs a token_class"),
    ],
)
def test_impossible_specifications(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_token_class_of_another_vocabulary():
    spec = ProbeSpec(token_class=torch.zeros(299, dtype=torch.uint8))
    with pytest.raises(ValueError, match="token_class has 299 entries for a vocabulary of 300"):
        probe_stats(*_inputs(), spec)


@pytest.mark.parametrize("n", [0, 4])
def test_unknown_backend(n):
    with pytest.raises(ValueError, match="backend must be one of reference"):
        probe_stats(*_inputs(n), ProbeSpec(), backend="cuda")


def test_float64_belongs_to_the_reference():
    a, b, token = _inputs()
    with pytest.raises(ValueError, match="use backend='reference'"):
        probe_stats(a.double(), b.double(), token, ProbeSpec(), backend="cpu")
    assert probe_stats(a.double(), b.double(), token).base.lse.dtype == torch.float64


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("SSDFAST_CPU", "neon")
    with pytest.raises(RuntimeError, match="cannot run the instruction set 'neon'"):
        probe_stats(*_inputs(), ProbeSpec(), backend="cpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sweeps", [1, 2])
def test_a_bad_row_changes_no_other(backend, poison, dtype, sweeps):
    spec = ProbeSpec(sweeps=sweeps)
    a, b, token = (x.to(dtype) if x.is_floating_point() else x for x in _inputs(5, 1200))
    clean = probe_stats(a, b, token, spec, backend=backend)
    for place in (0, 700, 1199):
        broken = a.clone()
        broken[2, place] = poison
        stats = probe_stats(broken, b, token, spec, backend=backend)
        others = torch.arange(5) != 2
        for group in ("base", "trained", "pair"):
            for name, column in vars(getattr(stats, group)).items():
                want = getattr(getattr(clean, group), name)
                assert torch.equal(column[others].nan_to_num(7), want[others].nan_to_num(7)), f"{group}.{name}"
                if group == "trained":
                    assert torch.equal(column[2].nan_to_num(7), want[2].nan_to_num(7)), f"trained.{name}"
                else:
                    lost = column[2].isnan() if column.is_floating_point() else column[2] == -1
                    assert lost.all(), f"{group}.{name}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_strides_are_honoured(backend):
    a, b, token = _inputs(6, 517)
    want = probe_stats(a[::2], b[1::2], token[:3], ProbeSpec(), backend="reference")
    wide = torch.full((6, 900), torch.nan)
    wide[:, 100:617] = a
    views = [(a[::2], b[1::2]), (wide[::2, 100:617], b[1::2])]
    for view_a, view_b in views:
        assert not view_a.is_contiguous()
        got = probe_stats(view_a, view_b, token[:3], ProbeSpec(), backend=backend)
        assert torch.allclose(got.pair.kl_base_trained, want.pair.kl_base_trained, rtol=1e-5)
        assert torch.equal(got.base.top_ids, want.base.top_ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_has_no_strides(backend):
    """numpy gives (0, 0)."""
    logits, hidden = (torch.from_numpy(np.zeros((0, size), np.float32)) for size in (300, 16))
    assert logits.stride() == (0, 0)
    token = torch.zeros(0, dtype=torch.int64)
    stats = probe_stats(logits, logits, token, backend=backend)
    assert stats.base.top_ids.shape == stats.pair.trained_logprobs_at_base_top.shape == (0, 20)
    head = torch.ones(300, 16)
    assert linear_probe_stats(hidden, head, hidden, head, token, backend=backend).pair.js.shape == (0,)
    assert lm_head_logits(hidden, LmHead(head), logits).shape == (0, 300)
    labels = torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1)
    assert soft_label_ce(hidden, head, *labels, reduction="mean", backend=backend) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_model_alone(backend):
    a, b, token = _inputs(3, 1000)
    spec = ProbeSpec(token_class=torch.arange(1000).remainder(7).to(torch.uint8))
    alone, both = (probe_stats(a, x, token, spec, backend=backend) for x in (None, b))
    assert alone.trained is None
    assert alone.pair is None
    for name, column in vars(alone.base).items():
        assert torch.allclose(column.double(), getattr(both.base, name).double(), rtol=1e-6), name


@pytest.mark.parametrize("n_classes", [1, 65, 256])
def test_many_classes(n_classes):
    a, b, token = _inputs(3, 2000)
    spec = ProbeSpec(token_class=torch.arange(2000).remainder(n_classes).to(torch.uint8))
    got, want = (probe_stats(a, b, token, spec, backend=name) for name in ("cpu", "reference"))
    assert got.base.class_mass.shape == (3, n_classes)
    assert torch.allclose(got.base.class_mass, want.base.class_mass, rtol=1e-5, atol=1e-7)


def test_class_names_may_outnumber_the_classes_in_use():
    a, b, token = _inputs()
    spec = ProbeSpec(token_class=torch.zeros(300, dtype=torch.uint8), n_classes=11)
    assert probe_stats(a, b, token, spec).base.class_mass.shape == (4, 11)
    assert dataclasses.replace(spec, top_logprobs=30).n_classes == 11
