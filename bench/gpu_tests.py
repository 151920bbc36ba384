"""The tests that need a GPU, on several processes: ``python bench/gpu_tests.py [--processes 8] [--seconds 110]``.

Most of their time is the compilation of kernels. Each process gets every n-th test. What has not ended after the given
seconds is ended and counted as not run. Writes the number of tests that passed and failed, and the names of the failed.
A rehearsal runs one test of each kind in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import REHEARSAL, ROOT, record

REHEARSED = "products_of_the_same or tiles_merge or without_a_gradient or nan_of_a"
_OUTCOME = re.compile(r"^(tests/\S+\.py::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)", re.MULTILINE)


def test_files() -> list[str]:
    """Those with GPU tests: the others may need packages that are not here."""
    files = sorted((ROOT / "tests" / "kernels").glob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if re.search(r"^from \.gpu import", path.read_text(), re.M)]


def collected() -> list[str]:
    """The ids of the tests. Raises RuntimeError where pytest cannot collect them."""
    select = ["-m", "interpreter", "-k", REHEARSED] if REHEARSAL else ["-m", "gpu"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *select, *test_files()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    if done.returncode or not ids:
        raise RuntimeError(f"no tests were collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return ids


def run(ids: list[str], processes: int, seconds: float) -> dict[str, str]:
    """The outcome of each test that ended, by its id."""
    with tempfile.TemporaryDirectory() as directory:
        running = []
        for i in range(min(processes, len(ids))):
            (Path(directory) / f"{i}.args").write_text("\n".join(ids[i::processes]) + "\n", encoding="utf-8")
            log = (Path(directory) / f"{i}.log").open("w", encoding="utf-8")
            command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "--color=no"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command += [f"@{directory}/{i}.args"]
            running.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment))
        end = time.monotonic() + seconds
        for process in running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        logs = [path.read_text(encoding="utf-8") for path in sorted(Path(directory).glob("*.log"))]
    outcomes: dict[str, str] = {}
    for text in logs:
        ended = dict(_OUTCOME.findall(text))
        outcomes |= ended
        if "FAILED" in ended.values() or "ERROR" in ended.values() or not ended:
            print(text[-6000:])
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=110)
    args = parser.parse_args()
    start = time.monotonic()
    ids = collected()
    outcomes = run(ids, args.processes, args.seconds - (time.monotonic() - start))
    failed = sorted(name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR"))
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in sorted(set(outcomes.values()))}
    row = {"collected": len(ids), "ended": len(outcomes), **{k.lower(): v for k, v in counts.items()},
           "failures": failed, "seconds": time.monotonic() - start}  # fmt: skip
    print(f"{len(ids)} tests: {counts}, {len(ids) - len(outcomes)} not run, {row['seconds']:.0f} s")
    for name in failed:
        print(f"failed: {name}")
    print(f"written to {record('tests', [row])}")
    return 1 if failed or len(outcomes) < len(ids) else 0


if __name__ == "__main__":
    sys.exit(main())
