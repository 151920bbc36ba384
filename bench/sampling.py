"""Sampling on SmolLM2: against one `generate()` call, through kills, and the cost of loop detection.

Used by claims_sampling.py; the model is converted once, in runs/bench-sampling.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import torch
import transformers
from common import ROOT

from ssdfast import models
from ssdfast.config import EngineSamplingParams, ProblemsConfig, SampleConfig
from ssdfast.loop_detection import LoopDetector, LoopRule
from ssdfast.sampling.engine import Request, Rules
from ssdfast.sampling.requests import make_plan
from ssdfast.sampling.transformers import TransformersEngine
from ssdfast.workflows.study.demo import convert

HOME = ROOT / "runs" / "bench-sampling"
PROBLEMS = "reasoning-gym:gsm_symbolic"
SAMPLING = EngineSamplingParams(temperature=1.1, top_k=20, top_p=0.95)
PROMPTS, TOKENS = 64, 64
SHORTEST, LONGEST = 16, 256  # traces of unequal lengths: what a model that stops by itself gives
BATCHES = (32, 64)  # 16 is slower by a third
KILLS = 10


def model_path() -> Path:
    return convert(HOME / "model")


def requests(tokens: int = TOKENS) -> list[Request]:
    problems = ProblemsConfig(sources=(PROBLEMS,), limit_per_source=PROMPTS)
    return make_plan(SampleConfig(model=str(model_path()), problems=problems, max_new_tokens=tokens)).requests


class Race:
    """The same prompts and as many tokens through the engine, and through `generate` by hand.

    unequal: traces of SHORTEST to LONGEST tokens in the place of TOKENS each. `generate` does not know which trace will
    be the longest of its batch: all of them run until that one ends, and what is beyond a trace's end does not count.
    """

    def __init__(self, unequal: bool = False) -> None:
        self.model = models.load(str(model_path()), "float32")
        transformers.utils.logging.set_verbosity_error()
        self.requests = requests()
        if unequal:
            lengths = random.Random(0).choices(range(SHORTEST, LONGEST + 1), k=PROMPTS)
            self.requests = [
                dataclasses.replace(request, max_new_tokens=length)
                for request, length in zip(self.requests, lengths, strict=True)
            ]
        self.loops = LoopRule()
        self.traces: list[list[int]] = []
        """of the engine's last turn"""

    def engine(self) -> list[list[int]]:
        """With one seed per trace and loop detection; no token ends a text, so that all have the same length."""
        rules = Rules(SAMPLING, frozenset(), self.loops)
        completions = TransformersEngine(self.model, rules, PROMPTS).complete(self.requests, lambda tokens: None)
        return [completion.ids for completion in completions]

    def generate(self, batch: int) -> int:
        """The wanted tokens of one `generate` call per batch: prompts sorted by length, padded to the longest."""
        tokens = 0
        ordered = sorted(self.requests, key=lambda request: len(request.prompt_ids))
        for start in range(0, PROMPTS, batch):
            together = ordered[start : start + batch]
            prompts = [request.prompt_ids for request in together]
            most = max(request.max_new_tokens for request in together)
            longest = max(map(len, prompts))
            ids_BL = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
            mask_BL = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
            self.model.model.generate(
                input_ids=ids_BL, attention_mask=mask_BL, do_sample=True, temperature=1.1, top_k=20, top_p=0.95,
                max_new_tokens=most, min_new_tokens=most, pad_token_id=0,
            )  # fmt: skip
            tokens += sum(request.max_new_tokens for request in together)
        return tokens

    def run(self) -> tuple[float, float, int]:
        """Tokens per second of the engine and of `generate` at its best batch size, and that batch size."""
        speeds = {batch: self._speed(partial(self.generate, batch)) for batch in BATCHES}
        best = max(speeds, key=lambda batch: speeds[batch])
        engine, generate = [], [speeds[best]]
        engine.append(self._speed(self._count))
        generate.append(self._speed(partial(self.generate, best)))
        engine.append(self._speed(self._count))
        return statistics.mean(engine), statistics.mean(generate), best

    def vllm(self) -> float | None:
        """Tokens per second of vLLM's CPU build, where the environment of `make test-vllm` is there."""
        python = ROOT / ".venv-vllm" / "bin" / "python"
        if not python.exists():
            return None
        file = HOME / "requests.json"
        file.write_text(json.dumps([[request.prompt_ids, request.max_new_tokens] for request in self.requests]))
        script = ROOT / "bench" / "sampling_vllm.py"
        command = [str(x) for x in (python, script, model_path(), file, torch.get_num_threads())]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return float(printed.split("tokens per second")[-1])

    def _count(self) -> int:
        self.traces = self.engine()
        return sum(map(len, self.traces))

    @staticmethod
    def _speed(draw: Callable[[], int]) -> float:
        start = time.perf_counter()
        tokens = draw()
        return tokens / (time.perf_counter() - start)


