"""Grade with a function of your own: it gets the problem and the answer, and returns a score from 0 to 1.

    python examples/own_grader.py OUT

The grader runs in processes of its own, with a limit of CPU time, and is named as ``module:function``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ssdfast as ssd


def last_digit(problem: object, answer: str) -> float:
    """1 where the last digit is that of the gold answer, a half where its parity is."""
    gold, digit = str(problem.answer)[-1], answer.strip()[-1:]  # type: ignore[attr-defined]
    if not digit.isdigit():
        return 0.0
    return 1.0 if digit == gold else 0.5 if int(digit) % 2 == int(gold) % 2 else 0.0


def main(out: str) -> None:
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    problems, completions = directory / "problems.jsonl", directory / "completions.jsonl"
    rows = [{"id": str(i), "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"problem_id": str(i), "completion": f"It is \\boxed{{{2 * i + i % 3}}}."} for i in range(6)]
    completions.write_text("".join(json.dumps(row) + "\n" for row in answers))

    evals = ssd.evaluate(
        completions={"mine": completions},
        problems={"sources": problems},
        grader="own_grader:last_digit",
        out=directory / "eval",
    )
    print(evals.samples(["problem_id", "gold", "answer", "grade", "score"]).to_string(index=False))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
