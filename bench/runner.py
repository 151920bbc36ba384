"""The whole probe against its parts and against a straightforward script: SmolLM2, its fine-tuned twin, real traces.

Used by claims_runner.py; everything is made once, in runs/bench-runner.

Shape legend: N positions, H hidden size, V rows of lm_head.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import ROOT, interleaved
from torch import Tensor

from ssdfast import models, traces
from ssdfast.config import DemoConfig, ExecutionConfig, ProbeConfig, TraceSource
from ssdfast.demo import demo
from ssdfast.forward import hidden_states
from ssdfast.probing import token_classes
from ssdfast.probing.measure import Measure
from ssdfast.probing.residency import load
from ssdfast.probing.work import prepare

HOME = ROOT / "runs" / "bench-runner"
LARGE = 151_936
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
BLOCK = 256  # rows of a bare product


@dataclass(frozen=True)
class Pair:
    """Two models on disk."""

    baseline: Path
    trained: Path

    @property
    def weight_bytes(self) -> int:
        """Of both, in float32."""
        return 4 * sum(models.outline(str(path)).parameters for path in (self.baseline, self.trained))


def studied() -> Pair:
    """SmolLM2-135M-Instruct and a twin trained on its own samples; held-out traces of both beside them."""
    demo(DemoConfig(train_problems=32, held_out_problems=24), HOME / "demo")
    return Pair(HOME / "demo" / "model", HOME / "demo" / "train" / "checkpoint")


def altered(pair: Pair, name: str, change: Callable[[Any], None]) -> Pair:
    """Copies of both models with `change` made to them."""
    copies = Pair(HOME / name / "baseline", HOME / name / "trained")
    for source, copy in ((pair.baseline, copies.baseline), (pair.trained, copies.trained)):
        if not copy.exists():
            model = models.load(str(source), "bfloat16")
            change(model.model)
            models.save(model, copy)
    return copies


def with_large_head(model: Any) -> None:
    """151,936 rows: the further ones are the first ones with a little noise, so that logits stay like logits."""
    rows = model.get_input_embeddings().weight.data
    torch.manual_seed(0)
    more = rows[torch.arange(LARGE - len(rows)) % len(rows)].float()
    model.resize_token_embeddings(LARGE, mean_resizing=False)
    model.get_input_embeddings().weight.data[len(rows) :] = (more + 0.02 * torch.randn_like(more)).to(rows.dtype)


def with_two_layers(model: Any) -> None:
    """For the memory of long traces: a layer more costs weights and time, and none of what is measured."""
    model.base_model.layers = model.base_model.layers[:2]
    model.config.num_hidden_layers = 2
    model.config.max_position_embeddings = 65_536


def held_out(label: str) -> Path:
    return HOME / "demo" / "traces" / label


def long_trace(tokens: int) -> Path:
    """One trace of so many tokens: what both models were asked and answered, end to end, as often as needed."""
    directory = HOME / f"trace-{tokens}"
    if not directory.exists():
        every = [trace for label in ("train", "baseline", "trained") for trace in traces.read(held_out(label))]
        ids = np.concatenate([part for trace in every for part in (trace.prompt_ids, trace.completion_ids)])
        ids = np.resize(ids, tokens)
        row = {"problem_id": ["long"], "sample": [0], "prompt_ids": [ids[:64]], "completion_ids": [ids[64:]]}
        directory.mkdir(parents=True)
        types = {name: traces.SCHEMA.field(name).type for name in row}
        pq.write_table(pa.table({n: pa.array(x, types[n]) for n, x in row.items()}), directory / "part-00000.parquet")
    return directory


def added_time(pair: Pair, dtype: Dtype) -> tuple[float, float]:
    """Seconds of forward passes, statistics and table of the held-out traces; of forward passes and bare products."""
    sources = tuple(TraceSource(label=label, path=str(held_out(label))) for label in ("baseline", "trained"))
    config = ProbeConfig(baseline=str(pair.baseline), trained=str(pair.trained), traces=sources, dtype=dtype)
    prober = prepare(config, ExecutionConfig(), HOME)
    scored = [[prober.plan.trace(item) for item in batch] for batch in prober.plan.parts[0]]
    a, b = load(prober.a, dtype), load(prober.b, dtype)
    measure = Measure.of(a.model.head, b.model.head, prober.classes, config)
    out_BV = torch.empty(BLOCK, a.model.vocabulary, dtype=getattr(torch, dtype))

    def passes() -> Iterator[tuple[Any, Tensor, Tensor]]:
        for batch in scored:
            ids, rows = [one.read_ids for one in batch], [one.rows for one in batch]
            found = [hidden_states(x.model, ids, rows, config.batch_tokens, x.way) for x in (a, b)]
            yield from zip(batch, *found, strict=True)

    def bare() -> None:
        found = list(passes())
        for model, hidden in ((a, [x for _, x, _ in found]), (b, [x for _, _, x in found])):
            for block_BH in torch.cat(hidden).split(BLOCK):
                torch.mm(block_BH, model.model.head.weight_VH.T, out=out_BV[: len(block_BH)])

    with torch.inference_mode():
        seconds = interleaved({"probe": lambda: measure.table(passes()), "bare": bare}, 20)
    return seconds["probe"], seconds["bare"]


@dataclass(frozen=True)
class Run:
    """One process, from its start to its end."""

    seconds: float
    peak_bytes: int


def probe(pair: Pair, sources: list[Path], out: Path, *more: str) -> Run:
    given = [f"{i}={source}" for i, source in enumerate(sources)]
    command = [
        "-c",
        "from ssdfast.cli import main; main()",
        "probe",
        "--baseline",
        str(pair.baseline),
        "--trained",
        str(pair.trained),
    ]
    return _timed([*command, "--out", str(out), "--overwrite", *more, "--traces", *given])


def straightforward(pair: Pair, source: Path, out: Path) -> Run:
    outline = models.outline(str(pair.baseline))
    classes = out.with_suffix(".npy")
    out.mkdir(parents=True, exist_ok=True)
    texts = token_classes.texts(outline.tokenizer, outline.vocabulary)
    np.save(classes, token_classes.classify(outline.tokenizer, texts, {}).of_token.numpy())
    script = "bench/straightforward.py"
    return _timed([script, str(pair.baseline), str(pair.trained), str(source), str(out), "float32", str(classes)])


def _timed(args: list[str]) -> Run:
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *args], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said = process.stderr.read().decode() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(args)[:80]} failed:\n{said[-2000:]}")
    return Run(time.perf_counter() - start, usage.ru_maxrss * 1024)


def worst_difference(ours: Path, theirs: Path) -> tuple[str, float]:
    """The column that differs most between two tables of the same traces, in units of 1e-3 absolute plus relative.

    Sums of float32 probabilities in another order differ by 1e-6, the quotient of two small variances by more; counts
    and ids, where two tokens are as likely as each other to the last bit, by one place.
    """
    mine, other = (
        _by_trace(pq.ParquetDataset(sorted(directory.glob("*.parquet"))).read())
        for directory in (ours / "probe", theirs)
    )
    worst = ("", 0.0)
    for name in other.column_names:
        if name == "trace_id":
            assert mine[name].to_pylist() == other[name].to_pylist()
            continue
        x, y = (np.array(table[name].to_pylist(), float) for table in (mine, other))
        if name.endswith("top_ids"):
            difference = float((x != y).mean()) * 100
        else:
            difference = float((np.abs(x - y) / (1e-3 + 1e-3 * np.abs(y))).max())
        worst = max(worst, (name, difference), key=lambda found: found[1])
    return worst


def _by_trace(table: pa.Table) -> pa.Table:
    keys = list(zip(table["trace_id"].to_pylist(), table["position"].to_pylist(), strict=True))
    return table.take(sorted(range(len(keys)), key=keys.__getitem__))
