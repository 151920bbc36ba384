"""The results for a terminal: a table of the runs, the selected runs, and the comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from ..number_format import format_interval, format_p_value, format_percent
from ..schemas import Comparison, EvaluationResults, RunResults, RunSelection, SequentialResults

_SAMPLING = {"temperature": "T", "top_k": "k", "top_p": "p", "min_p": "min-p"}
_RATES = {
    "boxed_rate": "boxed",
    "think_closed_rate": "think closed",
    "truncation_rate": "truncated",
    "loop_rate": "loops",
}
_FEW = 10


def format_results(results: EvaluationResults) -> str:
    runs = results.runs
    planned = f" of {results.planned_problems:,}" if results.problems < results.planned_problems else ""
    lines = [
        f"{results.problems:,}{planned} problems, {sum(run.samples for run in runs):,} samples",
        "",
        *_format_table(runs),
    ]
    lines += _format_selection(results.selection)
    lines += _format_comparisons(results.comparisons)
    for run, count in results.prompt_mismatches.items():
        lines += [
            "",
            f"{run} has other prompts than the first run for {count:,} problems, which may explain differences",
        ]
    for sequence in results.sequential:
        lines += ["", *_format_sequence(sequence)]
    return "\n".join(lines)


def _format_table(runs: Sequence[RunResults]) -> list[str]:
    varying = [name for name in _SAMPLING if len({getattr(run, name) for run in runs}) > 1]
    uneven = len({run.problems for run in runs}) > 1
    pass_ks = list(dict.fromkeys(k for run in runs for k in run.pass_at_k))
    head = ["checkpoint", *map(_SAMPLING.__getitem__, varying), *(["problems"] if uneven else []), "accuracy"]
    head += [f"pass@{k}" for k in pass_ks]
    head += ["answered", *_RATES.values(), "length p50", "length p95"]
    rows = []
    for run in runs:
        diagnostics = run.diagnostics
        row = [run.checkpoint, *(_short(getattr(run, name)) for name in varying)]
        row += [f"{run.problems:,}"] if uneven else []
        row += [
            format_interval(run.accuracy, percent=True, decimals=1),
            *(format_interval(run.pass_at_k[k], percent=True, decimals=1) for k in pass_ks),
        ]
        row += [format_percent(diagnostics.answer_rate.value)]
        row += [format_percent(getattr(diagnostics, name)) for name in _RATES]
        row += [f"{length:,.0f}" for length in (diagnostics.length.all.p50, diagnostics.length.all.p95)]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    units = {run.diagnostics.length.unit for run in runs}
    note = (
        "answered: completions that state an answer; think closed: of the completions that think;"
        f" length in {' or '.join(sorted(units))}"
    )
    return [*map(str.rstrip, lines), note]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _format_selection(selection: RunSelection | None) -> list[str]:
    if not selection:
        return []
    names = ", ".join(best.run for best in selection.best_runs.values())
    return [
        "",
        f"best runs, selected on {selection.selection_problems:,} problems and compared on the other"
        f" {selection.reporting_problems:,}: {names}",
    ]


def _format_comparisons(comparisons: Sequence[Comparison]) -> list[str]:
    lines = []
    for comparison in sorted(comparisons, key=lambda comparison: not comparison.is_best_run):
        mde = "unknown" if comparison.mde_pp is None else f"{comparison.mde_pp:.1f} percentage points"
        indent = "" if comparison.is_best_run else "  also: "  # the best run stands out from the rest of its sweep
        lines.append(
            f"{indent}{comparison.run} against {comparison.baseline}:"
            f" {format_interval(comparison.difference_pp, signed=True, decimals=1)} percentage points,"
            f" p = {format_p_value(comparison.p_value)}, by Holm over {len(comparisons)} p ="
            f" {format_p_value(comparison.p_value_holm)}"
            f" ({comparison.test}, {comparison.num_discordant:,} of {comparison.problems:,} problems"
            f" discordant); minimum detectable effect at a power of 80 %: {mde}"
        )
    if any(comparison.num_discordant < _FEW for comparison in comparisons):
        lines.append(f"with fewer than {_FEW} discordant problems the p-value decides, not the interval")
    return ["", *lines] if lines else []


def _format_sequence(sequence: SequentialResults) -> list[str]:
    last = sequence.looks[-1]
    decision = {
        "baseline_better": f"{sequence.baseline} is better",
        "run_better": f"{sequence.run} is better",
        "equivalent": f"no difference within {sequence.equivalence_margin_pp:g} percentage points",
        "undecided": "undecided" + ", as the rest would hardly decide it," * (last.problems < sequence.max_problems),
    }[last.decision]
    difference = format_interval(last.difference_pp, signed=True, decimals=1)
    return [
        f"{sequence.run} against {sequence.baseline}: {decision} after {last.problems:,} of"
        f" {sequence.max_problems:,} problems, {difference} percentage points"
        f" (group sequential, look {len(sequence.looks)} of {sequence.max_looks}, alpha {sequence.alpha:.3g})",
        "the accuracies above are biased towards the result that stopped the test; the interval here is not",
    ]
