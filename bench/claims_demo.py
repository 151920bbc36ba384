"""The claims about the demo study, from installed packages to the report, and about the page of a study."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator

import report_page
from claim import Claim
from claims_study import page
from common import ROOT
from memory import python

PRESET = "demo"
HOME = ROOT / "runs" / "bench-demo"
# The peak is that of the process and of its children, the workers that grade answers.
_RUN = """
import resource, sys
from ssdfast.cli import run
code = run(["study", "demo", "--out", sys.argv[1]])
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(max(peaks) * 1024)
sys.exit(code)
"""


def on_cpu() -> Iterator[Claim]:
    """Three arms of one seed, from nothing; again, which does nothing; then its page, at the traces of the probe's."""
    shutil.rmtree(HOME, ignore_errors=True)
    for run, bar in (("the demo", 360), ("the demo again", 10)):
        start = time.perf_counter()
        peak = json.loads(python("-c", _RUN, str(HOME)).splitlines()[-1])
        yield Claim(f"{run}, from installed packages to the report", time.perf_counter() - start, bar, "s")
        if run == "the demo":
            yield Claim("peak memory of the demo", peak / 1e9, 6, "GB")
    yield from page("a study's page", report_page.study_page(PRESET, HOME))


def on_gpu() -> Iterator[Claim]:
    """There are none: the bars are those of two CPU cores."""
    return iter(())
