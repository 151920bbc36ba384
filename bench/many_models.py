"""Several trained models against one baseline: one probe of all against a probe of each. SmolLM2, real traces.

Used by claims_runner.py. Trained models are points on the line from the baseline to its fine-tuned twin, as checkpoints
of its training would be. Every run is a process of its own that counts the CPU seconds of the probe, imports and page
excluded, on one thread: a busy machine changes them little.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import runner
import torch
from claim import Claim
from memory import python

from ssdfast import models
from ssdfast.sharded_table import ShardedTable

HOME = runner.HOME / "many"
MODELS = 6
_PROBE = """
import json, sys, time
from pathlib import Path
import torch, transformers
from ssdfast.config import ExecutionConfig, ManyProbesConfig, ProbeConfig, load
from ssdfast.memory_usage import resident_bytes
from ssdfast.probing.runner import probe
torch.set_num_threads(1)
values, out, mode = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
config = load(ManyProbesConfig if isinstance(values["trained"], dict) else ProbeConfig, values, "")
start = time.process_time()
probe(config, out, ExecutionConfig(num_threads=1, model_loading=mode))
print(json.dumps([time.process_time() - start, resident_bytes("VmHWM")]))
"""
_ADDED = """
import json, sys, time
from pathlib import Path
import torch, transformers
from ssdfast.config import ExecutionConfig, ManyProbesConfig, load
from ssdfast.probing import model_loading, position_stats
from ssdfast.probing.run import Run
from ssdfast.probing.runner import probe
from ssdfast.probing.shard_worker import prepare
torch.set_num_threads(1)
values, out, first, added = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
execution = ExecutionConfig(baseline_states=str(out / "states"), num_threads=1)
finish = model_loading.Prober._finish
def stop(*args):
    raise KeyboardInterrupt
model_loading.Prober._finish = stop  # the baseline has read the traces
try:
    probe(load(ManyProbesConfig, values | {"trained": {"first": first}}, ""), out, execution)
except KeyboardInterrupt:
    model_loading.Prober._finish = finish
config = load(ManyProbesConfig, values | {"trained": {"added": added}}, "")
start = time.process_time()
probe(config, out, execution)
seconds = time.process_time() - start
prober = prepare(Run.of(config, out, execution).targets, ExecutionConfig(), Path())
target, dtype = prober.targets[0], prober.plan.config.dtype
base, trained = model_loading.load(prober.baseline, dtype), model_loading.load(target.trained, dtype)
trained.way
(file,) = (out / "states").iterdir()
import safetensors.torch
hidden = safetensors.torch.load_file(file)
builder = position_stats.TableBuilder.from_heads(base.model.head, trained.model.head, prober.classes, target.config)
start = time.process_time()
rows = []
for batch in prober.plan.batches(0):
    for trace, own in zip(batch, position_stats.forward(trained.model, trained.way, batch, config.max_batch_tokens)):
        rows.append((trace, hidden[str(len(rows))], own))
builder.build(rows)
print(json.dumps([seconds, time.process_time() - start]))
"""
LONG = (8_192,)
"""tokens of the traces at which a model is added: loading and planning take some six seconds, whatever the traces"""


@dataclass(frozen=True)
class Run:
    cpu_seconds: float
    peak_bytes: int


def trained_models(pair: runner.Pair, count: int) -> dict[str, Path]:
    """Models between the baseline and its twin, the twin last."""
    paths = {f"step-{i}": HOME / f"step-{i}" for i in range(1, count + 1)}
    missing = [(i, path) for i, path in enumerate(paths.values(), 1) if not path.exists()]
    if missing:
        base, twin = (models.load(str(path), "float32") for path in (pair.baseline, pair.trained))
        start = {name: weight.clone() for name, weight in base.model.state_dict().items()}
        end = twin.model.state_dict()
        for i, path in missing:
            with torch.no_grad():
                for name, weight in base.model.state_dict().items():
                    weight.copy_(start[name] + (end[name] - start[name]) * i / count)
            models.save(base, path)
    return paths


def probe(values: dict, out: Path, mode: str = "auto") -> Run:
    shutil.rmtree(out, ignore_errors=True)
    output = python("-c", _PROBE, json.dumps(values), str(out), mode)
    return Run(*json.loads(output.splitlines()[-1]))


def claims(pair: runner.Pair) -> Iterator[Claim]:
    """The bars of one probe of six models, and of a seventh that is added."""
    trained = trained_models(pair, MODELS + 1)
    six = dict(list(trained.items())[:MODELS])
    path = trained[f"step-{MODELS + 1}"]
    source = {"name": "baseline", "path": str(runner.held_out("baseline"))}
    shared = {"baseline": str(pair.baseline), "traces": [source]}
    alone: dict[str, Run] = {}
    for number, (name, model) in enumerate(six.items()):
        alone[name] = probe({**shared, "trained": str(model)}, HOME / f"alone-{name}")
        if number == MODELS // 2:  # in between, so that a busy moment affects both
            together = probe({**shared, "trained": {n: str(p) for n, p in six.items()}}, HOME / "out")
    separate = sum(run.cpu_seconds for run in alone.values())
    ratio = together.cpu_seconds / separate
    yield Claim(f"{MODELS} trained models in one probe, CPU time over {MODELS} probes", ratio, 0.62, "x")
    yield Claim("columns that differ in a byte from those of separate probes", sum(map(_differing, six)), 0)
    pairs = max(run.peak_bytes for run in alone.values())
    turns = probe({**shared, "trained": str(six["step-1"])}, HOME / "in-turn", mode="sequential")
    peak = together.peak_bytes
    yield Claim("its peak memory over that of one pair, both in memory", peak / pairs, 1.1, "x")
    yield Claim("its peak memory over that of one pair, one model at a time", peak / turns.peak_bytes, 1.1, "x")
    disk = table_bytes(HOME / "out") / sum(table_bytes(HOME / f"alone-{name}") for name in six)
    yield Claim(f"its tables' disk over those of {MODELS} probes", disk, 0.65, "x")
    shared["traces"] = [{"name": str(tokens), "path": str(runner.long_trace(tokens))} for tokens in LONG]
    shutil.rmtree(HOME / "added", ignore_errors=True)
    words = json.dumps(shared), str(HOME / "added"), str(six["step-1"]), str(path)
    seconds, floor = json.loads(python("-c", _ADDED, *words).splitlines()[-1])
    what = f"a model added at {sum(LONG):,} tokens, states kept, over its forward pass, heads, statistics and table"
    yield Claim(what, seconds / floor, 1.1, "x")
    print(f"     {floor:.0f} s; one pair {separate / MODELS:.0f} s; all six {together.cpu_seconds:.0f} s of CPU time")


def _differing(name: str) -> int:
    """The number of columns of a model in which its part of the probe of all differs from its own probe."""
    ours, theirs = (
        pa.concat_tables([shard.read() for shard in ShardedTable(str(path / "positions")).shards()])
        for path in (HOME / "out" / "models" / name, HOME / f"alone-{name}")
    )
    assert set(ours.column_names) == set(theirs.column_names)
    return sum(not ours[column].equals(theirs[column]) for column in theirs.column_names)


def table_bytes(directory: Path) -> int:
    """Of all Parquet files in a directory."""
    return sum(os.path.getsize(file) for file in directory.rglob("*.parquet"))
