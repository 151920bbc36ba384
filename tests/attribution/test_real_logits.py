"""Planted shifts on the logits of a real model, SmolLM2-135M, along completions that it sampled itself."""

import numpy as np
import pytest
import torch

from ssdfast import models
from ssdfast.probing import token_classes
from ssdfast.probing.plan import LoadedTrace, TraceItem

from .cases import Case, classify, confusion
from .synthetic import Planted, of_logits

TRACES, TOKENS = 24, 16
CASES = [
    Case("ssd", Planted(strength=0.3, seed=1)),
    Case("temperature", Planted(temperature=0.9, seed=2)),
    Case("eos_bias", Planted(eos_bias=1.5, seed=3)),
    Case("residual", Planted(residual=0.2, seed=4)),
    Case("mixture", Planted(strength=0.4, residual=0.1, seed=5)),
    Case("mixture", Planted(strength=0.3, temperature=0.9, seed=6)),
    Case("none", Planted(seed=7)),
]


@pytest.fixture(scope="module")
def base(smollm2):
    found = models.load(str(smollm2), "float32")
    tokenizer = found.tokenizer
    torch.manual_seed(0)
    said = [{"role": "user", "content": "Say in one sentence what three plus four is, and why."}]
    prompt = torch.tensor([tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)])
    with torch.inference_mode():
        ids = found.model.generate(
            prompt.repeat(TRACES, 1), do_sample=True, max_new_tokens=TOKENS, temperature=1.1, top_k=20, top_p=0.95
        )
        logits_NV = torch.cat([found.model(input_ids=one[None]).logits[0, prompt.shape[1] - 1 : -1] for one in ids])
    completions = ids[:, prompt.shape[1] :].numpy().astype(np.int32)
    length = completions.shape[1]
    scored = [
        LoadedTrace(
            TraceItem("own", f"p{i}#0", f"p{i}", 0, 1, 0, length, length, length, None),
            np.zeros(1, np.int32),
            one,
            np.arange(length, dtype=np.int32),
        )
        for i, one in enumerate(completions)
    ]
    classes = token_classes.classify(tokenizer, token_classes.token_texts(tokenizer, logits_NV.shape[1]), {})
    return of_logits(logits_NV.float(), scored, classes)


def test_planted_components_are_named_with_their_fraction(base, tmp_path):
    outcomes = classify(CASES, tmp_path, base, 0)
    assert [one.category for one in outcomes] == [case.kind for case in CASES], confusion(outcomes)
    for one in outcomes:
        if one.case.kind == "mixture":
            assert one.ssd == pytest.approx(one.planted_ssd, abs=0.05)
