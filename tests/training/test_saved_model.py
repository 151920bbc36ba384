"""What is left of a training: a model that others can read, as its owner would have saved it."""

import json
import stat

import pytest
import safetensors
import torch
import transformers

from ssdfast.training import runner

from .test_train import config_of


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_model_has_the_dtype_that_was_chosen(inputs, dtype):
    trained = runner.train(config_of(inputs, num_train_epochs=1, model_dtype=dtype), inputs / "out")
    with safetensors.safe_open(trained / "model.safetensors", "pt") as weights:
        dtypes = {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16 if dtype == "bfloat16" else torch.float32}
    assert transformers.AutoModelForCausalLM.from_pretrained(trained, dtype="auto").dtype in dtypes


def test_use_cache_is_as_it_was_and_others_may_read_all_files(inputs):
    trained = runner.train(config_of(inputs, num_train_epochs=1), inputs / "out")
    assert json.loads((trained / "config.json").read_text())["use_cache"] is True
    assert all(file.stat().st_mode & stat.S_IROTH for file in trained.iterdir())


def test_the_card_names_the_baseline_the_traces_and_the_settings(inputs):
    config = config_of(inputs, num_train_epochs=1, learning_rate=3e-4)
    card = (runner.train(config, inputs / "out") / "README.md").read_text()
    assert f"base_model: {config.model}" in card
    for words in (config.traces, "| `learning_rate` | 0.0003 |", "| `loss` | sampled |", "traces"):
        assert words in card
