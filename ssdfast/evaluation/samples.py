"""The table of samples: one row per completion, its diagnostics and its grade. `eval/samples.parquet` holds it."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ..config import ExtractionConfig
from ..number_format import format_names
from ..problems.problem import Problem
from ..progress import progress
from .completions import Completion
from .diagnostics import Diagnostics, closes_unopened, examine
from .extract import FALLBACKS, ExtractionRules, extract
from .grader_pool import GraderPool
from .grading import Graded, grade_answers
from .runs import KnownSamplingParams, Run

SCHEMA = pa.schema(
    [
        ("checkpoint", pa.string()),
        ("temperature", pa.float64()),  # of the run; null where it is unknown, as are the next three
        ("top_k", pa.int32()),
        ("top_p", pa.float64()),
        ("min_p", pa.float64()),
        ("trace_id", pa.string()),  # as in the table of traces; null where a file of completions numbers no samples
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("source", pa.string()),  # of the problem, as are the next three
        ("difficulty", pa.string()),
        ("question", pa.string()),
        ("gold", pa.string()),  # the gold answer; null where a grader needs none
        ("answer", pa.string()),  # as the completion words it; null where it states none
        ("grade", pa.string()),  # correct, incorrect, no_answer, unparsable, timeout
        ("score", pa.float64()),  # of a grader, else 1 for correct and 0 for every other grade
        ("finish_reason", pa.string()),
        # As `diagnostics.Diagnostics` describes.
        ("boxed", pa.bool_()),
        ("thinking", pa.bool_()),
        ("think_closed", pa.bool_()),
        ("length", pa.int64()),
        ("length_in_tokens", pa.bool_()),
        ("looped", pa.bool_()),
        ("repetition", pa.float64()),
    ]
)
_OPENED = 0.1
"""The fraction of completions that close an unopened thinking part from which on the prompt is taken to open it."""

_log = logging.getLogger("ssdfast.evaluation")


@dataclass
class RunSamples:
    """The examined completions of one run, without their text."""

    run: Run
    completions: list[Completion] = field(default_factory=list)
    diagnostics: list[Diagnostics] = field(default_factory=list)
    fallbacks: dict[str, list[str | None]] = field(default_factory=lambda: {flag: [] for flag in FALLBACKS})
    """The answer of each completion by each rule of FALLBACKS alone; None where it states one without them."""
    unopened: int = 0
    """The number of completions that close a thinking part which they did not open, where it is unknown whether the
    prompt opened it."""

    def drop(self, problem_ids: Collection[str]) -> int:
        """Leave out the completions of these problems; returns their number."""
        before = len(self.completions)
        places = [place for place, sample in enumerate(self.completions) if sample.problem_id not in problem_ids]
        self.completions = [self.completions[place] for place in places]
        self.diagnostics = [self.diagnostics[place] for place in places]
        self.fallbacks = {flag: [found[place] for place in places] for flag, found in self.fallbacks.items()}
        return before - len(places)


def examine_completions(
    checkpoint: str, completions: Iterable[Completion], config: ExtractionConfig, prompts_open: bool | None = None
) -> list[RunSamples]:
    """The completions of a checkpoint by run, in the order of each run's first.

    prompts_open: whether the prompts open the thinking part, where it is known. Where neither that nor the settings
    say, the completions show it: a tenth of a run that closes what it did not open is no accident, and decides for all
    of the checkpoint's runs.
    """
    known = config.prompt_opens_thinking if config.prompt_opens_thinking is not None else prompts_open
    rules = ExtractionRules(**config.model_dump() | {"prompt_opens_thinking": bool(known)})
    runs: dict[KnownSamplingParams, RunSamples] = {}
    for completion in completions:
        samples = runs.setdefault(completion.sampling, RunSamples(Run(checkpoint, completion.sampling)))
        samples.completions.append(dataclasses.replace(completion, text="", ids=None))
        samples.diagnostics.append(examine(completion, rules))
        for flag, found in samples.fallbacks.items():
            stated = samples.diagnostics[-1].answer is not None
            found.append(None if stated else extract(completion.text, dataclasses.replace(rules, **{flag: True})))
        samples.unopened += closes_unopened(completion.text, rules)
    opened = [samples for samples in runs.values() if samples.unopened >= _OPENED * len(samples.diagnostics)]
    if known is None and config.strip_thinking and opened:  # all runs of a checkpoint have the same prompts
        first = opened[0]
        _log.warning(
            f"{first.run}: {first.unopened:,} of {len(first.diagnostics):,} completions close a thinking part that they"
            " did not open, so the prompts are taken to open it (--extraction.prompt-opens-thinking False overrides"
            " this)"
        )
        for samples in runs.values():
            samples.unopened = 0
            samples.diagnostics = list(map(_all_thinking, samples.diagnostics))
    if known is not None:
        for samples in runs.values():
            samples.unopened = 0
    return list(runs.values())


def check_thinking(runs: Sequence[RunSamples], config: ExtractionConfig) -> None:
    """Raises ValueError where it is unclear whether the prompts of one run open the thinking part, and another's do.

    The answer of a completion would then be looked for in different parts of the text.
    """
    unclear = next((samples for samples in runs if samples.unopened), None)
    thinking = next(
        (samples for samples in runs if not samples.unopened and all(each.thinking for each in samples.diagnostics)),
        None,
    )
    if config.prompt_opens_thinking is None and config.strip_thinking and unclear and thinking:
        raise ValueError(
            f"{unclear.run}: {unclear.unopened:,} of {len(unclear.diagnostics):,} completions close a thinking part"
            f" that they did not open, and all of {thinking.run} think: set --extraction.prompt-opens-thinking"
        )


def _all_thinking(diagnostics: Diagnostics) -> Diagnostics:
    """The diagnostics where the prompt opens the thinking part: a completion that closes none is all thinking."""
    if diagnostics.think_closed:
        return dataclasses.replace(diagnostics, thinking=True)
    return dataclasses.replace(diagnostics, thinking=True, answer=None, boxed=False)


def check_problems(runs: Sequence[RunSamples], problems: dict[str, Problem], allow_missing: bool = False) -> None:
    """Raises ValueError where a run answers an unknown problem, or leaves a problem out, naming the first.

    So it does where a run has fewer samples of one problem than of another, unless `allow_missing`.
    """
    for samples in runs:
        answered = Counter(completion.problem_id for completion in samples.completions)
        if unknown := [name for name in answered if name not in problems]:
            where = next(sample.where for sample in samples.completions if sample.problem_id == unknown[0])
            raise ValueError(
                f"{where}: {samples.run} answers {format_names(unknown)}, which {'are' if len(unknown) > 1 else 'is'}"
                " not among the problems: name all of them in problems.sources"
            )
        if missing := sorted(name for name in problems if name not in answered):
            raise ValueError(
                f"{samples.run} has no completion of {format_names(missing)}: complete it, or evaluate problems that"
                " all runs answer"
            )
        most = max(answered.values())
        if not allow_missing and (short := sorted(name for name, count in answered.items() if count < most)):
            raise ValueError(
                f"{samples.run} has {answered[short[0]]} of {most} samples of {format_names(short)}: complete it, for"
                " the missing ones may be the long ones, or take it as it is with --on-missing-samples allow"
            )
    if len(counts := {len(samples.completions) // len(problems) for samples in runs}) > 1:
        _log.warning(f"the runs have different numbers of samples per problem, {min(counts)} to {max(counts)}")


def check_prompts(runs: Sequence[RunSamples], allow: bool) -> dict[str, int]:
    """The number of problems whose prompt in a run differs from the first run's; {} for none.

    Raises ValueError where there are any, unless `allow`, and where one run has a problem with two prompts. Token ids
    are compared with token ids and text with text; unknown prompts are not compared.
    """
    first: dict[tuple[str, str], tuple[str, RunSamples]] = {}
    mismatches: dict[str, int] = {}
    for samples in runs:
        own: dict[tuple[str, str], str] = {}
        differing: set[str] = set()
        for sample in filter(lambda sample: sample.prompt, samples.completions):
            key = (sample.problem_id, sample.prompt.partition(":")[0])
            if own.setdefault(key, sample.prompt) != sample.prompt:
                raise ValueError(
                    f"{sample.where}: {samples.run} has samples of {sample.problem_id} from two versions of the prompt:"
                    " evaluate each by itself"
                )
            prompt, owner = first.setdefault(key, (sample.prompt, samples))
            if prompt != sample.prompt:
                if not allow:
                    raise ValueError(
                        f"{sample.where}: the prompt of {sample.problem_id} in {samples.run} differs from that in"
                        f" {owner.run}: sample both with the same prompt, or compare all the same with"
                        " --on-prompt-mismatch allow"
                    )
                differing.add(sample.problem_id)
        if differing:
            mismatches[str(samples.run)] = len(differing)
    return mismatches


def grade_runs(runs: Sequence[RunSamples], problems: dict[str, Problem], pool: GraderPool) -> pa.Table:
    """Every completion with its grade, in SCHEMA, run by run. Raises ValueError as `grade_completions`."""
    pairs = [
        (problems[completion.problem_id], diagnostics.answer)
        for samples in runs
        for completion, diagnostics in zip(samples.completions, samples.diagnostics, strict=True)
    ]
    with progress("grading", len(pairs), "answers") as advance:
        graded = grade_answers(pairs, pool, advance)
    return pa.Table.from_pylist(list(_rows(runs, problems, iter(graded))), schema=SCHEMA)


def _rows(runs: Sequence[RunSamples], problems: dict[str, Problem], graded: Iterator[Graded]) -> Iterator[dict]:
    for samples in runs:
        for completion, diagnostics in zip(samples.completions, samples.diagnostics, strict=True):
            result, problem = next(graded), problems[completion.problem_id]
            yield {
                "checkpoint": samples.run.checkpoint,
                **samples.run.sampling._asdict(),
                "trace_id": completion.trace_id,
                "problem_id": completion.problem_id,
                "sample": completion.sample,
                "source": problem.source,
                "difficulty": problem.difficulty,
                "question": problem.question,
                "gold": problem.answer,
                "grade": result.grade,
                "score": result.score,
                "finish_reason": completion.finish_reason,
                **dataclasses.asdict(diagnostics),
            }


def split_by_run(table: pa.Table) -> dict[Run, pa.Table]:
    """The rows of each run, in the order of the table."""
    columns = [table[name].to_pylist() for name in ("checkpoint", *KnownSamplingParams._fields)]
    places: dict[Run, list[int]] = defaultdict(list)
    for place, (checkpoint, *sampling) in enumerate(zip(*columns, strict=True)):
        places[Run(checkpoint, KnownSamplingParams(*sampling))].append(place)
    return {run: table.take(rows) for run, rows in places.items()}
