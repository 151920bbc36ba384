"""Short sums from reasoning-gym, asked with two worked examples: a 135M model can do some of them."""

from __future__ import annotations

from dataclasses import dataclass

_WORKED = (
    ("2 + 7 - 4", "We start with 2 + 7 = 9. Then 9 - 4 = 5. The answer is 5."),
    ("8 - 3 + 6", "First, 8 - 3 = 5. Next, 5 + 6 = 11. The answer is 11."),
)


@dataclass(frozen=True)
class Problem:
    """problem_id is the same for the same sum under every seed."""

    problem_id: str
    messages: list[dict[str, str]]
    answer: str


def chain_sums(count: int, seed: int) -> list[Problem]:
    """`count` different sums of two or three single digits, in an order that the seed decides.

    Raises ValueError where reasoning-gym is not installed, and for more than 2,000 sums (only 4,200 exist).
    """
    try:
        from reasoning_gym import create_dataset
    except ImportError:
        raise ValueError("the problems come from reasoning-gym: pip install reasoning-gym") from None
    if count > 2000:
        raise ValueError(f"there are too few different sums for {count} problems: ask for 2000 at most")
    found: dict[str, Problem] = {}
    drawn = create_dataset("chain_sum", size=4 * count, seed=seed, min_terms=2, max_terms=3, min_digits=1, max_digits=1)
    for item in drawn:
        expression = item["metadata"]["expression"]
        problem_id = f"chain_sum/{expression.replace(' ', '')}"
        if problem_id not in found:
            found[problem_id] = Problem(problem_id, _conversation(expression), item["answer"])
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"seed {seed} gives only {len(found)} different sums, {count} were asked for: choose another seed")


def _conversation(expression: str) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": "Work step by step."}]
    for asked, answered in _WORKED:
        turns += [{"role": "user", "content": f"What is {asked}?"}, {"role": "assistant", "content": answered}]
    return [*turns, {"role": "user", "content": f"What is {expression}?"}]
