"""The claims about training: the loss against bare matmuls, and the noise that the expected one takes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import claims_plan
import soft_label_ce
import training
from claim import Claim

from ssdfast.problems.reasoning_gym import chain_sums
from ssdfast.training.trainer import LEAST_CHANGED


def on_cpu() -> Iterator[Claim]:
    yield from soft_label_ce.claims()
    shown = training.examples(training.HOME / "traces", chain_sums(training.TRACES, 0))
    noise = training.gradient_noise(shown)
    for name, variance in noise.variances.items():
        signal = noise.means[name]
        batch = f"{variance / signal:.1f} traces" if signal > 0 else "undetermined"
        print(f"     {name}: variance {variance:.4g}, signal {signal:.4g}, simple critical batch {batch}")
    print("     cosine of the mean gradients: " + ", ".join(f"{c:.3f} of {n}" for n, c in noise.cosines.items()))
    what = f"per-trace gradient variance, sampled over expected labels ({training.TRACES} traces)"
    yield Claim(what, noise.ratio, 20, "x", at_least=True)
    agree = noise.cosine_over_allowed(len(shown))
    yield Claim("cosine of the mean gradients, over what the noise of sampled labels allows", agree, 0.8, at_least=True)
    cosines = training.converging(shown[:6])
    told = ", ".join(f"{cosine:.4f} of {count:,}" for count, cosine in cosines.items())
    print(f"     and with labels drawn again at the positions of 6 traces, so many each: {told}")
    yield Claim("the cosine with 10,000 labels a position", cosines[10_000], 0.99, at_least=True)
    moved = training.moved(shown)
    nearest, chance = moved["bfloat16"], moved["rounded by chance"]
    yield Claim("share of weights that the sixth step at 1e-6 changes in bfloat16", nearest.share, LEAST_CHANGED)
    yield Claim("and in float32", moved["float32"].share, 0.9, at_least=True)
    yield Claim("movement of six steps that is left in bfloat16", nearest.kept, 0.5)
    yield Claim("and where it is rounded by chance", chance.kept, 0.9, at_least=True)
    yield from held_out([0])
    yield from claims_plan.claims()


def held_out(seeds: Iterable[int]) -> Iterator[Claim]:
    """What either loss does to traces that it was not shown."""
    for seed in seeds:
        ce = training.held_out(seed)
        print(
            f"     held-out CE(q, p) after {training.STEPS} steps, seed {seed}, nats a token: "
            + ", ".join(f"{name} {value:.4f}" for name, value in ce.items())
        )
        what = f"held-out cross-entropy of q, expected less sampled labels, seed {seed}"
        yield Claim(what, ce["soft"] - ce["sampled"], 0)
        yield Claim("and less the baseline", ce["soft"] - ce["baseline"], 0)


def on_gpu() -> Iterator[Claim]:
    yield from soft_label_ce.claims()
