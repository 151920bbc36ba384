"""The examples run as they are: the scripts on small models, the notebook in the directory of a study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssdfast.workflows.study.runner import read_study, study
from tests import tiny
from tests.workflows.study.small import file_of, write_inputs

EXAMPLES = Path(__file__).parent.parent / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}


def run(script, *args):
    command = [sys.executable, str(EXAMPLES / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout


def test_own_model(tmp_path):
    tiny.save_model(tmp_path / "a")
    tiny.save_model(tmp_path / "b", moved=0.02)
    printed = run("own_model.py", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert "nats per position" in printed
    assert "base_probability" in printed


def test_own_grader(tmp_path):
    pytest.importorskip("math_verify")
    printed = run("own_grader.py", tmp_path)
    scores = [float(line.split()[-1]) for line in printed.splitlines()[1:]]
    assert scores == [1.0, 0.0, 0.5, 1.0, 0.0, 0.5]


def test_the_notebook(tmp_path, monkeypatch):
    """Every cell runs; a smaller study stands in for the demo's, which takes minutes."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("math_verify")
    inputs = write_inputs(tmp_path)
    file = file_of(inputs, arms=["ssd", "ssd-soft", "control"])
    study(read_study(file), tmp_path / "runs" / "demo")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for source in code for line in source.splitlines()) <= 25
    for cell in notebook.cells:
        cell.source = cell.source.replace('ssd.study("demo"', f"ssd.study({file!r}")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("<table" in str(output.get("data", {}).get("text/html")) for output in outputs)
