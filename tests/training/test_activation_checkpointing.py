"""Bounded memory changes no loss and no gradient, in any combination; and what is handed from tile to tile is exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen3_5 import modeling_qwen3_5

from ssdfast.config import TrainConfig
from ssdfast.training.activation_checkpointing import accumulate_in_float32, checkpoint_layers
from ssdfast.training.loss import make_trainable
from ssdfast.training.prepare_model import prepare
from ssdfast.training.tiled_layers import tile_linear_attention, tile_mlps, tile_norms

from .models import build, config, step, trace

TOKENS = 300  # two tiles of 128 and a shorter one


# Relative to a gradient's norm; a delta rule's decays differ more by the order of sums.
MOST = {"qwen3": 1e-6, "llama": 1e-6, "qwen3_5": 1e-4}


def trainable(name: str) -> nn.Module:
    return make_trainable(build(config(name)).train())


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters()}


def errors(got: nn.Module, want: nn.Module) -> dict[str, float]:
    """Of each gradient, relative to its norm."""
    reference = gradients(want)
    return {name: float((g - reference[name]).norm() / reference[name].norm()) for name, g in gradients(got).items()}


@pytest.mark.parametrize("name", ["qwen3", "llama", "qwen3_5"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_same_loss_and_gradients(name: str, checkpointed: bool, tiled: bool):
    plain = trainable(name)
    settings = TrainConfig(
        activation_checkpointing="full" if checkpointed else "none",
        sequence_tile_size=128 if tiled else 0,
        layer_kernels="torch",
    )
    bounded = prepare(build(config(name)).train(), settings, on_gpu=False)
    wanted, got = step(plain, TOKENS), step(bounded, TOKENS)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)
    assert max(errors(bounded, plain).values()) < MOST[name]


def test_loss_is_the_loss_of_the_models_own_logits():
    model, plain = trainable("qwen3"), build(config("qwen3")).train()
    inputs, label_ids_SK, label_probs_SK, _ = trace(40)
    loss = step(model, 40)
    logits_SV = plain(input_ids=inputs["input_ids"]).logits[0, inputs["row_S"]]
    nats_SK = -logits_SV.log_softmax(-1).gather(1, label_ids_SK)
    want = (nats_SK * label_probs_SK).sum()
    want.backward()
    torch.testing.assert_close(loss, want.detach(), rtol=1e-5, atol=0)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [129, 257, TOKENS, 320])  # a last token alone, and whole tiles
def test_state_of_linear_attention_flows_through_tiles_exactly(tokens: int, everything_in_float64):
    plain = trainable("qwen3_5").double()
    bounded = copy.deepcopy(plain)
    checkpoint_layers(bounded, offload=True)
    tile_mlps(bounded, 64)
    tile_norms(bounded, 100)
    tile_linear_attention(bounded, 128)
    wanted, got = step(plain, tokens), step(bounded, tokens)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    assert max(errors(bounded, plain).values()) < 1e-11


@pytest.fixture
def everything_in_float64(monkeypatch):
    """A delta rule computes in float32, where gradients of decays differ in the fifth digit by the order of sums."""

    class InFloat64:
        def __getattr__(self, name: str):
            return getattr(torch, "float64" if name == "float32" else name)

    monkeypatch.setattr(modeling_qwen3_5, "torch", InFloat64())
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def test_compute_dtype_is_that_of_a_model_loaded_in_it():
    """float32 weights, layers in bf16: the same loss and gradients as a bf16 model, but the weights keep float32."""
    master = trainable("qwen3").bfloat16().float()
    loaded = copy.deepcopy(master).bfloat16()
    checkpoint_layers(master, offload=False, dtype=torch.bfloat16)
    checkpoint_layers(loaded, offload=False)
    for model in (master, loaded):
        tile_mlps(model, 128)
    torch.testing.assert_close(step(master, TOKENS), step(loaded, TOKENS), rtol=1e-6, atol=0)
    want = gradients(loaded)
    for name, gradient in gradients(master).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient.bfloat16(), want[name], rtol=2e-2, atol=1e-3 * float(want[name].norm()))


def test_small_gradients_are_not_lost_in_a_batch():
    model = trainable("qwen3").bfloat16()
    accumulate_in_float32(model)
    tile_mlps(model, 128)
    step(model, TOKENS)
    first = {name: g.clone() for name, g in gradients(model).items()}
    for _ in range(300):  # bf16 sums stop growing at 256 equal terms
        step(model, TOKENS)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, 301 * first[name], rtol=1e-3, atol=1e-3 * float(first[name].norm()))


def test_weights_can_be_frozen():
    plain = trainable("qwen3_5")
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_("down_proj" in name or "out_proj" in name)
    bounded = copy.deepcopy(plain)
    checkpoint_layers(bounded, offload=True)
    tile_mlps(bounded, 128)
    tile_linear_attention(bounded, 128)
    step(plain, TOKENS)
    step(bounded, TOKENS)
    for name, gradient in gradients(plain).items():
        got = gradients(bounded)[name]
        assert (got is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5 * float(gradient.norm()))


def test_refusals():
    with pytest.raises(ValueError, match="no list of decoder layers"):
        checkpoint_layers(nn.Linear(2, 2), offload=False)
    with pytest.raises(ValueError, match="multiple of 64"):
        tile_linear_attention(build(config("qwen3_5")), 100)
    model = build(config("qwen3"))
    tile_mlps(model, 8)
    with torch.no_grad():
        hidden = model.base_model(input_ids=trace(20)[0]["input_ids"], use_cache=False).last_hidden_state
    assert hidden.shape == (1, 20, 32)
