"""Bounded memory changes no loss and no gradient, in any combination; and what is handed from tile to tile is exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen3_5 import modeling_qwen3_5

from ssdfast.training.memory import accumulate_in_float32, checkpoint_layers
from ssdfast.training.step import step
from ssdfast.training.tiles import tile_linear_attention, tile_mlps

from .models import build, config, trace

TOKENS = 300  # two tiles of 128 and a shorter one


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
    plain = build(config(name)).train()
    bounded = copy.deepcopy(plain)
    if checkpointed:
        checkpoint_layers(bounded, offload=True)
    if tiled:
        tile_mlps(bounded, 128)
    wanted, got = step(plain, **trace(TOKENS)), step(bounded, **trace(TOKENS))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)
    assert max(errors(bounded, plain).values()) < 1e-6


def test_step_is_the_loss_of_the_models_own_logits():
    model, data = build(config("qwen3")).train(), trace(40)
    loss = step(model, **data)
    found = gradients(model)
    model.zero_grad()
    logits_NV = model(input_ids=data["input_ids_BL"]).logits[0, data["rows_N"]]
    nats_NK = -logits_NV.log_softmax(-1).gather(1, data["label_ids_NK"])
    want = (nats_NK * data["label_probs_NK"]).sum()
    want.backward()
    torch.testing.assert_close(loss, want.detach(), rtol=1e-5, atol=0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [129, 257, TOKENS, 320])  # a last token alone, and whole tiles
def test_state_of_linear_attention_flows_through_tiles_exactly(tokens: int, everything_in_float64):
    plain = build(config("qwen3_5")).double().train()
    bounded = copy.deepcopy(plain)
    checkpoint_layers(bounded, offload=True)
    tile_mlps(bounded, 64)
    tile_linear_attention(bounded, 128)
    wanted, got = step(plain, **trace(tokens)), step(bounded, **trace(tokens))
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
    master = build(config("qwen3")).bfloat16().float()
    loaded = copy.deepcopy(master).bfloat16()
    checkpoint_layers(master, offload=False, dtype=torch.bfloat16)
    checkpoint_layers(loaded, offload=False)
    for model in (master, loaded):
        tile_mlps(model, 128)
    torch.testing.assert_close(step(master, **trace(TOKENS)), step(loaded, **trace(TOKENS)), rtol=1e-6, atol=0)
    want = gradients(loaded)
    for name, gradient in gradients(master).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient.bfloat16(), want[name], rtol=2e-2, atol=1e-3 * float(want[name].norm()))


def test_small_gradients_are_not_lost_in_a_batch():
    model = build(config("qwen3")).bfloat16().train()
    accumulate_in_float32(model)
    tile_mlps(model, 128)
    data = trace(TOKENS)
    step(model, **data)
    first = {name: g.clone() for name, g in gradients(model).items()}
    for _ in range(300):  # bf16 sums stop growing at 256 equal terms
        step(model, **data)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, 301 * first[name], rtol=1e-3, atol=1e-3 * float(first[name].norm()))


def test_weights_can_be_frozen():
    plain = build(config("qwen3_5"))
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_("down_proj" in name or "out_proj" in name)
    bounded = copy.deepcopy(plain)
    checkpoint_layers(bounded, offload=True)
    tile_mlps(bounded, 128)
    tile_linear_attention(bounded, 128)
    step(plain.train(), **trace(TOKENS))
    step(bounded, **trace(TOKENS))
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
        hidden = model.base_model(input_ids=trace(20)["input_ids_BL"], use_cache=False).last_hidden_state
    assert hidden.shape == (1, 20, 32)
