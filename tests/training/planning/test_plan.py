"""A plan counts every byte of weights, gradients and optimizer states in its category."""

from __future__ import annotations

import json
from unittest.mock import patch

import pytest
import torch
import transformers
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from ssdfast import cli
from ssdfast.config import PlanConfig, TrainConfig
from ssdfast.training.planning import meta_step, op_costs
from ssdfast.training.planning.known_models import KNOWN_MODELS, text_config
from ssdfast.training.planning.memory_tracker import HOST
from ssdfast.training.planning.meta_step import (
    GRADIENTS,
    LAYER,
    MASTER,
    OPTIMIZER,
    SAVED,
    WEIGHTS,
    device_bytes,
    forward_backward_peak,
)
from ssdfast.training.planning.plan import plan, plan_alternatives

from ..models import build, config

TOKENS = 300


@pytest.fixture
def directory(tmp_path):
    """A model directory with only its config.json."""
    config("qwen3").save_pretrained(tmp_path)
    return str(tmp_path)


def planned(directory, **settings):
    settings = {"seq_lengths": (TOKENS,), "sequence_tile_size": 128, "compare_settings": False} | settings
    return plan(PlanConfig(model=directory, **settings))[-1]


def weights(name="qwen3"):
    return sum(p.numel() for p in build(config(name)).parameters())


def test_weights_gradients_and_moments_are_all_there(directory):
    n = weights()
    steps = 4 * len(list(build(config("qwen3")).parameters()))  # each counts its own
    buffers = 100
    by_category = planned(directory).by_category
    assert 0 <= by_category[MASTER] - 4 * n < buffers
    assert by_category[GRADIENTS] == 4 * n
    assert 0 <= by_category[OPTIMIZER] - 8 * n <= steps
    in_bf16 = planned(directory, optimizer="adamw_bf16").by_category
    assert in_bf16[MASTER] == 0
    assert 0 <= in_bf16[WEIGHTS] - 2 * n < buffers
    assert (in_bf16[GRADIENTS], in_bf16[OPTIMIZER]) == (4 * n, 4 * n)
    on_cpu = planned(directory, device="cpu").by_category
    assert 0 <= on_cpu[WEIGHTS] - 4 * n < buffers
    assert (on_cpu[MASTER], on_cpu[HOST]) == (0, 0)


def test_offloaded_moments_and_layer_inputs_are_on_the_host(directory):
    there, here = planned(directory, offload_optimizer=True), planned(directory)
    inputs = 3 * _power_of_two(TOKENS * 32 * 2)  # of two layers and the last norm
    moments = sum(2 * _power_of_two(4 * p.numel()) for p in build(config("qwen3")).parameters())
    assert here.host == inputs
    assert inputs + moments <= there.host <= inputs + moments + 3 * 4 * 96 * 32  # a weight at a time passes through
    assert there.peak < here.peak
    assert there.by_category[OPTIMIZER] == 0


def test_full_checkpointing_keeps_layer_inputs_on_the_device(directory):
    offloaded, full = planned(directory), planned(directory, activation_checkpointing="full")
    assert full.host == 0
    assert full.by_category[SAVED] - offloaded.by_category[SAVED] == 2 * TOKENS * 32 * 2  # of two layers, bfloat16


def test_optimizer_states_in_8_bits_take_a_quarter_of_large_weights():
    with torch.device("meta"):
        large, small = torch.empty(64, 64), torch.empty(32)
    assert meta_step._state_bytes(large, "adamw_8bit") == 2 * 4096 + 2 * 16 * 4
    assert meta_step._state_bytes(small, "adamw_8bit") == 8 * 32


