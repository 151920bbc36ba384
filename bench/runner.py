"""The whole probe against its parts and against a straightforward script: SmolLM2, its fine-tuned twin, real traces.

Used by claims_runner.py; everything is made once, in runs/bench-runner.

Shape legend: N positions, H hidden size, V rows of lm_head.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sums
import torch
from common import ROOT, interleaved
from memory import python
from others import float32_matmuls
from torch import Tensor

from ssdfast import models, traces
from ssdfast.chunked_forward import hidden_states
from ssdfast.config import ExecutionConfig, NamedPath, ProbeConfig, ProblemsConfig, SampleConfig, TrainingRunConfig
from ssdfast.config.train import SCHEDULES
from ssdfast.probing import token_classes
from ssdfast.probing.model_loading import load
from ssdfast.probing.position_stats import TableBuilder
from ssdfast.probing.shard_worker import prepare
from ssdfast.probing.targets import Target
from ssdfast.sampling.runner import sample
from ssdfast.training.runner import train
from ssdfast.workflows.study import demo

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
        return 4 * sum(models.model_info(str(path)).parameters for path in (self.baseline, self.trained))


def studied() -> Pair:
    """SmolLM2-135M-Instruct and a twin trained on its own samples; held-out traces of both beside them."""
    home = HOME / "pair"
    baseline = demo.convert(home / "model")
    demo.write_sums(home / "train_problems.jsonl", home / "eval_problems.jsonl")

    def draw(model: Path, problems: str, count: int, directory: Path) -> None:
        sources = ProblemsConfig(sources=(str(home / problems),), limit_per_source=count, near_duplicate_threshold=1.0)
        sample(SampleConfig(model=str(model), problems=sources, prompt=sums.PROMPT, max_new_tokens=48), directory)

    draw(baseline, "train_problems.jsonl", 32, home / "train")
    train(TrainingRunConfig(model=str(baseline), traces=str(home / "train"), **SCHEDULES["demo"]), home / "trained")
    trained = home / "trained" / "train" / "model"
    for name, model in (("baseline", baseline), ("trained", trained)):
        draw(model, "eval_problems.jsonl", 24, home / "held-out" / name)
    return Pair(baseline, trained)


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


def with_one_layer(model: Any) -> None:
    """For the memory of long traces: another layer adds weights and time, but nothing to the measured memory."""
    model.base_model.layers = model.base_model.layers[:1]
    model.config.num_hidden_layers = 1
    model.config.max_position_embeddings = 65_536


def held_out(label: str) -> Path:
    return HOME / "pair" / "held-out" / label / "traces"


def long_trace(tokens: int) -> Path:
    """One trace of this many tokens: prompts and completions of both models end to end, repeated as needed."""
    directory = HOME / f"trace-{tokens}"
    if not directory.exists():
        sources = (HOME / "pair" / "train" / "traces", held_out("baseline"), held_out("trained"))
        every = [trace for source in sources for trace in traces.read(source)]
        ids = np.concatenate([part for trace in every for part in (trace.prompt_ids, trace.completion_ids)])
        ids = np.resize(ids, tokens)
        row = {"problem_id": ["long"], "sample": [0], "prompt_ids": [ids[:64]], "completion_ids": [ids[64:]]}
        directory.mkdir(parents=True)
        types = {name: traces.SCHEMA.field(name).type for name in row}
        pq.write_table(pa.table({n: pa.array(x, types[n]) for n, x in row.items()}), directory / "part-00000.parquet")
    return directory


def added_time(pair: Pair, source: Path, dtype: Dtype) -> dict[str, float]:
    """Seconds of the forward passes, of statistics and table from their hidden states, and of the bare products alone.

    Each by itself, because the forward passes are most of it and their noise would hide the rest. Bare products are to
    float32 logits, of bf16 the fastest way that torch has on a CPU: float32 copies of the heads, multiplied as bf16.
    "rounded" are those of bf16 to bf16, less than any statistic can be made of.
    """
    sources = (NamedPath(name="real", path=str(source)),)
    config = ProbeConfig(baseline=str(pair.baseline), trained=str(pair.trained), traces=sources, dtype=dtype)
    target = Target("", config, HOME)
    prober = prepare([target], ExecutionConfig(), HOME)
    loaded = [prober.plan.load(item) for batch in prober.plan.shards[0] for item in batch]
    a, b = load(prober.baseline, dtype), load(target.trained, dtype)
    builder = TableBuilder.from_heads(a.model.head, b.model.head, prober.classes, config)
    heads = [x.model.head.weight_VH for x in (a, b)]
    float32_heads = [head_VH.float() for head_VH in heads]
    ids, rows = [trace.read_ids for trace in loaded], [trace.rows for trace in loaded]

    def passes() -> list[list[Tensor]]:
        return [hidden_states(x.model, ids, rows, config.max_batch_tokens, x.way) for x in (a, b)]

    hidden_a, hidden_b = passes()

    def products(heads: list[Tensor]) -> None:
        out_BV = torch.empty(BLOCK, a.model.vocabulary, dtype=heads[0].dtype)
        for head_VH, hidden in zip(heads, (hidden_a, hidden_b), strict=True):
            for block_BH in torch.cat(hidden).to(head_VH.dtype).split(BLOCK):
                torch.mm(block_BH, head_VH.T, out=out_BV[: len(block_BH)])

    def bare() -> None:
        with float32_matmuls("bf16" if dtype == "bfloat16" else "none"):
            products(float32_heads)

    with torch.inference_mode():
        forward = interleaved({"forward": passes}, 0)
        scored = list(zip(loaded, hidden_a, hidden_b, strict=True))
        calls = {"table": lambda: builder.build(scored), "bare": bare, "rounded": lambda: products(heads)}
        return forward | interleaved(calls, 6)


@dataclass(frozen=True)
class Run:
    """One process, from its start to its end."""

    seconds: float
    peak_bytes: int


def probe(pair: Pair, sources: list[Path], out: Path, *more: str) -> Run:
    named = [f"{i}={source}" for i, source in enumerate(sources)]
    command = ["probe", "--baseline", str(pair.baseline), "--trained", str(pair.trained)]
    run = "from ssdfast.cli import run; assert run(sys.argv[1:]) == 0"
    return _timed(run, [*command, "--out", str(out), "--overwrite", *more, "--traces", *named])


def straightforward(pair: Pair, source: Path, out: Path) -> Run:
    outline = models.model_info(str(pair.baseline))
    classes = out.with_suffix(".npy")
    out.mkdir(parents=True, exist_ok=True)
    texts = token_classes.token_texts(outline.tokenizer, outline.vocabulary)
    np.save(classes, token_classes.classify(outline.tokenizer, texts, {}).of_token.numpy())
    run = "import runpy; runpy.run_path('bench/straightforward.py', run_name='__main__')"
    return _timed(run, [str(pair.baseline), str(pair.trained), str(source), str(out), "float32", str(classes)])


def _timed(run: str, args: list[str]) -> Run:
    """A fresh process prints its own peak memory: the system would also count that of its parent."""
    peak = "from ssdfast.memory_usage import resident_bytes; print(resident_bytes('VmHWM'))"
    start = time.perf_counter()
    output = python("-c", f"import sys; {run}; {peak}", *args)
    return Run(time.perf_counter() - start, int(output.split()[-1]))


def worst_column(probed: Path, scripted: Path) -> tuple[str, float]:
    """The column of two tables of the same traces in which most values differ, and their fraction.

    Values differ when they are 1e-3 apart, absolute plus relative. A few may: products in another order change a
    float32 logit by 1e-5, which can decide where a nucleus ends. Ids count where no other token of the list is as
    likely: SmolLM2 has tokens that never occurred, with equal rows of lm_head, and the script breaks ties at random.
    """
    probe_table, script_table = (
        _by_trace(pq.ParquetDataset(sorted(directory.glob("*.parquet"))).read())
        for directory in (probed / "positions", scripted)
    )
    fractions = {}
    for name in script_table.column_names:
        if name == "trace_id":
            assert probe_table[name].to_pylist() == script_table[name].to_pylist()
        else:
            x, y = (np.array(table[name].to_pylist(), float) for table in (probe_table, script_table))
            apart = np.abs(x - y) > 1e-3 + 1e-3 * np.abs(y)
            if name == "ssd_alignment":  # where the shift is tiny, the script's differences of sums are rounding
                variances = (np.array(probe_table[column].to_pylist()) for column in ("logratio_var", "ssd_var"))
                apart = apart[np.logical_and(*(variance > 1e-3 for variance in variances))]
            if name.endswith("top_ids"):
                apart = apart[_without_ties(np.array(probe_table[name.replace("ids", "logprobs")].to_pylist()))]
            fractions[name] = float(apart.mean())
    worst = max(fractions, key=lambda name: fractions[name])
    return worst, fractions[worst]


def _without_ties(falling_NK: np.ndarray) -> np.ndarray:
    """bool [N, K]: which values are 1e-3 away from their neighbours. The last value has only one known neighbour."""
    far = np.diff(falling_NK, axis=1) < -1e-3
    never = np.zeros((len(far), 1), dtype=bool)
    alone: np.ndarray = np.concatenate([~never, far], 1) & np.concatenate([far, never], 1)
    return alone


def _by_trace(table: pa.Table) -> pa.Table:
    keys = list(zip(table["trace_id"].to_pylist(), table["position"].to_pylist(), strict=True))
    return table.take(sorted(range(len(keys)), key=keys.__getitem__))
