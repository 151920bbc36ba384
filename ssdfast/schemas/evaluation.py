"""results.json: the numbers of an evaluation. Fractions are 0 to 1, differences are in percentage points."""

from __future__ import annotations

from typing import Literal

from .base import Interval, JsonFile, Record


class LengthSummary(Record):
    """Mean, quantiles and maximum of lengths."""

    mean: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float


class Lengths(Record):
    """The lengths of completions."""

    unit: Literal["tokens", "words", "tokens or words"]
    all: LengthSummary
    correct: LengthSummary | None
    incorrect: LengthSummary | None
    """Of every other grade."""


class DiagnosticRates(Record):
    """What the completions are like."""

    answer_rate: Interval
    """Completions that state an answer."""
    boxed_rate: float | None
    thinking_rate: float | None
    think_closed_rate: float | None
    """Of the completions that think."""
    truncation_rate: float | None
    loop_rate: float | None
    repetition: float
    length: Lengths


class ScoredGroup(Record):
    """The samples of a run, or those of one difficulty or source."""

    problems: int
    samples: int
    accuracy: Interval
    grades: dict[str, int]
    diagnostics: DiagnosticRates


class ScoreVariance(Record):
    """Variance of the score between problems and within them."""

    between: float
    within: float
    fraction_between: float | None


class RunResults(ScoredGroup):
    """A run: one checkpoint at one set of sampling parameters, None where these are unknown."""

    name: str
    checkpoint: str
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    pass_at_k: dict[str, Interval]
    variance: ScoreVariance | None
    by_difficulty: dict[str, ScoredGroup]
    by_source: dict[str, ScoredGroup]


class BestRun(Record):
    """The run of a checkpoint that was best on the selecting half of the problems."""

    run: str
    selection_accuracy: float


class RunSelection(Record):
    """How the runs to compare were selected from a sweep."""

    selection_problems: int
    reporting_problems: int
    best_runs: dict[str, BestRun]
    """By checkpoint."""


class ComparisonDesign(Record):
    """Variance components of a difference."""

    interaction: float
    within_baseline: float
    within_run: float
    mde_pp_with_twice_the_samples: float | None


class Comparison(Record):
    """A run against the baseline's, over the same problems."""

    baseline: str
    run: str
    is_best_run: bool
    difference_pp: Interval
    p_value: float
    p_value_holm: float
    """Corrected over all comparisons."""
    test: str
    problems: int
    num_discordant: int
    mde_pp: float | None
    """The minimum detectable effect at a power of 80 %."""
    design: ComparisonDesign | None


class LookResult(Record):
    """The state of a sequential test after some of the problems."""

    decision: Literal["baseline_better", "run_better", "equivalent", "undecided"]
    problems: int
    difference_pp: Interval
    stopped: bool


class SequentialResults(Record):
    """A group sequential test of a checkpoint against the baseline."""

    baseline: str
    run: str
    equivalence_margin_pp: float
    alpha: float
    max_problems: int
    max_looks: int
    looks: list[LookResult]


class EvaluationResults(JsonFile):
    """results.json."""

    problems: int
    planned_problems: int
    bad_golds: list[str]
    """The problems that were left out because their gold answer is missing or cannot be parsed."""
    runs: list[RunResults]
    selection: RunSelection | None
    comparisons: list[Comparison]
    sequential: list[SequentialResults]
    prompt_mismatches: dict[str, int]
    """By run: the number of problems for which it has another prompt than the first run."""
