"""An evaluation that samples batch after batch of problems, until the comparison of every checkpoint is decided."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import EvalConfig
from ..evaluation.samples import RunSamples, check_prompts, split_by_run
from ..evaluation.stats.power import ALPHA
from ..evaluation.stats.sequential import SequentialTest
from ..evaluation.summary import run_scores

_log = logging.getLogger("ssdfast.evaluation")


def compare_in_batches(
    config: EvalConfig,
    problems: Sequence[str],
    sample: Callable[[str, list[str], int, int], list[RunSamples]],
    grade: Callable[[list[RunSamples]], pa.Table],
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The graded samples, and the looks of each comparison as in results.json.

    problems: in the order in which they are taken. sample: of a checkpoint, these problems, the batch's number from 1,
    and the number of batches. A checkpoint whose comparison is decided is sampled no further.
    """
    checkpoints = [model.name for model in config.models]
    baseline = config.baseline_name
    alpha = ALPHA / (len(checkpoints) - 1)  # every checkpoint is a comparison of its own
    open_tests = {
        checkpoint: SequentialTest(len(problems), config.sequential.equivalence_margin, alpha)
        for checkpoint in checkpoints
        if checkpoint != baseline
    }
    tests, tables = dict(open_tests), []
    batches = np.array_split(np.array(problems, object), min(config.sequential.max_looks, len(problems)))
    for number, batch in enumerate(batches, 1):
        runs: list[RunSamples] = []
        for checkpoint in (baseline, *open_tests):
            runs += sample(checkpoint, batch.tolist(), number, len(batches))
        check_prompts(runs, config.on_prompt_mismatch == "allow")
        tables.append(grade(runs))
        means = {run.checkpoint: run_scores(rows).mean_P for run, rows in split_by_run(tables[-1]).items()}
        for checkpoint, test in list(open_tests.items()):
            look = test.look(means[checkpoint] - means[baseline])
            difference = look.difference_pp
            _log.info(
                f"{checkpoint} against {baseline} after {look.problems:,} problems: {difference.value:+.1f}"
                f" percentage points [{difference.ci_low:+.1f}, {difference.ci_high:+.1f}],"
                f" {look.decision.replace('_', ' ')}"
            )
            if look.stopped:
                del open_tests[checkpoint]
        if not open_tests:
            break
    sequences = [
        {
            "baseline": baseline,
            "run": checkpoint,
            "equivalence_margin_pp": test.equivalence_margin_pp,
            "alpha": test.alpha,
            "max_problems": test.max_problems,
            "max_looks": len(batches),
            "looks": [asdict(look) for look in test.looks],
        }
        for checkpoint, test in tests.items()
    ]
    return pa.concat_tables(tables), sequences
