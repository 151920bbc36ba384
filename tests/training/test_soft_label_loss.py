"""SoftLabelLoss inside other people's trainers is the loss of our own."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM

import ssdfast as ssd
from ssdfast.config import EngineSamplingParams
from ssdfast.traces import Trace
from ssdfast.training.collate import collate_padded
from ssdfast.training.examples import Example
from ssdfast.training.label_source import LabelSource
from ssdfast.training.loss import make_trainable

from .. import tiny

trl = pytest.importorskip("trl")

TOP = 20
SAMPLING = ssd.SamplingParams(temperature=1.1, top_k=12, top_p=0.9)


def rows(count=5, seed=0):
    """Rows of a data set, with a teacher's distribution for every token but the first."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for row in range(count):
        length, prompt = 9 + row, 3 + row % 2
        ids = torch.randint(2, tiny.VOCABULARY, (length,), generator=generator)
        logp_LV = (3 * torch.randn(length, tiny.VOCABULARY, generator=generator)).log_softmax(1)
        top = logp_LV.topk(TOP, 1)
        labels = ids.clone()
        labels[:prompt] = -100
        found.append(
            {"input_ids": ids.tolist(), "labels": labels.tolist(), "top_ids": top.indices.tolist(),
             "top_logprobs": top.values.tolist()}
        )  # fmt: skip
    return found


@pytest.fixture
def model(tmp_path):
    return AutoModelForCausalLM.from_pretrained(tiny.save_model(tmp_path / "model"), dtype=torch.float32)


def ours(model, data, sampling):
    """(loss, gradients) of the package's own trainer."""
    network = make_trainable(copy.deepcopy(model))
    examples = []
    for i, row in enumerate(data):
        prompt = row["labels"].count(-100)
        ids = torch.tensor(row["input_ids"], dtype=torch.int32).numpy()
        trace = Trace(f"p{i}#0", f"p{i}", ids[:prompt], ids[prompt:], "file")
        examples.append(
            Example(
                trace, sampling=None, top_ids_LK=torch.tensor(row["top_ids"])[prompt:].numpy(),
                top_logprobs_LK=torch.tensor(row["top_logprobs"])[prompt:].numpy(),
            )
        )  # fmt: skip
    inputs = collate_padded(examples)
    labels = LabelSource(EngineSamplingParams(**sampling.model_dump()), tiny.VOCABULARY).labels(inputs)
    loss = network(inputs, *labels, torch.full((len(labels[0]),), 1 / len(labels[0])))["loss"]
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in network.named_parameters()}


def arguments(kind, tmp_path, **values):
    return kind(
        output_dir=str(tmp_path / "out"), per_device_train_batch_size=5, remove_unused_columns=False, report_to="none",
        use_cpu=True, bf16=False, disable_tqdm=True, **values,
    )  # fmt: skip


def make_trainer(name, model, loss, data, tmp_path, **values):
    dataset = Dataset.from_list(data)
    if name == "transformers":
        args = arguments(transformers.TrainingArguments, tmp_path, **values)
        return transformers.Trainer(
            model, args, train_dataset=dataset, data_collator=loss.collate, compute_loss_func=loss
        )
    args = arguments(
        trl.SFTConfig, tmp_path, dataset_kwargs={"skip_prepare_dataset": True}, gradient_checkpointing=False, **values
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trl.SFTTrainer(
            model, args, train_dataset=dataset, data_collator=loss.collate, compute_loss_func=loss,
            processing_class=tiny.tokenizer(),
        )  # fmt: skip


@pytest.mark.parametrize("name", ["transformers", "trl"])
def test_loss_and_gradients_are_those_of_our_trainer(name, model, tmp_path):
    data = rows()
    want, gradients = ours(model, data, SAMPLING)
    trainer = make_trainer(name, model, ssd.SoftLabelLoss(model, SAMPLING), data, tmp_path)
    (batch,) = trainer.get_train_dataloader()
    found = trainer.training_step(trainer.model, batch)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    for parameter, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[parameter], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["transformers", "trl"])
