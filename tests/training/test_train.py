"""A training run: complete, killed, rejected; and its metrics and warnings."""

import json
import logging
import multiprocessing
import os
import re
import signal
import time

import pytest
import torch

from ssdfast import cli, models
from ssdfast.config import EngineSamplingParams, TrainingRunConfig
from ssdfast.sampling.token_sampling import top_k_logprobs
from ssdfast.training import runner, step_log, trainer
from ssdfast.training.collate import collate_padded
from ssdfast.training.estimate import estimate
from ssdfast.training.examples import read_examples
from ssdfast.training.label_source import LabelSource, from_frozen_copy
from ssdfast.training.loss import make_trainable

from .. import tiny

SAMPLING = EngineSamplingParams(temperature=1.2, top_k=20, top_p=0.95)


def config_of(directory, **changes):
    given = {"batch_size": 4, "learning_rate": 1e-3, "save_steps": 2, "num_train_epochs": 2}
    return TrainingRunConfig(model=str(directory / "model"), traces=str(directory / "traces"), **(given | changes))


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "train" / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_its_traces_and_is_not_repeated(inputs):
    config = config_of(inputs, learning_rate=1e-2, min_learning_rate=1e-3, num_train_epochs=20)
    trained = runner.train(config, inputs / "out")
    curve = losses(inputs / "out")
    assert len(curve) == 120
    assert sum(curve[-6:]) < 0.5 * sum(curve[:6])
    model = models.load(str(trained), "float32")
    models.shared_vocabulary(models.model_info(str(inputs / "model")), models.model_info(str(trained)))
    assert model.model.lm_head.weight.dtype == torch.float32
    assert not list((inputs / "out" / "train").rglob("training_args.bin"))
    stamp = (trained / "model.safetensors").stat().st_mtime_ns
    runner.train(config, inputs / "out")
    assert (trained / "model.safetensors").stat().st_mtime_ns == stamp


