"""The claims about training: the gradient noise of both losses, what a step changes, and memory plans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import claims_plan
import training
from claim import Claim

from ssdfast.problems.reasoning_gym import chain_sums
from ssdfast.training.diagnostics import MIN_FRAC_CHANGED


def on_cpu() -> Iterator[Claim]:
    traces = training.examples(training.HOME / "traces", chain_sums(training.TRACES, 0))
    noise = training.gradient_noise(traces)
    for name, variance in noise.variances.items():
        signal = noise.means[name]
        batch = f"{variance / signal:.1f} traces" if signal > 0 else "undetermined"
        print(f"     {name}: variance {variance:.4g}, signal {signal:.4g}, simple critical batch {batch}")
    print("     cosine of the mean gradients: " + ", ".join(f"{c:.3f} of {n}" for n, c in noise.cosines.items()))
    what = f"per-trace gradient variance, sampled over soft labels ({training.TRACES} traces)"
    yield Claim(what, noise.ratio, 20, "x", at_least=True)
    agreement = noise.cosine_over_bound(len(traces))
    what = "cosine of the mean gradients, over the largest that the noise of sampled labels allows"
    yield Claim(what, agreement, 0.8, at_least=True)
    cosines = training.converging(traces[:6])
    text = ", ".join(f"{cosine:.4f} of {count:,}" for count, cosine in cosines.items())
    print(f"     and cosine with labels drawn again at the positions of 6 traces, labels per position: {text}")
    yield Claim("cosine with 10,000 labels per position", cosines[10_000], 0.99, at_least=True)
    changes = training.weight_changes(traces)
    nearest, stochastic = changes["bfloat16"], changes["stochastic rounding"]
    what = "fraction of weights that the sixth step at 1e-6 changes in bfloat16"
    yield Claim(what, nearest.frac_weights_changed, MIN_FRAC_CHANGED)
    yield Claim("the same in float32", changes["float32"].frac_weights_changed, 0.9, at_least=True)
    yield Claim("fraction of the update of six steps that remains in bfloat16", nearest.update_fraction, 0.5)
    yield Claim("the same with stochastic rounding", stochastic.update_fraction, 0.9, at_least=True)
    yield from held_out([0])
    yield from claims_plan.claims()


def held_out(seeds: Iterable[int]) -> Iterator[Claim]:
    """The effect of either loss on held-out traces."""
    for seed in seeds:
        ce = training.held_out(seed)
        print(
            f"     held-out CE(q, p) after {training.STEPS} steps, seed {seed}, nats per token: "
            + ", ".join(f"{name} {value:.4f}" for name, value in ce.items())
        )
        what = f"held-out cross-entropy of q, soft minus sampled labels, seed {seed}"
        yield Claim(what, ce["soft"] - ce["sampled"], 0)
        yield Claim("the same, soft labels minus the baseline", ce["soft"] - ce["baseline"], 0)


def on_gpu() -> Iterator[Claim]:
    """There are none: ``training_step`` measures a step, and the other bars are those of two CPU cores."""
    return iter(())
