"""The explorer over 10 million synthetic positions: first screen, filters and sorts, memory.

    python bench/view.py [DIRECTORY]

Bars, on 2 cores: first screen under 1.5 s (in Chromium where it is installed), the 95th percentile of a filter, sort or
figure under 0.7 s, memory of the server under 1.5 GB. The table is made once, in DIRECTORY.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssdfast.run_dir import write_json
from ssdfast.sharded_table import ShardedTable, ShardMetadata

POSITIONS = 10_000_000
_SHARD, _TRACE, _TOP, _VOCABULARY = 32_768, 1_024, 5, 50_000
_CLASSES = ("lock", "fork", "diffuse", "mixed")
_FIGURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("histogram", {"column": "kl_trained_base"}),
    ("scatter", {"x": "base_entropy", "y": "trained_entropy"}),
)
_QUERIES: tuple[dict[str, Any], ...] = (
    {"sort": "-kl_trained_base"},
    {"sort": "trained_entropy"},
    {"filters": [["kl_trained_base", ">", 0.5]]},
    {"filters": [["kl_trained_base", ">", 0.3], ["position_class", "=", "fork"]], "sort": "-js"},
    {"filters": [["position_class", "=", "lock"], ["correct", "=", "false"]], "sort": "-base_entropy"},
    {"filters": [["problem_id", "=", "problem-77"]], "sort": "position"},
    {"filters": [["text", "contains", "word77"]], "sort": "-kl_trained_base"},
    {"filters": [["trace_source", "=", "trained"], ["top1_changed", "=", "true"]]},
)


def make(directory: Path) -> None:
    """A finished probe; probabilities and divergences have the spread of real ones."""
    table = ShardedTable(str(directory / "positions"))
    shards = -(-POSITIONS // _SHARD)
    for index in range(len(table.files()), shards):
        table.write(index, _rows(index), ShardMetadata("synthetic"))
    write_json(directory / "vocabulary.json", {str(i): f" word{i}" for i in range(_VOCABULARY)})


def _rows(index: int) -> pa.Table:
    rng = np.random.default_rng(index)
    n = min(_SHARD, POSITIONS - index * _SHARD)
    place_N = np.arange(n) // _TRACE
    traces = int(place_N[-1]) + 1
    ids = [f"problem-{(index * 32 + i) % 3000}#{(index * 32 + i) // 3000}" for i in range(traces)]

    def text(values: list[str], code_N: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(code_N.astype(np.int32), values)

    def lists(values_NK: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values_NK.reshape(-1)), _TOP)

    logp_NK = np.sort(-rng.exponential(3, (n, _TOP)).astype(np.float32), axis=1)[:, ::-1].copy()
    numbers = {
        "kl_trained_base": rng.lognormal(-5, 2, n), "kl_base_trained": rng.lognormal(-5, 2, n),
        "js": rng.lognormal(-6, 2, n), "ssd_alignment": rng.uniform(-1, 1, n), "base_entropy": rng.lognormal(-1, 1, n),
        "trained_entropy": rng.lognormal(-1, 1, n), "base_token_logprob": -rng.exponential(1, n),
        "trained_token_logprob": -rng.exponential(1, n),
    }  # fmt: skip
    return pa.table(
        {
            "trace_id": text(ids, place_N),
            "problem_id": text([name.partition("#")[0] for name in ids], place_N),
            "trace_source": text(["baseline", "trained"], place_N % 2),
            "correct": pa.array(place_N % 3 == 0),
            "position": pa.array((np.arange(n) % _TRACE).astype(np.int32)),
            "token_id": pa.array(rng.integers(0, _VOCABULARY, n, dtype=np.int32)),
            "token_class": text(["other", "digits"], rng.integers(0, 2, n)),
            "position_class": text(list(_CLASSES), rng.choice(4, n, p=(0.6, 0.1, 0.1, 0.2))),
            "top1_changed": pa.array(rng.random(n) < 0.02),
            "self_correction": pa.array(rng.random(n) < 0.01),
            **{name: pa.array(values.astype(np.float32)) for name, values in numbers.items()},
            "base_nucleus_size": pa.array(rng.integers(1, 21, n, dtype=np.int32)),
            "trained_nucleus_size": pa.array(rng.integers(1, 21, n, dtype=np.int32)),
            "base_top_ids": lists(rng.integers(0, _VOCABULARY, (n, _TOP), dtype=np.int32)),
            "base_top_logprobs": lists(logp_NK),
            "trained_logprobs_at_base_top": lists(logp_NK),
        }
    )


def _get(url: str, path: str, **values: Any) -> Any:
    query = urllib.parse.urlencode(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    )
    with urllib.request.urlopen(f"{url}{path}?{query}") as answer:
        return json.loads(answer.read())


def _first_screen(url: str) -> float | None:
    """Seconds until the rows of the table are on the page, in headless Chromium."""
    try:
        from selenium import webdriver
    except ImportError:
        return None
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options) as browser:
        browser.get(url)
        script = "return window.firstScreen || 0"
        for _ in range(400):
            if milliseconds := browser.execute_script(script):
                return float(milliseconds) / 1000
            time.sleep(0.05)
    raise RuntimeError("no rows appeared within 20 s")


def _ask_all(url: str) -> list[float]:
    """Seconds of every filter, sort and figure."""
    requests = [("rows", query) for query in _QUERIES] + list(_FIGURES)
    seconds = []
    for path, values in requests:
        start = time.perf_counter()
        _get(url, f"/api/{path}", table="positions", **values)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/bench-view")
    make(directory)
    command = [sys.executable, "-m", "ssdfast", "view", str(directory), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = ""
        while not url:
            url = next(iter(re.findall(r"http://\S+", server.stdout.readline())), "").rstrip("/")
        try:
            cold = _first_screen(url)
            copying = _ask_all(url)
            while not _get(url, "/api/tables")["tables"][0]["copied"]:
                time.sleep(0.2)
            seconds = [second for _ in range(5) for second in _ask_all(url)]
            peak = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())[0]
        finally:
            server.terminate()
    print(f"{platform.processor() or platform.machine()}, {POSITIONS:,} positions")
    print(f"first screen {'not measured' if cold is None else f'{cold:.2f} s'}")
    p95 = statistics.quantiles(seconds, n=20)[-1]
    print(f"filters, sorts and figures: median {statistics.median(seconds):.2f} s, 95th percentile {p95:.2f} s")
    print(f"while the copy is made, which takes seconds: median {statistics.median(copying):.2f} s")
    print(f"memory of the server {int(peak) / 1e6:.2f} GB at the peak")


if __name__ == "__main__":
    main()
