"""The text of a study's page: its title, its first sentences, names of metrics and components."""

from __future__ import annotations

from ..number_format import NBSP, format_interval
from ..schemas import COMPONENT_TITLES, AttributionResults, Verdict
from .format_text import Metric
from .study import Study

_EFFECTS = {
    "ssd": "self-distillation",
    "temperature": "a temperature change",
    "eos_bias": "an EOS bias",
    "residual": "a residual",
}
CATEGORIES: dict[str, str] = {
    **{str(name): title for name, title in COMPONENT_TITLES.items()},
    "mixture": "a mixture",
    "none": "no effect",
    "undecided": "undecided",
}

METRICS = {
    metric.key: metric
    for metric in (
        Metric("kl_trained_base", "Shift", "KL(trained ‖ baseline), nats per position"),
        Metric("kl_base_trained", "Reverse KL", "KL(baseline ‖ trained), nats per position"),
        Metric(
            "ssd_variance_fraction", "Fraction along self-distillation", "of the shift's variance, either way",
            percent=True,
        ),
        Metric("ssd_alignment", "Alignment", "mean correlation with the prediction", signed=True),
        Metric("ssd_strength", "Strength", "s, if the model were (1 − s) baseline + s q", signed=True),
        Metric("ce_compression", "Support compression", "first loss term, trained − baseline, nats", signed=True),
        Metric("ce_reshaping", "Reshaping in the support", "second loss term, trained − baseline, nats", signed=True),
        Metric("ce_alignment", "Alignment of the head", "third loss term, trained − baseline, nats", signed=True),
        Metric("tempering", "Tempering", "E[log p of the baseline], trained − baseline, nats", signed=True),
        Metric("eos_bias", "EOS bias", "probability to end the text or the thinking, trained − baseline", signed=True),
    )
}  # fmt: skip
GROUP_KINDS = {
    "lock_kind": "By kind of lock",
    "position_class": "By position class",
    "token_class": "By token class",
    "tokens_to_think_end": "By tokens to the end of thinking",
    "correct": "By correctness of the trace",
}


def format_title(attribution: AttributionResults) -> str:
    """A sentence made from the verdicts."""
    control = attribution.control
    verdicts = {name: arm.verdict for name, arm in attribution.arms.items() if arm.verdict}
    if not verdicts:
        return "There is only a control: add an arm to compare with it"
    effects = {name: _effect(verdict) for name, verdict in verdicts.items() if verdict.components}
    if all(verdict.category == "undecided" for verdict in verdicts.values()):
        return f"Undecided: {attribution.problems:,} problems are too few to compare the arms"
    models = all(verdict.scope == "models" for verdict in verdicts.values())
    if not effects:
        return f"No {'trained model' if models else 'arm'} shows an effect beyond {control}"
    by_effect: dict[str, list[str]] = {}
    for name, effect in effects.items():
        by_effect.setdefault(effect, []).append(name)
    clauses = [
        f"{_join(names)} {'shows' if len(names) == 1 else 'show'} {effect}" for effect, names in by_effect.items()
    ]
    sentence = f"{'; '.join(clauses)} beyond {control}"
    is_only = len(effects) == 1 < len(verdicts)
    if models:
        return f"One model of each arm: {'only ' if is_only else ''}{sentence}"
    return f"Only {sentence}" if is_only else sentence


def format_lead(study: Study) -> list[str]:
    """The sentences under the title."""
    attribution = study.attribution
    trainings = len(study.trainings)
    control = attribution.arms[study.control]
    positions = next(entry.positions for entry in control.by_group if entry.group_kind == "all")
    return [
        f"{trainings} trained models of {len(study.arms)} arms were compared with one baseline at {positions:,} "
        f"positions of {attribution.traces:,} answers of the baseline to {attribution.problems:,} problems. "
        f"The shift of the control, the arm {study.control}, trained on the same prompts at temperature 1 without "
        f"truncation, is {format_interval(control.shift.kl_trained_base)} nats per position; the verdicts "
        "explain shifts beyond that.",
        f"Brackets hold 95{NBSP}% intervals, over problems"
        + (" and trainings" if trainings > len(study.arms) else "")
        + ". Each verdict ends with what would change it."
        + ("" if trainings > len(study.arms) else " One training of each arm says nothing about another training."),
    ]


def format_category(verdict: Verdict) -> str:
    """In a few words; with one training of an arm and of the control it is about these models."""
    category = CATEGORIES[verdict.category]
    return f"{category} (one model each)" if verdict.scope == "models" else category


def _effect(verdict: Verdict) -> str:
    """The component that is named, or those of a mixture."""
    return _join([_EFFECTS[component] for component in verdict.components])


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
