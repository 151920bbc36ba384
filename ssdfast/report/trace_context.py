"""What a trace answers: its prompt, and the problem's question, gold answer and grade, for the page.

They come from the traces that were probed and from the problems.jsonl of their run, and are left out where these files
are no longer there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import traces
from ..config import NamedPath
from ..problems.problem import Problem, read_problems
from .sanitize import inert

Key = tuple[str, str]  # trace source, trace id
MAX_CHARACTERS = 4000
_PARENTS = 3


def read_context(
    sources: Sequence[NamedPath], keys: Sequence[Key], vocabulary: Mapping[int, str]
) -> dict[Key, dict[str, Any]]:
    """By trace: prompt, question and gold (text, "" where unknown) and correct (true, false, or None).

    sources: of the probe's traces. vocabulary: from token id to text.
    """
    wanted, context = set(keys), {}
    for source in sources:
        path = Path(source.path)
        try:
            problems = _problems(path)
            for trace in traces.read(path):
                key = source.name, trace.trace_id
                if key in wanted:
                    problem = problems.get(trace.problem_id)
                    prompt = "".join(vocabulary.get(token, "�") for token in trace.prompt_ids.tolist())
                    context[key] = {
                        "prompt": _shortened(prompt),
                        "question": _shortened(problem.question if problem else ""),
                        "gold": _shortened((problem.answer if problem else "") or ""),
                        "correct": trace.correct,
                    }
        except (OSError, ValueError):  # moved, removed or changed since the probe
            continue
    return context


def _problems(path: Path) -> dict[str, Problem]:
    directories = (path, *list(path.resolve().parents)[:_PARENTS])
    file = next((file for directory in directories if (file := directory / "problems.jsonl").is_file()), None)
    return {problem.problem_id: problem for problem in read_problems(file)} if file else {}


def _shortened(text: str) -> str:
    text = inert(text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} … ({len(text):,} characters)"
