"""Token ids are held against the tokenizer and the embedding by every stage, before any model runs."""

import logging
from pathlib import Path

import pytest

from ssdfast import cli, models, trace_checks

from .. import tiny
from .test_models import command, mistake

SENTENCES = {
    "another tokenizer": (
        {"completion_ids": [[2, 4]] * 4, "text": ["But 7"] * 4},
        r"trace problem0#0: its text is 'But 7', but this model's tokenizer decodes its token ids as 'Wait 7': use",
    ),
    "a completion beyond the embedding": (
        {"completion_ids": [[2, tiny.VOCABULARY]] * 4},
        r"trace problem0#0: completion position 1 holds token id 96, outside the models' vocabulary of 96: use",
    ),
    "a prompt beyond the embedding": (
        {"prompt_ids": [[2, 5000]] * 4},
        r"trace problem0#0: prompt position 1 holds token id 5000, outside the models' vocabulary of 96: use",
    ),
    "an id below 0": (
        {"completion_ids": [[-2]] * 4, "text": ["But"] * 4},
        r"trace problem0#0: completion position 0 holds token id -2, outside the models' vocabulary of 96: use",
    ),
}


@pytest.fixture
def inputs(tmp_path):
    tiny.save_model(tmp_path / "model")
    (tmp_path / "problems.jsonl").write_text('{"id": "a", "question": "word3 word83", "answer": "7"}\n')
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    return tmp_path


@pytest.mark.parametrize("stage", ["train", "probe"])
@pytest.mark.parametrize("name", SENTENCES)
def test_traces_that_do_not_fit_the_model_are_refused_by_every_stage(name, stage, inputs, capsys):
    columns, sentence = SENTENCES[name]
    tiny.save_traces(inputs / "traces", 4, **columns)
    line = mistake(capsys, command(stage, inputs, inputs / "model", inputs / "out"))
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(line)


def test_top_ids_beyond_the_embedding_are_refused(inputs, capsys):
    tops = {"top_ids": [[[1, 96]]] * 4, "top_logprobs": [[[-0.5, -1.0]]] * 4}
    tiny.save_traces(inputs / "traces", 4, completion_ids=[[3]] * 4, **tops)
    arguments = [*command("train", inputs, inputs / "model", inputs / "out"), "--loss", "soft"]
    assert "problem0#0: top_ids holds token id 96, outside the model's vocabulary of 96: use" in mistake(
        capsys, arguments
    )


def test_a_prompt_with_ids_beyond_the_embedding_is_refused(inputs, capsys):
    tiny.save_model(inputs / "short", rows=64)
    line = mistake(capsys, command("sample", inputs, inputs / "short", inputs / "out"))
    assert "the prompt of a holds token id 95 ('word83'), and the embedding of" in line
    assert "has 64 rows: use the tokenizer that the model was trained with" in line
    assert not (inputs / "out" / "traces").exists()


def test_sampled_ids_that_no_token_has_are_warned_of(inputs, capsys):
    tiny.save_model(inputs / "padded", rows=4096)
    assert cli.run(command("sample", inputs, inputs / "padded", inputs / "out")) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("sampling:")]
    (message,) = [line for line in said if "cores are busy" not in line]  # which depends on the machine
    assert "2 of 2 token ids of the completions have no token, for the tokenizer ends at id 95: check that" in message


def test_traces_with_ids_that_no_token_has_are_warned_of(inputs, caplog):
    model = models.model_info(tiny.save_model(inputs / "padded", rows=128))
    path = tiny.save_traces(inputs / "traces", 2, completion_ids=[[100, 3], [4, 127]])
    rows = trace_checks.rows_for_model(Path(path), (), model.vocabulary, model.tokenizer)
    with caplog.at_level(logging.WARNING, "ssdfast"):
        assert len(list(rows)) == 2
    assert "2 of 4 token ids of the completions have no token, for the tokenizer ends at id 95" in caplog.text