def test_settings_bound_what_grows_with_the_sequence(directory):
    plain, recomputed, tiled = (
        planned(directory, seq_lengths=(8192,), activation_checkpointing=checkpointing, sequence_tile_size=tile)
        for checkpointing, tile in (("none", 0), ("full_offload", 0), ("full_offload", 256))
    )
    assert plain.peak > recomputed.peak > tiled.peak
    assert plain.by_category[SAVED] > 8192 * 32 * 4 * 2  # more than a layer's input, of two layers
    assert tiled.by_category[SAVED] < plain.by_category[SAVED] / 10
    assert planned(directory, seq_lengths=(16384,), sequence_tile_size=256).peak > tiled.peak


@pytest.mark.parametrize("tile", [0, 128])
def test_a_measured_delta_rule_takes_the_bytes_of_the_rule_itself(tile: int):
    settings = TrainConfig(activation_checkpointing="full_offload", sequence_tile_size=tile, layer_kernels="torch")
    replayed = forward_backward_peak(config("qwen3_5"), settings, True, TOKENS, 1)
    with patch.object(op_costs, "DELTA_RULE", "nothing of this name"):
        itself = forward_backward_peak(config("qwen3_5"), settings, True, TOKENS, 1)
    assert itself[LAYER] > 0
    assert replayed[LAYER] == pytest.approx(itself[LAYER], rel=1e-3)
    assert device_bytes(replayed) == pytest.approx(device_bytes(itself), rel=1e-3)


def test_the_published_shapes_have_their_weights():
    counts = {}
    for name in KNOWN_MODELS:
        with torch.device("meta"):
            network = transformers.AutoModelForCausalLM.from_config(text_config(name))
        counts[name] = sum(p.numel() for p in network.parameters())
    assert counts["qwen3-4b"] == 4_022_468_096  # as its card and its files say
    assert counts["qwen3.5-4b"] == pytest.approx(4.2e9, rel=0.01)  # without the eyes


def test_comparison_has_every_setting_at_every_length(directory):
    rows = list(plan_alternatives(PlanConfig(model=directory, seq_lengths=(200, 100))))
    assert [[step.seq_length for step in row] for row in rows] == [[100, 200]] * 6
    assert len({row[0].settings for row in rows}) == 6


def test_command_says_what_fits_and_keeps_the_numbers(directory, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["plan", "--model", directory, "--seq-lengths", "100", "300", "--device-gb", "0.001", "--out", str(out)]
    assert cli.run(args) == 0
    printed = capsys.readouterr().out
    assert "fits 0.001 GB" in printed
    assert "adamw_8bit, checkpointing full_offload, tiles 2048" in printed
    rows = json.loads((out / "plan.json").read_text())["plans"]
    assert [row["seq_length"] for row in rows[:2]] == [100, 300]
    for row in rows:
        assert row["peak_bytes"] == sum(row["peak_bytes_by_category"].values())
    fits = next(line for line in printed.splitlines() if line.startswith("fits")).split()[-2:]
    assert fits == ["yes" if row["peak_bytes"] <= 1e6 else "no" for row in rows[:2]]
    assert "saved activations" in (out / "plan.svg").read_text()


def test_bad_input_is_one_sentence(directory, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    linear = tmp_path / "linear"
    config("qwen3_5").save_pretrained(linear)
    for model, more, message in (
        (str(tmp_path / "nowhere"), [], "nor one of qwen3-4b, qwen3.5-4b"),
        (str(tmp_path / "broken"), [], "config.json is no JSON"),
        (str(linear), ["--sequence-tile-size", "100"], "multiple of 64"),
    ):
        assert cli.run(["plan", "--model", model, "--seq-lengths", "128", "--no-compare-settings", *more]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert message in lines[0]
    with pytest.raises(ValueError, match="off a GPU"):
        PlanConfig(model=directory, device="cpu", offload_optimizer=True)


def test_a_layer_that_reads_values_is_named(directory, monkeypatch):
    monkeypatch.setattr(Qwen3MLP, "forward", lambda self, hidden: hidden * float(hidden.detach().sum()))
    with pytest.raises(ValueError, match="Qwen3ForCausalLM cannot be planned"):
        forward_backward_peak(text_config(directory), TrainConfig(layer_kernels="torch"), True, 10, 1)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
