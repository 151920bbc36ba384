"""Diagnostics of a step: weights that changed and by how much, noise and signal of the gradient."""

import pytest
import torch
from torch.nn import Linear, Parameter

from ssdfast.training.diagnostics import SAMPLE_SIZE, DeadSteps, NoiseScale, WeightWatch, _ulp, warmup_warning


def change_by(dtype, ulps, fraction):
    weight = Parameter(torch.ones(1000, dtype=dtype))
    watch = WeightWatch([weight])
    watch.record()
    with torch.no_grad():
        weight[: int(1000 * fraction)] += ulps * torch.finfo(dtype).eps
    return watch.compare()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("ulps", "fraction"), [(1, 0.25), (8, 1.0)])
def test_changes_are_counted_and_measured(dtype, ulps, fraction):
    change = change_by(dtype, ulps, fraction)
    assert change.frac_changed == fraction
    assert change.median_ulps == ulps


def test_an_update_below_half_an_ulp_changes_nothing():
    """What happens to weights in bfloat16 at a learning rate of 1e-6."""
    weight = Parameter(torch.ones(1000, dtype=torch.bfloat16))
    watch = WeightWatch([weight])
    watch.record()
    with torch.no_grad():
        weight += 1e-3
    assert watch.compare().frac_changed == 0
    assert watch.compare().median_ulps == 0


def test_a_sampled_tensor_counts_by_its_size():
    """Nine tenths of the weights are in a large tensor that changes, the rest in a small one that does not."""
    large, small = Parameter(torch.zeros(9 * 10 * SAMPLE_SIZE)), Parameter(torch.zeros(10 * SAMPLE_SIZE))
    watch = WeightWatch([large, small])
    watch.record()
    with torch.no_grad():
        large += 1
    assert watch.compare().frac_changed == pytest.approx(0.9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ulps_of_16_bit_numbers_are_the_distances_to_the_next_number(dtype):
    bits = torch.arange(1, 0x7B00 if dtype == torch.float16 else 0x7F00, 37, dtype=torch.int16)
    values, following = bits.view(dtype), (bits + 1).view(dtype)
    want = following.double() - values.double()
    torch.testing.assert_close(_ulp(values), want, rtol=0, atol=0)
    torch.testing.assert_close(_ulp(-values), want, rtol=0, atol=0)


def test_ulps_of_32_bit_numbers():
    values = torch.tensor([1.0, -1.0, 0.75, 3e5])
    assert _ulp(values).tolist() == [2**-23, 2**-23, 2**-24, 2**-5]


def run(noise, signal, steps, sizes, seed=0):
    """Gradients whose token noise has the trace `noise`, about a true gradient of the square `signal`."""
    rng = torch.Generator().manual_seed(seed)
    layer = Linear(50, 1, bias=False)
    true = torch.full((1, 50), (signal / 50) ** 0.5)
    scale = NoiseScale(layer.parameters())
    total, result = sum(sizes), None
    for _ in range(steps):
        layer.weight.grad = None
        for size in sizes:
            gradient = true + (noise / 50 / size) ** 0.5 * torch.randn(1, 50, generator=rng)
            (layer.weight * gradient * size / total).sum().backward()
            scale.end_micro_batch(size)
        result = scale.end_step(float(layer.weight.grad.norm()))
    scale.close()
    return result


@pytest.mark.parametrize("sizes", [[10] * 8, [5, 10, 20, 45], [100, 1]])
def test_noise_and_signal_are_what_was_put_in(sizes):
    results = [run(noise=300.0, signal=2.0, steps=40, sizes=sizes, seed=seed) for seed in range(30)]
    noise, signal = torch.tensor(results).mean(0).tolist()
    assert noise == pytest.approx(300.0 / sum(sizes), rel=0.15)
    assert signal == pytest.approx(2.0, rel=0.15, abs=0.1 * noise)


def test_the_first_steps_are_not_drawn_to_zero():
    noise, signal = run(noise=0.0, signal=2.0, steps=1, sizes=[10, 30])
    assert noise == pytest.approx(0.0, abs=1e-5)
    assert signal == pytest.approx(2.0)


def test_a_single_micro_batch_gives_no_estimate():
    assert run(noise=1.0, signal=1.0, steps=3, sizes=[10]) is None


def test_a_step_that_is_not_finite_is_ignored():
    layer = Linear(2, 1, bias=False)
    scale = NoiseScale(layer.parameters())
    for value in (1.0, float("nan"), 1.0):
        layer.weight.grad = None
        for _ in range(2):
            (layer.weight.sum() * value / 2).backward()
            scale.end_micro_batch(5)
        result = scale.end_step(float(layer.weight.grad.norm()))
    assert result == pytest.approx((0.0, 2.0), abs=1e-6)


def test_a_tied_weight_is_counted_once():
    """Its gradient comes from two places, as that of an embedding that is the head too."""
    weight = Parameter(torch.ones(3))
    scale = NoiseScale([weight])
    for _ in range(2):
        (weight.sum() / 4 + weight.sum() / 4).backward()
        scale.end_micro_batch(1)
    assert scale.end_step(float(weight.grad.norm())) == pytest.approx((0.0, 3.0), abs=1e-6)


def test_steps_at_a_learning_rate_of_0_are_not_dead():
    dead = DeadSteps(1e-5)
    assert not dead.add(0.0, 0.0)
    assert not dead.add(0.0, 9e-8)  # at the end of a schedule that falls to 0
    assert not dead.add(0.99, 1e-5)
    assert dead.count == 0
    assert dead.add(0.001, 1e-5)


def test_a_run_that_stays_dead_is_warned_of_again_and_again_but_not_at_every_step():
    dead = DeadSteps(1e-5)
    assert [step for step in range(1, 1200) if dead.add(0.001, 1e-5)] == [1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("steps", "warmup_steps", "sentence"),
    [
        (1, 1, "the only step has learning rate 0"),
        (1, 250, "the only step has learning rate 0"),
        (2, 2, "all 2 steps are warm-up (warmup_steps=2): the learning rate ends at 5e-06 and never reaches 1e-05"),
        (4, 5, "all 4 steps are warm-up (warmup_steps=5): the learning rate ends at 6e-06 and never reaches 1e-05"),
        (1, 0, ""),
        (2, 1, ""),
        (6, 5, ""),
    ],
)
def test_a_run_within_its_warm_up(steps, warmup_steps, sentence):
    warning = warmup_warning(steps, warmup_steps, 1e-5)
    assert warning.startswith(sentence)
    assert bool(warning) == bool(sentence)