def test_the_schedule_goes_from_peak_to_floor(inputs):
    runner.train(config_of(inputs, learning_rate=1e-3, min_learning_rate=1e-4, warmup_steps=3), inputs / "out")
    lines = [json.loads(line) for line in (inputs / "out" / "train" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines]
    assert rates[:4] == pytest.approx([0, 1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 1e-4 < rates[-1] < 2e-4


def _train(directory):
    runner.train(config_of(directory, num_train_epochs=6), directory / "killed")


def test_a_killed_run_continues_with_the_same_losses_to_the_last_bit(inputs):
    runner.train(config_of(inputs, num_train_epochs=6), inputs / "whole")
    metrics = inputs / "killed" / "train" / "metrics.jsonl"
    for steps in (5, 16):
        run = multiprocessing.get_context("spawn").Process(target=_train, args=(inputs,))
        run.start()
        while run.is_alive() and not (metrics.exists() and metrics.read_text().count("\n") >= steps):
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        assert not (inputs / "killed" / "train" / "model").exists()
    _train(inputs)
    assert losses(inputs / "killed") == losses(inputs / "whole")
    whole, killed = (models.load(str(inputs / name / "train" / "model"), "float32") for name in ("whole", "killed"))
    for a, b in zip(whole.model.parameters(), killed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_incomplete_checkpoint_is_skipped(inputs, monkeypatch):
    """The disk was full, or the process died, while it was written."""
    runner.train(config_of(inputs), inputs / "whole")

    def dying(self, *args, **rest):
        if self.trainer.state.global_step == 6:
            raise OSError("no room")
        return on_save(self, *args, **rest)

    on_save = step_log.StepLog.on_save
    with monkeypatch.context() as patched:
        patched.setattr(step_log.StepLog, "on_save", dying)
        with pytest.raises(OSError, match="no room"):
            runner.train(config_of(inputs), inputs / "out")
    assert (inputs / "out" / "train" / "checkpoints" / "checkpoint-6").exists()
    assert runner._last_complete(inputs / "out" / "train" / "checkpoints")[1] == 4
    runner.train(config_of(inputs), inputs / "out")
    assert losses(inputs / "out") == losses(inputs / "whole")


def save_tops(directory, k=20):
    """The traces with the baseline's top log-probabilities, as sampling stores them."""
    model = models.load(str(directory / "model"), "float32")
    tops = []
    for example in read_examples(directory / "traces", tiny.VOCABULARY):
        ids = torch.tensor([*example.trace.prompt_ids, *example.trace.completion_ids])
        logits_LV = model.model(input_ids=ids[None]).logits[0, len(example.trace.prompt_ids) - 1 : -1]
        tops.append([tensor.tolist() for tensor in top_k_logprobs(logits_LV.detach(), k)])
    sampling = {name: [value] * len(tops) for name, value in SAMPLING.model_dump().items()}
    columns = {"top_ids": [top[0] for top in tops], "top_logprobs": [top[1] for top in tops], **sampling}
    tiny.save_traces(directory / "traces", len(tops), **columns)


def test_stored_soft_labels_are_those_that_a_frozen_copy_computes(inputs):
    save_tops(inputs)
    examples = list(read_examples(inputs / "traces", tiny.VOCABULARY))
    batch = collate_padded(examples[:5])
    frozen = models.load(str(inputs / "model"), "float32")
    stored, computed = (
        LabelSource(SAMPLING, tiny.VOCABULARY, top_logprobs).labels(batch)
        for top_logprobs in (None, from_frozen_copy(frozen))
    )
    dense = [
        torch.zeros(len(ids), tiny.VOCABULARY).scatter_add_(1, ids.clamp(min=0), probs)
        for ids, probs in (stored, computed)
    ]
    torch.testing.assert_close(dense[0], dense[1], rtol=1e-4, atol=1e-6)
    assert examples[0].sampling == SAMPLING


def test_the_gradient_of_the_soft_loss_is_the_expectation_of_the_sampled_one(inputs):
    """At every position, over all tokens that could have been drawn there."""
    save_tops(inputs)
    example = next(iter(read_examples(inputs / "traces", tiny.VOCABULARY)))
    batch = collate_padded([example])
    network = make_trainable(models.load(str(inputs / "model"), "float32").model)
    ids_SK, probs_SK = LabelSource(SAMPLING, tiny.VOCABULARY).labels(batch)
    weight_S = torch.ones(len(ids_SK))

    def gradient(ids, probs):
        network.zero_grad()
        network(batch, ids, probs, weight_S)["loss"].backward()
        return network.lm_head.weight.grad.clone()

    mean = sum(
        gradient(ids_SK[:, k : k + 1], probs_SK[:, k : k + 1].where(ids_SK[:, k : k + 1] >= 0, 0.0))
        for k in range(ids_SK.shape[1])
    )
    torch.testing.assert_close(gradient(ids_SK, probs_SK), mean, rtol=1e-4, atol=1e-6)


def test_the_soft_loss_trains(inputs):
    save_tops(inputs)
    runner.train(config_of(inputs, loss="soft", num_train_epochs=1), inputs / "out")
    assert len(losses(inputs / "out")) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"activation_checkpointing": "full_offload"},
        {"sequence_tile_size": 4},
        {"activation_checkpointing": "full_offload", "sequence_tile_size": 4},
    ],
)
def test_bounded_memory_changes_no_loss(inputs, settings):
    runner.train(config_of(inputs, num_train_epochs=1), inputs / "plain")
    trained = runner.train(config_of(inputs, num_train_epochs=1, **settings), inputs / "bounded")
    assert losses(inputs / "bounded") == pytest.approx(losses(inputs / "plain"), rel=1e-4)
    plain = models.load(str(inputs / "plain" / "train" / "model"), "float32")
    for a, b in zip(plain.model.parameters(), models.load(str(trained), "float32").model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_step_that_is_not_finite_is_skipped_and_named(inputs, monkeypatch, caplog):
    compute = trainer.SsdTrainer.compute_loss
    weights = []

    def poisoned(self, model, given, *args, **rest):
        weights.append(model.lm_head.weight.detach().clone())
        loss = compute(self, model, given, *args, **rest)
        return loss * (float("nan") if self.state.global_step == 2 else 1.0)

    monkeypatch.setattr(trainer.SsdTrainer, "compute_loss", poisoned)
    runner.train(config_of(inputs, num_train_epochs=1), inputs / "out")
    assert "step 3 was skipped" in caplog.text
    assert torch.equal(weights[4], weights[6])  # two micro-batches per step
    assert not torch.equal(weights[6], weights[8])
    assert weights[-1].isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "optimizer", "warns"),
    [
        (torch.bfloat16, "adamw", True),
        (torch.bfloat16, "adamw_bf16", False),  # stochastic rounding
        (torch.float32, "adamw", False),
    ],
)
def test_updates_below_one_ulp_are_warned_of(inputs, monkeypatch, caplog, dtype, optimizer, warns):
    prepare = runner.prepare
    monkeypatch.setattr(runner, "prepare", lambda *given: prepare(*given).to(dtype))
    runner.train(
        config_of(inputs, learning_rate=1e-7, min_learning_rate=1e-7, num_train_epochs=1, optimizer=optimizer),
        inputs / "out",
    )
    assert ("smaller than one ULP" in caplog.text) == warns


def test_a_healthy_run_with_warm_up_is_not_called_dead(inputs, caplog):
    runner.train(config_of(inputs, warmup_steps=3), inputs / "out")
    assert "ULP" not in caplog.text
    assert "warm-up" not in caplog.text


