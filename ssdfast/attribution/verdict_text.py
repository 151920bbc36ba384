"""The sentences of a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import SamplingParams
from ..number_format import format_interval, format_p_value
from .power import ALPHA, FEWEST_PROBLEMS, detectable_in_seed_sds, seeds_needed
from .verdict_rules import MIN_FRACTION, MODELS, NONE, UNDECIDED, Design, is_significant

_TITLES = {
    "ssd": "self-distillation",
    "temperature": "a temperature change",
    "eos_bias": "an EOS bias",
    "residual": "a residual that no component explains",
}
_CLASSES = {
    "clear_lock": "clear locks",
    "close_lock": "close locks",
    "fork": "forks",
    "diffuse": "diffuse positions",
    "clear_mixed": "clear mixed positions",
    "mixed": "mixed positions",
}


def format_headline(control: str, outcome: Mapping[str, Any], is_smaller: bool, design: Design) -> str:
    """is_smaller: the arm's whole shift is smaller than the control's."""
    headline = _format_effect(control, outcome, is_smaller, design)
    if outcome["contradicted_by"]:
        headline += "; the data contradict train_sampling"
    return headline


def _format_effect(control: str, outcome: Mapping[str, Any], is_smaller: bool, design: Design) -> str:
    models = outcome["scope"] == MODELS
    if outcome["category"] == UNDECIDED:
        return f"undecided: {design.problems} problems are too few for a test, at least {FEWEST_PROBLEMS} are needed"
    if outcome["category"] == NONE:
        return f"its one model shows no effect beyond that of {control}" if models else f"no effect beyond {control}"
    fractions = outcome["fractions"]
    named = sorted(outcome["components"], key=lambda component: -(fractions[component] or 0.0))
    is_mixture = len(named) > 1
    components = ", ".join(
        _TITLES[component] + _format_fraction(fractions[component], is_mixture) for component in named
    )
    effect = f"a mixture of {components}" if is_mixture else components
    if is_smaller:
        effect += f", though its whole shift is smaller than that of {control}"
    where = _format_classes(outcome)
    return f"its one model differs from that of {control} by {effect}{where}" if models else f"{effect}{where}"


def _format_fraction(fraction: float | None, is_mixture: bool) -> str:
    if fraction is None or not is_mixture:
        return ""
    return f" ({fraction:.0%}{', against the others' if fraction < 0 else ''})"


def _format_classes(outcome: Mapping[str, Any]) -> str:
    """Where self-distillation acts, unless it is everywhere."""
    classes = outcome["position_classes"].get("ssd")
    if not classes or len(classes) == len(_CLASSES):
        return ""
    prefix = " with self-distillation" if len(outcome["components"]) > 1 else ""
    return f"{prefix} at {_join([_CLASSES[name] for name in classes])}"


def format_text(
    headline: str,
    control: str,
    outcome: Mapping[str, Any],
    design: Design,
    shift: Mapping[str, Any],
    comparison: Mapping[str, Any],
    train_sampling: SamplingParams,
) -> str:
    """The whole paragraph."""
    sentences = [
        headline,
        _format_design(design, control),
        _format_contradiction(outcome["contradicted_by"], shift, train_sampling),
        _format_evidence(shift, comparison),
        _format_components(shift, control, comparison),
        _format_sensitivity(outcome, design, comparison),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _format_design(design: Design, control: str) -> str:
    if design.scope == MODELS:
        sds = {seeds: detectable_in_seed_sds(seeds, design.tests) for seeds in (3, 5)}
        return (
            f"With one seed of this arm and one of {control}, this is about these two models and not about the recipes:"
            " other trainings of the same recipes may differ as much. To compare the recipes, train at least 3 seeds of"
            f" each, which detect differences of {sds[3]:.1f} standard deviations between trainings of one recipe"
            f" (5 seeds: {sds[5]:.1f}), with a power of 80 %."
        )
    if 1 in (design.seeds, design.control_seeds):
        one = "this arm" if design.seeds == 1 else control
        return f"There is one seed of {one}, which is taken to vary between trainings as much as the other arm's seeds."
    return ""


def _format_contradiction(
    better: Mapping[str, Any] | None, shift: Mapping[str, Any], train_sampling: SamplingParams
) -> str:
    if better is None:
        return ""
    reached, explained = 1 - better["unexplained_fraction"], 1 - shift["components"]["residual"]["fraction"]["value"]
    sampling = _format_sampling(better["temperature"], better["top_k"], better["top_p"])
    return (
        f"The data contradict train_sampling: self-distillation alone from samples at {sampling}"
        f" explains {reached:.0%} of the shift, and all components at the configured"
        f" {_format_sampling(train_sampling.temperature, train_sampling.top_k, train_sampling.top_p)} explain"
        f" {explained:.0%}. Check which parameters the training samples were drawn with, and probe again with these."
    )


def _format_sampling(temperature: float, top_k: int, top_p: float) -> str:
    return f"temperature {temperature:.2g}, top-k {top_k} and top-p {top_p:.2g}"


def _format_evidence(shift: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    text = (
        f"Its shift from the baseline, KL(trained ‖ baseline), is {format_interval(shift['kl_trained_base'])} nats per"
        " position (95 % intervals)."
    )
    p_values = ", ".join(
        f"{_TITLES[test['component']]} {format_p_value(test['p_value_holm'])}" for test in comparison["tests"]
    )
    text += f" Corrected p-values of a difference from the control: {p_values}."
    significant = [test for test in comparison["metrics"] if is_significant(test)]
    if not significant:
        return text + " No metric over all positions differs significantly from the control's."
    largest = significant[0]
    return text + (
        f" {len(significant)} of {len(comparison['metrics'])} metrics differ from the control's; the largest effect is"
        f" {largest['metric']}, {format_interval(largest['difference'])}."
    )


def _format_components(shift: Mapping[str, Any], control: str, comparison: Mapping[str, Any]) -> str:
    components = ", ".join(
        f"{_TITLES[component]} {format_interval(interval)}" for component, interval in comparison["components"].items()
    )
    classes = ", ".join(
        f"{_CLASSES[entry['position_class']]} {format_interval(entry['ssd_strength'])}"
        for entry in shift["by_position_class"]
    )
    titles = {**_TITLES, "truncation": "any temperature, top-k and top-p"}
    unexplained = ", ".join(
        f"{titles[name]} {fit['unexplained_fraction']:.0%}"
        for name, fit in shift["single_component_fits"].items()
        if fit["unexplained_fraction"] is not None
    )
    return (
        f"Fitted together, the components have strength s = {format_interval(shift['ssd_strength'])} ({classes}),"
        f" temperature {format_interval(shift['temperature'])} and an EOS bias of"
        f" {format_interval(shift['eos_log_odds'])} log-odds. Beyond {control} they explain, in nats per position:"
        f" {components}."
        + (f" Fitted alone, they leave unexplained of the whole shift: {unexplained}." if unexplained else "")
    )


def _format_sensitivity(outcome: Mapping[str, Any], design: Design, comparison: Mapping[str, Any]) -> str:
    if outcome["category"] == UNDECIDED:
        return "The verdict would change with more problems: raise num_probe_traces or the number of eval_problems."
    rule = (
        f" A component is named if its test against the control has a corrected p-value of at most {ALPHA:g} and it"
        f" explains {MIN_FRACTION:.0%} of what all such components explain beyond the control."
    )
    if outcome["category"] == NONE:
        smaller = [_TITLES[test["component"]] for test in comparison["tests"] if is_significant(test)]
        text = f"Significant but no larger than the control's: {_join(smaller)}. " if smaller else ""
        return (
            f"{text}The verdict would change if a component were named.{rule}{_format_detectable(design, comparison)}"
        )
    others = [test["component"] for test in comparison["tests"] if test["component"] not in outcome["components"]]
    changes = [f"{_join([_TITLES[component] for component in outcome['components']], 'or')} no longer met this rule"]
    if others:
        changes.append(f"{_join([_TITLES[component] for component in others], 'or')} met it")
    return f"{rule.strip()} The verdict would change if {_join(changes, 'or')}."


def _format_detectable(design: Design, comparison: Mapping[str, Any]) -> str:
    strength = comparison["parameters"]["ssd_strength"]
    if strength["mde"] is None:
        return ""
    text = f" The minimum detectable strength beyond the control is {strength['mde']:.2g} (power 80 %)."
    observed, deviation = strength["value"], strength["seed_sd"]
    if design.scope == MODELS or not deviation or not observed:
        return text
    seeds = seeds_needed(abs(observed), deviation, design.tests)
    many = "more than 1,000" if seeds is None else f"{seeds:,}"
    return f"{text} A difference as large as the observed {observed:+.2g} would need about {many} seeds per arm."


def _join(texts: Sequence[str], conjunction: str = "and") -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {conjunction} {texts[-1]}"
