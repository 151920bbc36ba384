"""attribution.json and decoding_curves.json: what the shift of each arm is made of, and its effect under decoding.

Components are ``ssd``, ``temperature``, ``eos_bias`` and ``residual``; nats are per position.
"""

from __future__ import annotations

from typing import Literal

from ..config import PositionClassConfig, SamplingParams
from .base import Interval, JsonFile, Record

Component = Literal["ssd", "temperature", "eos_bias", "residual"]
COMPONENT_TITLES: dict[Component, str] = {
    "ssd": "self-distillation",
    "temperature": "temperature",
    "eos_bias": "EOS bias",
    "residual": "residual",
}
"""as figures name them"""


class AttributionSettings(Record):
    """The settings that all probes have in common."""

    baseline: str
    train_sampling: SamplingParams
    top_logprobs: int
    lse_temperatures: tuple[float, ...]
    position_classes: PositionClassConfig
    eval_sampling: SamplingParams


class ComponentSize(Record):
    """The size of a component."""

    nats: Interval
    fraction: Interval
    """Of the whole shift."""


class FitParameters(Record):
    """The parameters of the joint fit."""

    ssd_strength: Interval
    """s, if the trained model were (1 - s) baseline + s q."""
    temperature: Interval
    eos_log_odds: Interval


class ClassParameters(FitParameters):
    """Those of one class of positions."""

    position_class: str
    positions: int


class SeedParameters(Record):
    """Those of one trained model."""

    probe: str
    ssd_strength: float
    temperature: float
    eos_log_odds: float


class SingleFit(Record):
    """A component fitted alone: its parameters, and the fraction of the shift that it leaves unexplained."""

    ssd_strength: float | None = None
    temperature: float | None = None
    eos_log_odds: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    unexplained_fraction: float | None


class Shift(FitParameters):
    """The shift of an arm from the baseline."""

    kl_trained_base: Interval
    """KL(trained ‖ baseline), in nats per position."""
    by_position_class: list[ClassParameters]
    components: dict[Component, ComponentSize]
    residual_seed_correlation: float | None
    """Correlation of the residual between seeds; None with one seed."""
    by_seed: list[SeedParameters]
    single_component_fits: dict[Literal["ssd", "temperature", "eos_bias", "truncation"], SingleFit]


class GroupMetrics(Record):
    """Every metric over a group of positions."""

    group_kind: str
    group: str
    positions: int
    kl_trained_base: Interval
    kl_base_trained: Interval
    ssd_variance_fraction: Interval
    ssd_alignment: Interval
    ssd_strength: Interval
    ce_compression: Interval
    ce_reshaping: Interval
    ce_alignment: Interval
    tempering: Interval
    eos_bias: Interval


class MetricTest(Record):
    """A test of a metric against the control."""

    group_kind: str
    group: str
    metric: str
    arm: float | None
    control: float | None
    difference: Interval
    effect_size_sd: float | None
    """In standard deviations over problems."""
    p_value: float | None
    p_value_holm: float | None


class ClassTest(Record):
    """A test of a component in one class of positions."""

    position_class: str
    difference: Interval
    p_value: float | None
    p_value_holm: float | None


class ComponentTest(Record):
    """A test of a component against the control."""

    component: Component
    parameter: str | None = None
    """The parameter of the fit that the component has; the residual has none."""
    p_value: float | None
    p_value_holm: float | None
    by_position_class: tuple[ClassTest, ...] = ()


class ParameterDifference(Interval):
    """A parameter of the fit minus the control's."""

    seed_sd: float | None
    """The standard deviation between trainings of one arm; None with one seed of each."""
    mde: float | None
    """The minimum detectable difference at a power of 80 %."""


class ControlComparison(Record):
    """An arm beside the control."""

    parameters: dict[str, ParameterDifference]
    components: dict[Component, Interval]
    """Nats beyond the control's."""
    drop_one: dict[Component, Interval]
    """Nats that the joint fit loses without the component, beyond the control's."""
    tests: list[ComponentTest]
    metrics: list[MetricTest]
    """Over all positions."""
    groups: list[MetricTest]
    """Of three metrics in every group."""


class Verdict(Record):
    """What shifted an arm beyond the control."""

    category: Literal["ssd", "temperature", "eos_bias", "residual", "mixture", "none", "undecided"]
    scope: Literal["models", "recipes"]
    """Whether it is about these trained models or about the recipes."""
    components: list[Component]
    """Those that are named."""
    position_classes: dict[Component, list[str]]
    """Where each of them acts."""
    fractions: dict[Component, float | None]
    """Of the significant shift beyond the control."""
    contradicted_by: SingleFit | None
    """The sampling parameters that explain the shift better than `train_sampling`."""
    headline: str
    text: str


class ArmResults(Record):
    """The results of an arm."""

    seeds: int
    invalid: int
    """Number of positions without finite logits."""
    failed: int
    """Number of traces that a model failed on."""
    shift: Shift
    by_group: list[GroupMetrics]
    vs_control: ControlComparison | None = None
    """None of the control."""
    verdict: Verdict | None = None
    """None of the control."""


class AttributionResults(JsonFile):
    """attribution.json."""

    control: str
    settings: AttributionSettings
    traces: int
    problems: int
    arms: dict[str, ArmResults]


class MassBin(Interval):
    """An interval over the positions of a bin."""

    position_fraction: float | None


class ModelCurves(Record):
    """The curves of one model; values are means over positions."""

    cumulative_mass: list[Interval]
    """By rank."""
    surviving_tokens: list[Interval]
    """By temperature."""
    entropy: list[Interval]
    """By temperature, in nats."""
    entropy_by_top_mass: list[MassBin]
    """By mass of the top list, in nats."""


class Truncation(Record):
    """Top-k and top-p of the curves."""

    top_k: int
    top_p: float


class Curves(Record):
    """The effect of a shift under decoding."""

    temperatures: list[float]
    top_mass_edges: list[float]
    truncation: Truncation
    baseline: ModelCurves | None
    trained: ModelCurves | None


class DecodingCurves(JsonFile):
    """decoding_curves.json."""

    arms: dict[str, Curves]