def test_a_whole_training_lowers_the_loss(name, model, tmp_path):
    loss = ssd.SoftLabelLoss(model, SAMPLING)
    trainer = make_trainer(
        name, model, loss, rows(), tmp_path, num_train_epochs=12, learning_rate=3e-3, logging_steps=1,
        lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[0] == pytest.approx(float(ours_of_fresh(tmp_path)), abs=1e-3)
    assert losses[-1] < 0.8 * losses[0]


def ours_of_fresh(tmp_path):
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    return ours(fresh, rows(), SAMPLING)[0]


def test_micro_batches_add_up_to_the_whole_batch(model, tmp_path):
    data = rows(6)
    want, gradients = ours(model, data, SAMPLING)
    loss = ssd.SoftLabelLoss(model, SAMPLING)
    count = sum(label != -100 for row in data for label in row["labels"])
    total = 0.0
    for part in (data[:2], data[2:]):
        batch = loss.collate(part)
        labels = batch.pop("labels")
        piece = loss(model(**batch), labels, num_items_in_batch=count)
        piece.backward()
        total += float(piece)
    assert total == pytest.approx(float(want), abs=1e-5)
    for parameter, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[parameter], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outside", ["renormalize", "bucket"])
def test_the_teachers_own_top_tokens(outside, model):
    data = rows(3)
    loss = ssd.SoftLabelLoss(model, outside=outside)
    batch = loss.collate(data)
    labels_BL = batch.pop("labels")
    found = loss(model(**batch), labels_BL)
    found.backward()
    gradient = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    logp_BLV = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double().log_softmax(-1)
    scored_BL = labels_BL[:, 1:] != -100
    logp_SV = logp_BLV[:, :-1][scored_BL]
    ids_SK, p_SK = batch["top_ids"][:, 1:][scored_BL], batch["top_logprobs"][:, 1:][scored_BL].double().exp()
    logp_SK = logp_SV.gather(1, ids_SK)
    if outside == "renormalize":
        want = -(p_SK / p_SK.sum(1, keepdim=True) * logp_SK).sum(1).mean()
    else:
        rest_S = torch.log1p(-logp_SK.exp().sum(1))
        want = (-(p_SK * logp_SK).sum(1) - (1 - p_SK.sum(1)) * rest_S).mean()
    want.backward()
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, model.model.layers[0].mlp.up_proj.weight.grad, rtol=1e-4, atol=1e-5)


def test_the_model_makes_no_logits(model):
    loss = ssd.SoftLabelLoss(model, SAMPLING)
    batch = loss.collate(rows())
    labels = batch.pop("labels")
    outputs = model(**batch)
    assert outputs.logits.shape[1] == 1
    loss(outputs, labels)
    plain = model(input_ids=batch["input_ids"])
    assert plain.logits.shape[1] == batch["input_ids"].shape[1], "a batch without the columns is not touched"


def test_mistakes_are_named(model):
    loss = ssd.SoftLabelLoss(model, SAMPLING)
    batch = loss.collate(rows())
    labels = batch.pop("labels")
    with pytest.raises(ValueError, match="no labels: add the column labels"):
        loss(model(**batch), None)
    loss(model(**batch), labels)
    with pytest.raises(ValueError, match=r"no top_ids and top_logprobs: pass data_collator=loss\.collate"):
        loss(model(input_ids=batch["input_ids"]), labels)
    with pytest.raises(ValueError, match="9 input_ids and 8 top_ids: one per token"):
        loss.collate([rows(1)[0] | {"top_ids": [[1]] * 8}])
    with pytest.raises(ValueError, match="leave sampling out"):
        ssd.SoftLabelLoss(model, SAMPLING, outside="bucket")
    with pytest.raises(ValueError, match="has no logits_to_keep"):
        ssd.SoftLabelLoss(torch.nn.Linear(2, 2))
