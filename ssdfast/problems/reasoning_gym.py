"""Single-digit sums from reasoning-gym, asked with two worked examples: a 135M model gets about two in five right."""

from __future__ import annotations

from dataclasses import dataclass

_WORKED = (
    ("2 + 7", "We have 2 + 7 = 9. The answer is 9."),
    ("8 - 3", "First, 8 - 3 = 5. So the answer is 5."),
)


@dataclass(frozen=True)
class Problem:
    """problem_id is the same for the same sum under every seed."""

    problem_id: str
    messages: list[dict[str, str]]
    answer: str


def chain_sums(count: int, seed: int) -> list[Problem]:
    """`count` different sums or differences of two digits, in an order that the seed decides.

    Raises ValueError where reasoning-gym is not installed, and for more than 150 sums (only 200 exist).
    """
    try:
        from reasoning_gym import create_dataset
    except ImportError:
        raise ValueError("the problems come from reasoning-gym: pip install reasoning-gym") from None
    if count > 150:
        raise ValueError(f"there are too few different sums for {count} problems: ask for 150 at most")
    found: dict[str, Problem] = {}
    drawn = create_dataset("chain_sum", size=8 * count, seed=seed, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    for item in drawn:
        expression = item["metadata"]["expression"]
        problem_id = f"chain_sum/{expression.replace(' ', '')}"
        if problem_id not in found:
            found[problem_id] = Problem(problem_id, _conversation(expression), item["answer"])
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"seed {seed} gives only {len(found)} different sums, {count} were asked for: choose another seed")


def _conversation(expression: str) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": "Show your work."}]
    for asked, answered in _WORKED:
        turns += [{"role": "user", "content": f"{asked} = ?"}, {"role": "assistant", "content": answered}]
    return [*turns, {"role": "user", "content": f"{expression} = ?"}]