def test_a_dead_run_with_warm_up_is_warned_of_after_its_first_step_and_again(inputs, monkeypatch, caplog):
    prepare = runner.prepare
    monkeypatch.setattr(runner, "prepare", lambda *given: prepare(*given).to(torch.bfloat16))
    config = config_of(inputs, learning_rate=1e-7, min_learning_rate=1e-7, warmup_steps=1)
    runner.train(config, inputs / "out")
    warnings = [record.getMessage() for record in caplog.records if "smaller than one ULP" in record.getMessage()]
    assert [warning.split(" changed")[0] for warning in warnings] == ["step 2", "step 11"]
    assert "as did 10 steps so far" in warnings[1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 32, "num_train_epochs": 1}, "the only step has learning rate 0"),
        ({"batch_size": 12, "num_train_epochs": 1}, "all 2 steps are warm-up"),
    ],
)
def test_a_run_that_ends_within_its_warm_up_says_so(inputs, caplog, settings, sentence):
    config = config_of(inputs, warmup_steps=5, **settings)
    runner.train(config, inputs / "out")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[0].startswith(sentence)
    assert not any("ULP" in warning for warning in warnings)
    assert f"warm-up {sentence}" in estimate(config)


def test_a_trial_prints_metrics_and_leaves_nothing(inputs, capsys):
    args = ["--model", str(inputs / "model"), "--traces", str(inputs / "traces"), "--batch-size", "4"]
    args += ["--trial-steps", "5"]
    assert cli.run(["train", *args, "--out", str(inputs / "out")]) == 0
    printed = capsys.readouterr().out
    assert {"loss", "grad_norm", "frac_weights_changed", "grad_noise_var"} <= {
        line.split()[0] for line in printed.splitlines() if line
    }
    assert not (inputs / "out").exists()


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"completion_ids": [[]] * 3}, {}, "holds no completion tokens"),
        ({"completion_ids": [[3], [200], [4]]}, {}, "problem1#0: completion position 0 holds token id 200"),
        ({}, {"loss": "soft"}, "has no sampling parameters"),
        ({}, {"loss": "soft", "sampling_from": "config"}, "has no top log-probabilities (nor have 2 others)"),
        ({"completion_ids": [[3] * 60] * 3}, {}, "problem0#0 has"),
        ({"completion_ids": [[4, 6]] * 3, "text": ["Let us see"] * 3}, {}, "tokenizer decodes its token ids as '7 +'"),
    ],
)
def test_traces_that_cannot_be_trained_on_are_rejected_by_name(inputs, columns, settings, message):
    tiny.save_traces(inputs / "bad", 3, **({"temperature": [None] * 3} | columns))
    config = config_of(inputs, **settings).model_copy(update={"traces": str(inputs / "bad")})
    with pytest.raises(ValueError, match=re.escape(message)):
        runner.train(config, inputs / "out")


def test_other_settings_are_rejected_for_a_run_that_has_results(inputs):
    runner.train(config_of(inputs), inputs / "out")
    with pytest.raises(ValueError, match=r"learning_rate: 0\.001 there, 0\.002 here"):
        runner.train(config_of(inputs, learning_rate=2e-3), inputs / "out")


def test_the_model_s_context_is_the_limit_whatever_is_allowed(inputs):
    tiny.save_traces(inputs / "long", 2, completion_ids=[[3] * 60, [4]])
    config = config_of(inputs, max_length=1000).model_copy(update={"traces": str(inputs / "long")})
    with pytest.raises(ValueError, match=r"problem0#0 has .* and 48 are allowed"):
        runner.train(config, inputs / "out")


def test_an_estimate_counts_steps_and_tokens_and_leaves_nothing(inputs, capsys):
    args = ["--model", str(inputs / "model"), "--traces", str(inputs / "traces"), "--batch-size", "5"]
    args += ["--num-train-epochs", "2", "--estimate", "--out", str(inputs / "out")]
    assert cli.run(["train", *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    tokens = sum(len(example.trace.completion_ids) for example in read_examples(inputs / "traces", tiny.VOCABULARY))
    assert lines[0] == "traces  24 of 24"
    assert lines[1].startswith("steps   10 ")
    assert lines[2].startswith(f"tokens  {tokens:,} completion tokens per epoch")
    assert re.match(r"memory  0\.0 GB at the peak on a [CG]PU, for a micro-batch of 2,048 tokens", lines[3])
    assert not (inputs / "out").exists()


def test_a_cpu_with_a_matrix_unit_multiplies_in_bfloat16_and_says_so(inputs, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    runner.train(config_of(inputs), inputs / "float32")
    assert "bfloat16" not in caplog.text
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    trained = runner.train(config_of(inputs), inputs / "bfloat16")
    assert "products run in it, weights and their updates in float32" in caplog.text
    assert {weight.dtype for weight in models.load(str(trained), "float32").model.parameters()} == {torch.float32}
    exact, rounded = losses(inputs / "float32"), losses(inputs / "bfloat16")
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=5e-3)
