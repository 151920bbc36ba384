"""The results for the terminal: a table of the arms, what was chosen, and what the comparisons say."""

from __future__ import annotations

from typing import Any

_SETTING = {"temperature": "T", "top_k": "k", "top_p": "p", "min_p": "min-p"}
_FEW = 10


def told(results: dict[str, Any]) -> str:
    """results: as in results.json."""
    arms = results["arms"]
    stopped = f" of {results['planned']:,}" if results["problems"] < results["planned"] else ""
    lines = [
        f"{results['problems']:,}{stopped} problems, {sum(arm['samples'] for arm in arms):,} samples",
        "",
        *_table(arms),
    ]
    lines += _chosen(results["selection"])
    lines += _comparisons(results["comparisons"])
    for arm, count in results["other_prompts"].items():
        lines += [
            "",
            f"{arm} was asked {count:,} problems in other words than the first arm: differences may be theirs",
        ]
    for sequence in results["sequential"]:
        lines += ["", *_sequence(sequence)]
    return "\n".join(lines)


def _table(arms: list[dict[str, Any]]) -> list[str]:
    varying = [name for name in _SETTING if len({arm[name] for arm in arms}) > 1]
    uneven = len({arm["problems"] for arm in arms}) > 1
    pass_ks = list(dict.fromkeys(k for arm in arms for k in arm["pass_at"]))
    head = ["checkpoint", *map(_SETTING.__getitem__, varying), *(["problems"] if uneven else []), "accuracy %"]
    head += [f"pass@{k} %" for k in pass_ks]
    head += ["answered", "boxed", "closed", "cut off", "loops", "length p50", "p95"]
    rows = []
    for arm in arms:
        health = arm["health"]
        row = [arm["checkpoint"], *("-" if arm[name] is None else f"{arm[name]:g}" for name in varying)]
        row += [f"{arm['problems']:,}"] if uneven else []
        row += [_interval(arm["accuracy"]), *(_interval(arm["pass_at"][k]) for k in pass_ks)]
        row += [_percent(health["answered"]["estimate"])]
        row += [_percent(health[name]) for name in ("boxed", "think_closed", "length_stops", "loops")]
        row += [f"{health['lengths'][name]:,.0f}" for name in ("p50", "p95")]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    units = {arm["health"]["length_unit"] for arm in arms}
    note = f"answered: an answer was found; closed: of those that think; length in {' or '.join(sorted(units))}"
    return [*map(str.rstrip, lines), note]


def _chosen(selection: dict[str, Any] | None) -> list[str]:
    if not selection:
        return []
    chosen = ", ".join(one["arm"] for one in selection["chosen"].values())
    return [
        "",
        f"chosen on {selection['problems']:,} problems, compared on the other {selection['reported_on']:,}: {chosen}",
    ]


def _comparisons(comparisons: list[dict[str, Any]]) -> list[str]:
    lines = []
    for one in sorted(comparisons, key=lambda one: not one["chosen"]):
        seen = "-" if one["detectable"] is None else f"{one['detectable']:.1f}"
        also = "" if one["chosen"] else "  also: "  # a checkpoint's choice stands out from the rest of its sweep
        lines.append(
            f"{also}{one['arm']} against {one['baseline']}: {_signed(one['points'])} points"
            f" [{_signed(one['low'])}, {_signed(one['high'])}], p = {one['p']:.3g}, by Holm over {len(comparisons)}"
            f" p = {one['p_holm']:.3g} ({one['test']}, {one['differing']:,} of {one['problems']:,} problems differ);"
            f" detectable with a power of 80 %: {seen} points"
        )
    if any(one["differing"] < _FEW for one in comparisons):
        lines.append(f"where fewer than {_FEW} problems differ, p decides and not the interval")
    return ["", *lines] if lines else []


def _sequence(sequence: dict[str, Any]) -> list[str]:
    last = sequence["looks"][-1]
    verdict = {
        "first is better": f"{sequence['baseline']} is better",
        "second is better": f"{sequence['arm']} is better",
        "no difference": f"no difference within {sequence['margin']:g} points",
        "undecided": "undecided" + ", as the rest would hardly decide it," * (last["problems"] < sequence["maximum"]),
    }[last["verdict"]]
    interval = f"{_signed(last['points'])} points [{_signed(last['low'])}, {_signed(last['high'])}]"
    return [
        f"{sequence['arm']} against {sequence['baseline']}: {verdict} after {last['problems']:,} of"
        f" {sequence['maximum']:,} problems, {interval} (group sequential, look {len(sequence['looks'])} of"
        f" {sequence['planned']}, alpha {sequence['alpha']:.3g})",
        "the accuracies above are of where it stopped, and lean to what stopped it; the interval here does not",
    ]


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # no negative zero


def _interval(value: dict[str, Any]) -> str:
    if value["low"] is None:
        return f"{100 * value['estimate']:.1f}"
    return f"{100 * value['estimate']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
