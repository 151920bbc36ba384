"""The table of samples: one row a completion, what it is like and what it is worth. `eval/samples.parquet` holds it."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ..config import ExtractionConfig
from ..problems.problem import Problem
from ..progress import progress, say
from .completions import Completion
from .diagnostics import Health, closes_unopened, examine
from .extract import ExtractionRules
from .grader_pool import Checkers
from .grading import Judged, judge_answers
from .runs import Arm, Setting

SCHEMA = pa.schema(
    [
        ("checkpoint", pa.string()),
        ("temperature", pa.float64()),  # of this arm; null where nobody says
        ("top_k", pa.int32()),
        ("top_p", pa.float64()),
        ("min_p", pa.float64()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("source", pa.string()),  # of the problem
        ("difficulty", pa.string()),
        ("verdict", pa.string()),  # correct, wrong, no_answer, unparsable, timed_out
        ("score", pa.float64()),  # of a generator's own scorer, else 1 for correct and 0 for all other
        ("extracted", pa.string()),
        ("finish_reason", pa.string()),
        # As `health.Health` says.
        ("boxed", pa.bool_()),
        ("thinks", pa.bool_()),
        ("closed", pa.bool_()),
        ("length", pa.int64()),
        ("in_tokens", pa.bool_()),
        ("looped", pa.bool_()),
        ("repetition", pa.float64()),
    ]
)
_OPENED = 0.1
"""share of completions that close a thinking part unopened, from which on the prompt is taken to open it"""
_NAMED = 3


@dataclass
class Group:
    """The completions of one arm, examined; their text is gone."""

    arm: Arm
    completions: list[Completion] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)
    unopened: int = 0
    """completions that close a thinking part which they did not open, where nothing says that the prompt did"""

    def drop(self, problem_ids: Collection[str]) -> int:
        """Leave out the completions of these problems; returns how many they were."""
        before = len(self.completions)
        kept = [place for place, one in enumerate(self.completions) if one.problem_id not in problem_ids]
        self.completions = [self.completions[place] for place in kept]
        self.health = [self.health[place] for place in kept]
        return before - len(kept)


def examined(
    label: str, completions: Iterable[Completion], config: ExtractionConfig, prompts_open: bool | None = None
) -> list[Group]:
    """The completions of a checkpoint by arm, in the order of their first.

    prompts_open: whether the prompts open the thinking part, where it is known. Where neither that nor the settings
    say, it is read off the completions: a tenth of an arm that closes what it did not open is no accident, and goes for
    all of the checkpoint's arms.
    """
    known = config.starts_thinking if config.starts_thinking is not None else prompts_open
    rules = ExtractionRules(**config.model_dump() | {"starts_thinking": bool(known)})
    groups: dict[Setting, Group] = {}
    for one in completions:
        group = groups.setdefault(one.setting, Group(Arm(label, one.setting)))
        group.completions.append(dataclasses.replace(one, text="", ids=None))
        group.health.append(examine(one, rules))
        group.unopened += closes_unopened(one.text, rules)
    opened = [group for group in groups.values() if group.unopened >= _OPENED * len(group.health)]
    if known is None and config.thinking and opened:  # one checkpoint's prompts are the same at every decoding
        first = opened[0]
        say(
            f"{first.arm}: {first.unopened:,} of {len(first.health):,} completions close a thinking part that they"
            " did not open, so its prompts are taken to open it (--extraction.starts-thinking False says otherwise)"
        )
        for group in groups.values():
            group.unopened = 0
            group.health = list(map(_all_thinking, group.health))
    if known is not None:
        for group in groups.values():
            group.unopened = 0
    return list(groups.values())


def check_thinking(groups: Sequence[Group], config: ExtractionConfig) -> None:
    """Raises ValueError where it is unclear of one arm whether its prompts open the thinking part, and not of another.

    What of a completion counts as its answer would then differ between arms.
    """
    unclear = next((group for group in groups if group.unopened), None)
    thinking = next((group for group in groups if not group.unopened and all(one.thinks for one in group.health)), None)
    if config.starts_thinking is None and config.thinking and unclear and thinking:
        raise ValueError(
            f"{unclear.arm}: {unclear.unopened:,} of {len(unclear.health):,} completions close a thinking part that"
            f" they did not open, and all of {thinking.arm} think: say with --extraction.starts-thinking whether the"
            " prompts open it"
        )


def _all_thinking(health: Health) -> Health:
    """As it is where the prompt opens the thinking part: what closes none is nothing but thinking."""
    if health.closed:
        return dataclasses.replace(health, thinks=True)
    return dataclasses.replace(health, thinks=True, extracted=None, boxed=False)


def check_problems(groups: Sequence[Group], problems: dict[str, Problem], keep_uneven: bool = False) -> None:
    """Raises ValueError where an arm answers a problem that is none, or leaves one out, naming the first.

    So it does where an arm has fewer samples of one problem than of another, unless those are to be kept.
    """
    for group in groups:
        answered = Counter(one.problem_id for one in group.completions)
        if strange := [name for name in answered if name not in problems]:
            where = next(one.where for one in group.completions if one.problem_id == strange[0])
            raise ValueError(
                f"{where}: {group.arm} answers {_few(strange)}, which {'are' if len(strange) > 1 else 'is'} not among"
                " the problems: name all of them in problems.sources"
            )
        if lacking := sorted(name for name in problems if name not in answered):
            raise ValueError(
                f"{group.arm} has no completion of {_few(lacking)}: complete it, or evaluate problems that all arms"
                " answer"
            )
        most = max(answered.values())
        if not keep_uneven and (short := sorted(name for name, count in answered.items() if count < most)):
            raise ValueError(
                f"{group.arm} has {answered[short[0]]} of {most} samples of {_few(short)}: complete it, for what is"
                " missing may be what was long, or take it as it is with --uneven keep"
            )
    if len(counts := {len(group.completions) // len(problems) for group in groups}) > 1:
        say(f"arms have different numbers of samples of a problem, {min(counts)} to {max(counts)}")


def check_prompts(groups: Sequence[Group], keep: bool) -> dict[str, int]:
    """How many problems each arm was asked in other words than the first arm; {} for none.

    Raises ValueError where there are any, unless they are to be kept, and where one arm has asked a problem in two
    ways. Token ids are compared with token ids and text with text; where nobody says, nothing is compared.
    """
    first: dict[tuple[str, str], tuple[str, Group]] = {}
    differing: dict[str, int] = {}
    for group in groups:
        own: dict[tuple[str, str], str] = {}
        others: set[str] = set()
        for one in filter(lambda one: one.prompt, group.completions):
            key = (one.problem_id, one.prompt.partition(":")[0])
            if own.setdefault(key, one.prompt) != one.prompt:
                raise ValueError(
                    f"{one.where}: {group.arm} has samples of {one.problem_id} from two versions of the prompt:"
                    " evaluate each by itself"
                )
            prompt, owner = first.setdefault(key, (one.prompt, group))
            if prompt != one.prompt:
                if not keep:
                    raise ValueError(
                        f"{one.where}: {group.arm} was asked {one.problem_id} in other words than {owner.arm}:"
                        " sample both with the same prompt, or compare all the same with other_prompts=keep"
                    )
                others.add(one.problem_id)
        if others:
            differing[str(group.arm)] = len(others)
    return differing


def judged(groups: Sequence[Group], problems: dict[str, Problem], checkers: Checkers) -> pa.Table:
    """The verdict on every completion, in SCHEMA, arm by arm. Raises ValueError as `judge_all`."""
    pairs = [
        (problems[one.problem_id], health.extracted)
        for group in groups
        for one, health in zip(group.completions, group.health, strict=True)
    ]
    with progress("judging", len(pairs), "answers") as advance:
        found = judge_answers(pairs, checkers, advance)
    rows = list(_rows(groups, problems, iter(found)))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _rows(groups: Sequence[Group], problems: dict[str, Problem], found: Iterator[Judged]) -> Iterator[dict]:
    for group in groups:
        for one, health in zip(group.completions, group.health, strict=True):
            verdict, problem = next(found), problems[one.problem_id]
            yield {
                "checkpoint": group.arm.checkpoint,
                **group.arm.setting._asdict(),
                "problem_id": one.problem_id,
                "sample": one.sample,
                "source": problem.source,
                "difficulty": problem.difficulty,
                "verdict": verdict.verdict,
                "score": verdict.score,
                "finish_reason": one.finish_reason,
                **dataclasses.asdict(health),
            }


def by_arm(table: pa.Table) -> dict[Arm, pa.Table]:
    """The rows of each arm, in the order of the table."""
    columns = [table[name].to_pylist() for name in ("checkpoint", *Setting._fields)]
    places: dict[Arm, list[int]] = defaultdict(list)
    for place, (checkpoint, *setting) in enumerate(zip(*columns, strict=True)):
        places[Arm(checkpoint, Setting(*setting))].append(place)
    return {arm: table.take(rows) for arm, rows in places.items()}


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
