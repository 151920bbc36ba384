"""One small run of every stage, in a directory whose names the doctests use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import pytest
import transformers

import ssdfast as ssd
from tests import tiny
from tests.workflows.study.small import WORDS, file_of, write_inputs

SAMPLING = {"temperature": 1.1, "top_k": 12, "top_p": 0.95}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The directory: ``model``, ``problems.jsonl``, ``study.yaml`` and ``runs/`` with a result of each stage."""
    pytest.importorskip("math_verify")
    here = write_inputs(tmp_path_factory.mktemp("api"))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    tokenizer = transformers.AutoTokenizer.from_pretrained(here / "model")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(here / "model")
    rows = [{"id": f"problem{i}", "question": f"word{i + 30} +", "answer": str(i % 3)} for i in range(8)]
    (here / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file_of(here)
    with contextlib.chdir(here):
        tiny.save_traces(here / "runs" / "traces" / "traces", 8, correct=[i % 2 == 0 for i in range(8)])
        ssd.train(
            model="model", traces="runs/traces", out="runs/trained", batch_size=4, learning_rate=1e-3,
            min_learning_rate=1e-4, save_steps=1, keep_checkpoints=True,
        )  # fmt: skip
        tiny.save_model(here / "moved", moved=0.01, words=WORDS)
        for name, trained in (("probe", ssd.load("runs/trained")), ("probe-control", "moved")):
            ssd.probe(
                baseline="model", trained=trained, traces="runs/traces", train_sampling=SAMPLING, out=f"runs/{name}",
                lse_temperatures=(0.7, 1.0, 1.4), on_sampling_mismatch="allow",
            )  # fmt: skip
        several = {"checkpoint-1": "runs/trained/train/checkpoints/checkpoint-1", "model": ssd.load("runs/trained")}
        ssd.probe(
            baseline="model", trained=several | {"moved": "moved"}, traces="runs/traces", train_sampling=SAMPLING,
            out="runs/probes", lse_temperatures=(0.7, 1.0, 1.4), on_sampling_mismatch="allow",
        )  # fmt: skip
        ssd.evaluate(completions="runs/traces", problems={"sources": "problems.jsonl"}, out="runs/eval")
        ssd.attribute({"ssd": "runs/probe", "control": "runs/probe-control"}, out="runs/attribution")
        ssd.study("study.yaml", out="runs/study")
        yield here


@pytest.fixture
def inside(runs, monkeypatch):
    """The same, as the working directory."""
    monkeypatch.chdir(runs)
    shutil.rmtree("new", ignore_errors=True)
    assert os.path.isdir("runs")
    return runs
