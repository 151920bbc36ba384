"""Time left after a fifth of the work, for sample, train, probe and eval; and grading 1,000 completions again.

    python bench/time_left.py

Each stage runs once; the forecast that its progress shows nearest to a fifth of its time is compared with the time that
was really left.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from common import ROOT, record

from ssdfast import progress
from ssdfast.config import (
    EvalConfig,
    ExtractionConfig,
    NamedPath,
    ProbeConfig,
    ProblemsConfig,
    SampleConfig,
    SampleExecution,
    TrainingRunConfig,
)
from ssdfast.config.evaluate import EvalProblemsConfig
from ssdfast.probing.runner import probe
from ssdfast.sampling.runner import sample
from ssdfast.training.runner import train
from ssdfast.workflows.evaluate import evaluate
from ssdfast.workflows.study.demo import PROMPT, convert, write_sums

HOME = ROOT / "runs" / "bench-time-left"
TOKENS, COMPLETIONS = 48, 1000
FIFTH = 0.2


@contextlib.contextmanager
def watched() -> Iterator[list[tuple[float, float]]]:
    """(time, seconds left) whenever the progress of the longest stage advances."""
    marks: list[tuple[float, float]] = []
    call = progress._Lines.__call__

    def marked(lines: Any, n: int = 1) -> None:
        call(lines, n)
        left: float | None
        if lines.what == "grading":  # of seconds, after the traces
            return
        if lines.seconds_left:
            left = lines.seconds_left()
        elif lines.before is not None and lines.before < lines.done < lines.total:
            left = (time.monotonic() - lines.begun) / (lines.done - lines.before) * (lines.total - lines.done)
        else:
            left = None
        if left is not None:
            marks.append((time.monotonic(), left))

    progress._Lines.__call__ = marked  # type: ignore[method-assign]
    try:
        yield marks
    finally:
        progress._Lines.__call__ = call  # type: ignore[method-assign]


def factor(run: Callable[[], Any]) -> dict[str, float]:
    """How far the forecast at a fifth of the work is from the truth, as a factor of at least 1.

    The work begins with the first mark less its own share: loading a model is not work of which progress is shown.
    """
    with watched() as marks:
        run()
        end = marks[-1][0]
    begin = marks[0][0]
    at, left = min(marks, key=lambda mark: abs(mark[0] - begin - FIFTH * (end - begin)))
    truth = end - at
    return {"seconds": end - begin, "left": left, "truth": truth, "factor": max(left / truth, truth / left)}


def graded_again() -> dict[str, float]:
    """Seconds to grade 1,000 stored completions with another extraction."""
    rows = [{"problem_id": f"p{i}", "text": f"So {i} + 1 = {i + 1}."} for i in range(COMPLETIONS)]
    problems = [{"id": f"p{i}", "question": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(COMPLETIONS)]
    for name, lines in (("texts", rows), ("problems", problems)):
        (HOME / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    given: dict[str, Any] = {
        "completions": (NamedPath(name="texts", path=str(HOME / "texts.jsonl")),),
        "problems": {"sources": (str(HOME / "problems.jsonl"),)},
    }
    evaluate(EvalConfig(**given), HOME / "graded")
    start = time.perf_counter()
    results = evaluate(EvalConfig(**given, extraction=ExtractionConfig(fallback_last_number=True)), HOME / "graded")
    assert results.runs[0].accuracy.value == 1
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    model = str(convert(HOME / "model"))
    for name in ("sampled", "trained", "probed", "evaluated", "graded"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    write_sums(HOME / "train.jsonl", HOME / "eval.jsonl")
    problems = ProblemsConfig(sources=(str(HOME / "train.jsonl"),), near_duplicate_threshold=1.0)
    sampling = SampleConfig(model=model, problems=problems, prompt=PROMPT, max_new_tokens=TOKENS)
    training = TrainingRunConfig(model=model, traces=str(HOME / "sampled"), batch_size=4, num_train_epochs=1)
    probing = ProbeConfig(
        baseline=model,
        trained=str(HOME / "trained/train/model"),
        traces=(NamedPath(name="sampled", path=str(HOME / "sampled/traces")),),
        max_batch_tokens=512,
        positions_per_shard=512,
    )
    evaluation = EvalConfig(
        models=(NamedPath(name="base", path=model), NamedPath(name="trained", path=str(HOME / "trained/train/model"))),
        problems=EvalProblemsConfig(sources=(str(HOME / "eval.jsonl"),)),
        prompt=PROMPT,
        max_new_tokens=TOKENS,
    )
    stages: dict[str, Callable[[], Any]] = {
        "sample, one batch": lambda: sample(sampling, HOME / "sampled", SampleExecution(batch_size=64)),
        "train": lambda: train(training, HOME / "trained"),
        "probe": lambda: probe(probing, HOME / "probed"),
        "eval": lambda: evaluate(evaluation, HOME / "evaluated"),
    }
    rows = [{"stage": name, **factor(run)} for name, run in stages.items()]
    rows.append({"stage": f"grade {COMPLETIONS} again", **graded_again()})
    for row in rows:
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
    record("time_left", rows)


if __name__ == "__main__":
    main()
