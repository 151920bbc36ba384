"""A memory plan as text, as JSON and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ... import run_dir
from ...config import PlanConfig, TrainConfig
from ...plot_style import pyplot, style
from .meta_step import CATEGORIES, LAYER
from .plan import SETTINGS, StepPlan, plan, plan_alternatives

ASSUMPTIONS = (
    "Included: the tensors of one trace of each length with all positions scored, and torch's flash attention, norms,"
    " MLPs and delta rule. Not included: fragmentation in the allocator, and CUDA itself, about 1 GB."
)
_COLOURS = ("#0072b2", "#56b4e9", "#cc79a7", "#d55e00", "#009e73", "#e69f00", "#888888")
_INK = "#444444"
_WIDTH = 66


def report(config: PlanConfig, out: Path | None) -> Iterator[str]:
    """The lines of a plan, each as soon as it is known. With `out`, also writes plan.json and plan.svg.

    Raises ValueError for settings or a model that cannot be planned.
    """
    if out:
        with pyplot():  # or it raises before any work
            pass
    plans = plan(config)
    yield format_table(config, plans)
    all_plans = plans
    if config.compare_settings:
        yield ""
        alternatives: list[StepPlan] = []
        for row in plan_alternatives(config):
            yield from format_comparison(config, row, with_header=not alternatives)
            alternatives += row
        all_plans = [*plans, *(alternative for alternative in alternatives if alternative not in plans)]
    yield f"\n{ASSUMPTIONS}"
    if out:
        run_dir.write_json(out / "plan.json", plan_json(config, all_plans))
        save_figure(config, plans, out / "plan.svg")
        yield f"numbers and figure: {out}"


def format_table(config: PlanConfig, plans: Sequence[StepPlan]) -> str:
    """A table of GB by category and length."""
    recomputes = config.activation_checkpointing != "none"
    layer = "one layer's recomputation" if recomputes else "one layer's computation"
    lines = [f"{config.model}, {format_settings(plans[0].settings)}", _line("GB, at tokens", _lengths(plans))]
    for category in CATEGORIES:
        name = layer if category == LAYER else category
        lines.append(_line(name, [_gb(step.by_category[category]) for step in plans]))
    lines.append(_line("peak", [_gb(step.peak) for step in plans]))
    lines.append(_line(f"fits {config.device_gb:g} GB", [_fits(step, config) for step in plans]))
    if config.device == "cuda":
        lines.append(_line("on the host", [_gb(step.host) for step in plans]))
    return "\n".join(lines)


def format_comparison(config: PlanConfig, plans: Sequence[StepPlan], with_header: bool) -> Iterator[str]:
    """A line of a table of settings by length, with the header before it for the first one."""
    if with_header:
        yield _line(f"peak GB, fits {config.device_gb:g} GB or not", _lengths(plans))
    yield _line(format_settings(plans[0].settings), [f"{_gb(step.peak)} {_fits(step, config):3}" for step in plans])


def format_settings(settings: TrainConfig) -> str:
    parts: list[str] = [settings.optimizer]
    if settings.offload_optimizer:
        parts.append("offload_optimizer")
    if settings.activation_checkpointing != "none":
        parts.append(f"checkpointing {settings.activation_checkpointing}")
    if settings.sequence_tile_size:
        parts.append(f"tiles {settings.sequence_tile_size}")
    return ", ".join(parts)


def plan_json(config: PlanConfig, plans: Sequence[StepPlan]) -> dict[str, Any]:
    """The numbers as JSON."""
    rows = [
        {
            "seq_length": step.seq_length,
            **{name: getattr(step.settings, name) for name in SETTINGS},
            "peak_bytes": step.peak,
            "host_bytes": step.host,
            "fits": _fits(step, config) == "yes",
            "peak_bytes_by_category": {
                category.replace(" ", "_"): step.by_category[category] for category in CATEGORIES
            },
        }
        for step in plans
    ]
    names = ("model", "device", "device_gb", "labels_per_position")
    return {**{name: getattr(config, name) for name in names}, "plans": rows}


def save_figure(config: PlanConfig, plans: Sequence[StepPlan], path: Path) -> None:
    """SVG: the peak by category, stacked, against the length. Raises ValueError without matplotlib."""
    names = [f"{step.seq_length:,}" for step in plans]
    with pyplot() as plt, plt.rc_context(style(_INK)):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        bottom = [0.0] * len(plans)
        for category, colour in zip(CATEGORIES, _COLOURS, strict=True):
            heights = [step.by_category[category] / 1e9 for step in plans]
            axes.bar(names, heights, 0.6, bottom=bottom, color=colour, label=category)
            bottom = [base + height for base, height in zip(bottom, heights, strict=True)]
        axes.axhline(config.device_gb, color=_INK, linestyle="--", linewidth=1.2)
        axes.set_xlabel("trace length, tokens")
        axes.set_ylabel("peak memory, GB")
        axes.set_title(f"{config.model}, {format_settings(plans[0].settings)}", fontsize=10)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        figure.tight_layout()
        with run_dir.atomic(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def _line(name: str, values: Sequence[str]) -> str:
    return name.ljust(_WIDTH) + "".join(value.rjust(12) for value in values)


def _lengths(plans: Sequence[StepPlan]) -> list[str]:
    return [f"{step.seq_length:,}" for step in plans]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _fits(step: StepPlan, config: PlanConfig) -> str:
    return "yes" if step.peak <= config.device_gb * 1e9 else "no"