def loop_seconds_per_token(traces: list[list[int]]) -> float:
    """Seconds of loop detection per token, on the engine's traces and on one long trace, fed token by token."""
    long = [token for ids in traces for token in ids] * 4
    start = time.perf_counter()
    for ids in [*traces, long]:
        detector = LoopDetector(LoopRule(min_repeats=1000, max_period=LoopRule().max_period))
        for token in ids:
            detector.feed((token,))
    return (time.perf_counter() - start) / (sum(map(len, traces)) + len(long))


def periods_until_detected(period: int, before: list[int]) -> float:
    """The number of periods after which a loop that begins after `before` is detected."""
    rng = random.Random(0)
    tokens_of_period = [rng.randrange(49_152) for _ in range(period)]
    detector = LoopDetector(LoopRule())
    detector.feed(before)
    tokens = 0
    while not detector.feed((tokens_of_period[tokens % period],)):
        tokens += 1
    return (tokens + 1) / period


def killed_run() -> tuple[int, dict[tuple[str, int], list[int]], list[tuple[tuple[str, int], list[int]]]]:
    """Kills survived by a run of 200 traces, the ids of an undisturbed one, and all rows of the killed one."""
    whole, killed = HOME / "whole", HOME / "killed"
    for out in (whole, killed):
        shutil.rmtree(out, ignore_errors=True)
    rng, kills = random.Random(0), 0
    _command(whole, 32).communicate()
    done = False
    while not done:
        process = _command(killed, rng.randint(3, 12))
        target = _written(killed) + rng.randint(1, 20_000)
        while process.poll() is None and (kills == KILLS or _written(killed) < target):
            time.sleep(0.01)
        done = process.poll() is not None
        if not done:
            process.kill()
            process.communicate()
            kills += 1
    return kills, dict(_rows(whole)), _rows(killed)


def _command(out: Path, batch: int) -> subprocess.Popen[bytes]:
    run = "import torch, sys; torch.set_num_threads(2); from ssdfast.cli import run; sys.exit(run(sys.argv[1:]))"
    options = ["--problems.sources", PROBLEMS, "--problems.limit-per-source", "100", "--samples-per-problem", "2"]
    command = ["sample", "--model", str(model_path()), "--out", str(out), "--batch-size", str(batch), *options]
    command += ["--max-new-tokens", "16", "--dtype", "float32"]  # whose traces are the same in any batch
    return subprocess.Popen([sys.executable, "-c", run, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _written(out: Path) -> int:
    """Grows with each trace that is on disk."""
    parts = len(list((out / "traces").glob("shard-*")))
    return sum(path.stat().st_size for path in (out / "traces").glob(".journal-*")) + 10**6 * parts


def _rows(out: Path) -> list[tuple[tuple[str, int], list[int]]]:
    table = pq.read_table(out / "traces", columns=["problem_id", "sample", "completion_ids"])
    return [((row["problem_id"], row["sample"]), row["completion_ids"]) for row in table.to_pylist()]
