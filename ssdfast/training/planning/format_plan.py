"""A plan in words and numbers, and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ... import run_dir
from ...config import PlanConfig, TrainConfig
from ...plot_style import pyplot, style
from .meta_step import LAYER, PARTS
from .plan import SETTINGS, Planned, compared, plan

ASSUMED = (
    "Counted: tensors of one trace of each length, every place scored; torch's flash attention, norms, MLPs and delta"
    " rule. Not counted: what the allocator wastes, and CUDA itself, about 1 GB."
)
_COLOURS = ("#0072b2", "#56b4e9", "#cc79a7", "#d55e00", "#009e73", "#e69f00", "#888888")
_INK = "#444444"
_WIDTH = 78


def report(config: PlanConfig, out: Path | None) -> Iterator[str]:
    """The lines of a plan, as they are found; with `out` also its plan.json and plan.svg.

    Raises ValueError for settings or a model that cannot be.
    """
    planned = plan(config)
    yield told(config, planned)
    rows = planned
    if config.compare_settings:
        yield ""
        others: list[Planned] = []
        for row in compared(config):
            yield from compared_told(config, row, titled=not others)
            others += row
        rows = [*planned, *(one for one in others if one not in planned)]
    yield f"\n{ASSUMED}"
    if out:
        run_dir.write_json(out / "plan.json", plan_json(config, rows))
        draw(config, planned, out / "plan.svg")
        yield f"numbers and figure: {out}"


def told(config: PlanConfig, planned: Sequence[Planned]) -> str:
    """A table of GB by part and length."""
    layer = "one layer's recomputation" if config.activation_checkpointing != "none" else "one layer's computation"
    lines = [f"{config.model}, {settings_told(planned[0].settings)}", _line("GB, at tokens", _lengths(planned))]
    for part in PARTS:
        lines.append(_line(layer if part == LAYER else part, [_gb(one.parts[part]) for one in planned]))
    lines.append(_line("peak", [_gb(one.peak) for one in planned]))
    lines.append(_line(f"fits {config.device_gb:g} GB", [_fits(one, config) for one in planned]))
    if config.device == "cuda":
        lines.append(_line("on the host", [_gb(one.host) for one in planned]))
    return "\n".join(lines)


def compared_told(config: PlanConfig, planned: Sequence[Planned], titled: bool) -> Iterator[str]:
    """A line of a table of settings and lengths, the first one with its title."""
    if titled:
        yield _line(f"GB, fits {config.device_gb:g} GB or not", _lengths(planned))
    yield _line(settings_told(planned[0].settings), [f"{_gb(one.peak)} {_fits(one, config):3}" for one in planned])


def settings_told(settings: TrainConfig) -> str:
    words: list[str] = [settings.optimizer]
    if settings.offload_optimizer:
        words.append("offload-optimizer")
    if settings.activation_checkpointing != "none":
        words.append(f"activation-checkpointing {settings.activation_checkpointing}")
    if settings.sequence_tile_size:
        words.append(f"sequence-tile-size {settings.sequence_tile_size}")
    return ", ".join(words)


def plan_json(config: PlanConfig, plans: Sequence[Planned]) -> dict[str, Any]:
    """The numbers as JSON."""
    rows = [
        {
            "seq_length": plan.tokens,
            **{name: getattr(plan.settings, name) for name in SETTINGS},
            "peak_bytes": plan.peak,
            "host_bytes": plan.host,
            "fits": _fits(plan, config) == "yes",
            "peak_bytes_by_use": {part.replace(" ", "_"): plan.parts[part] for part in PARTS},
        }
        for plan in plans
    ]
    names = ("model", "device", "device_gb", "labels_per_position")
    return {**{name: getattr(config, name) for name in names}, "plans": rows}


def draw(config: PlanConfig, planned: Sequence[Planned], path: Path) -> None:
    """SVG: the parts of the peak, one on the other, against the length. Raises ValueError without matplotlib."""
    names = [f"{one.tokens:,}" for one in planned]
    with pyplot() as plt, plt.rc_context(style(_INK)):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        below = [0.0] * len(planned)
        for part, colour in zip(PARTS, _COLOURS, strict=True):
            heights = [one.parts[part] / 1e9 for one in planned]
            axes.bar(names, heights, 0.6, bottom=below, color=colour, label=part)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        axes.axhline(config.device_gb, color=_INK, linestyle="--", linewidth=1.2)
        axes.set_xlabel("tokens of a trace")
        axes.set_ylabel("GB at the peak")
        axes.set_title(f"{config.model}, {settings_told(planned[0].settings)}", fontsize=10)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
        figure.tight_layout()
        with run_dir.atomic(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
        plt.close(figure)


def _line(name: str, values: Sequence[str]) -> str:
    return name.ljust(_WIDTH) + "".join(value.rjust(12) for value in values)


def _lengths(planned: Sequence[Planned]) -> list[str]:
    return [f"{one.tokens:,}" for one in planned]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _fits(one: Planned, config: PlanConfig) -> str:
    return "yes" if one.peak <= config.device_gb * 1e9 else "no"
