"""Models without sdpa, and without positions or lengths of traces, train as those that have them."""

import pytest
import torch
from transformers import (
    AutoConfig,
    BloomConfig,
    BloomForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
)

from ssdfast import models
from ssdfast.config import EngineSamplingParams, TrainConfig, TrainingRunConfig
from ssdfast.training.packed_attention import hidden_states, is_packing_exact, isolate_traces
from ssdfast.training.prepare_model import attn_implementation
from ssdfast.training.runner import train

from .. import tiny

COMMON = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": None,
}
MODELS = {
    "gpt-oss": lambda: GptOssForCausalLM(
        GptOssConfig(
            **COMMON,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=8,
        )
    ),
    "bloom": lambda: BloomForCausalLM(BloomConfig(**COMMON, n_layer=2, n_head=4)),
    "mamba2": lambda: Mamba2ForCausalLM(
        Mamba2Config(
            **COMMON, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=16, n_groups=2, expand=2, chunk_size=8
        )
    ),
}


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    torch.manual_seed(0)
    MODELS[request.param]().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("loss", ["sampled", "soft"])
def test_a_model_without_sdpa_trains(loss, model, tmp_path):
    soft = {"sampling_from": "config", "train_sampling": EngineSamplingParams(temperature=1.0, top_k=5)}
    config = TrainingRunConfig(
        model=str(model),
        traces=tiny.save_traces(tmp_path / "traces", 6),
        batch_size=3,
        num_train_epochs=2,
        learning_rate=1e-3,
        warmup_steps=0,
        loss=loss,
        **({"soft_labels": "recompute", **soft} if loss == "soft" else {}),
    )
    before, after = (models.load(str(path), "float32").model for path in (model, train(config, tmp_path / "out")))
    changed = [
        not torch.equal(a, b) and bool(b.isfinite().all())
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2


def test_a_padded_row_has_the_hidden_states_of_its_trace_alone(model):
    network = models.load(str(model), "float32", "eager").model
    isolate_traces(network)
    assert not is_packing_exact(network)  # so the traces are padded
    ids_BL = torch.randint(tiny.VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        padded_BLH = hidden_states(network, torch.nn.functional.pad(ids_BL[:, :13], (0, 7)))
        for ids_L, padded_LH in zip(ids_BL[:, :13], padded_BLH, strict=True):
            torch.testing.assert_close(padded_LH[:13], hidden_states(network, ids_L[None])[0], rtol=1e-4, atol=1e-5)


def test_an_attention_that_the_architecture_lacks_is_refused(model):
    config = AutoConfig.from_pretrained(model)
    with pytest.raises(ValueError, match=r"has no attention of the kind sdpa in transformers: use attn_impl.*=auto"):
        attn_implementation(TrainConfig(attn_implementation="sdpa"), False, config)
    assert attn_implementation(TrainConfig(), False, config) == "eager"


def test_an_architecture_with_sdpa_keeps_it():
    assert attn_implementation(TrainConfig(), False, tiny.config()) == "sdpa"
