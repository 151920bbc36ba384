"""Logits are the model's own, and what does not fit together is refused by name."""

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from ssdfast import chunked_forward, models
from ssdfast.kernels import lm_head_logits

from . import tiny

SMALL = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": 1,
}


IDS = [3, 9, 4, 8, 8, 2, 70]


def hidden_states(model, ids=IDS):
    (hidden_NH,) = chunked_forward.hidden_states(
        model, [np.array(ids)], [np.arange(len(ids))], 64, chunked_forward.ReadingStrategy("whole")
    )
    return hidden_NH


def full_forward(model, ids):
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([ids])).logits[0].float()


def test_logits_of_a_bf16_model_are_not_rounded_to_bf16(tmp_path):
    model = models.load(tiny.save_model(tmp_path), "bfloat16")
    hidden_SH = hidden_states(model)
    assert hidden_SH.dtype == torch.bfloat16
    exact_SV = hidden_SH.double() @ model.model.lm_head.weight.double().T
    torch.testing.assert_close(lm_head_logits(hidden_SH, model.head).double(), exact_SV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gemma2ForCausalLM(
            Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0, initializer_range=0.3)
        ),
        lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0, initializer_range=0.3)),
    ],
    ids=["softcap", "scale"],
)
def test_what_a_model_does_to_its_logits_is_done(tmp_path, make):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = models.load(str(tmp_path), "float32")
    logits_NV = lm_head_logits(hidden_states(model), model.head)
    torch.testing.assert_close(logits_NV, full_forward(model, IDS), rtol=1e-5, atol=1e-5)


def test_a_head_that_does_more_than_is_known_is_refused(tmp_path, monkeypatch):
    path = tiny.save_model(tmp_path)
    plain = models.transformers.LlamaForCausalLM.forward

    def shifted(self, *args, **kwargs):
        out = plain(self, *args, **kwargs)
        out.logits = out.logits.roll(1, -1)
        return out

    monkeypatch.setattr(models.transformers.LlamaForCausalLM, "forward", shifted)
    with pytest.raises(ValueError, match="logits of LlamaForCausalLM are not those of a linear head"):
        models.load(path, "float32")


def test_tokenizers_that_differ_are_refused_with_the_difference(tmp_path):
    a = models.model_info(tiny.save_model(tmp_path / "a"))
    swapped = [*tiny.WORDS[:2], "But", "Wait", *tiny.WORDS[4:]]
    b = models.model_info(tiny.save_model(tmp_path / "b", words=swapped))
    with pytest.raises(
        ValueError, match=r"tokenizers .*/a and .*/b differ: 'Wait' is id 2 in the first and 3 in the sec"
    ):
        models.shared_vocabulary(a, b)
    renamed = [*tiny.WORDS[:2], "Hmm", *tiny.WORDS[3:]]
    c = models.model_info(tiny.save_model(tmp_path / "c", words=renamed))
    with pytest.raises(ValueError, match=r"1 tokens are in .*/a alone, the first is 'Wait' \(id 2\)"):
        models.shared_vocabulary(a, c)


def test_heads_of_different_height_are_compared_over_the_rows_of_both(tmp_path):
    a = models.model_info(tiny.save_model(tmp_path / "a"))
    b = models.model_info(tiny.save_model(tmp_path / "b", rows=128))
    assert models.shared_vocabulary(a, a) == models.shared_vocabulary(a, b) == models.shared_vocabulary(b, a) == 96
    assert models.shared_vocabulary(b, b) == 128


def test_a_head_without_a_row_for_every_token_is_refused(tmp_path):
    a = models.model_info(tiny.save_model(tmp_path / "a"))
    b = models.model_info(tiny.save_model(tmp_path / "b", rows=95))
    with pytest.raises(ValueError, match=r"lm_head has 96 rows in .*/a and 95 in .*/b, and the tokenizer has .* 95"):
        models.shared_vocabulary(a, b)


def test_an_outline_says_what_loading_would_find(tmp_path):
    path = tiny.save_model(tmp_path, rows=128)
    outline, model = models.model_info(path), models.load(path, "float32")
    assert (outline.vocabulary, outline.context) == (model.vocabulary, model.context) == (128, tiny.CONTEXT)
    assert outline.parameters == sum(weight.numel() for weight in model.model.parameters())
    assert outline.tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no model at .*nowhere"):
        models.load(str(tmp_path / "nowhere"), "float32")
    with pytest.raises(ValueError, match=r"has no config.json: name a directory"):
        models.load(str(tmp_path), "float32")
    with pytest.raises(ValueError, match=r"there is no model at .*nowhere"):
        models.model_info(str(tmp_path / "nowhere"))
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"has no config.json: name the file, .*small.gguf"):
        models.load(str(tmp_path), "float32")


def test_pickled_weights_are_not_read(tmp_path):
    path = tiny.save_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    torch.save({"lm_head.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match="cannot be loaded as a model"):
        models.load(path, "float32")
