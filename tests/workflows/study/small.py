"""A study small enough for a test: a random model, eight problems of training and eight of evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ... import tiny

WORDS = [*tiny.WORDS, *(rf"\boxed{{{n}}}" for n in range(30))]


def write_inputs(directory: Path, words: list[str] = WORDS, difficulty: str | None = None) -> Path:
    tiny.save_model(directory / "model", words=words)
    for name, first in (("train", 0), ("eval", 20)):
        rows = [
            {"id": f"p{i}", "question": f"word{i} word{i + 9} +", "answer": str(i % 3)} for i in range(first, first + 8)
        ]
        if difficulty is not None:
            rows = [row | {"difficulty": difficulty} for row in rows]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    return directory


def file_of(directory: Path, **changes) -> str:
    """A study of two arms."""
    given = {
        "model": str(directory / "model"),
        "train_problems": {"sources": [str(directory / "train.jsonl")]},
        "eval_problems": {"sources": [str(directory / "eval.jsonl")]},
        "prompt": {"instruction": "{question}", "chat_template": str(directory / "chat.jinja")},
        "train_max_new_tokens": 12,
        "eval_max_new_tokens": 12,
        "training": {"learning_rate": 1e-3, "min_learning_rate": 1e-4, "batch_size": 4},
        "arms": ["ssd", "control"],
    }
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump(given | changes))
    return str(path)
