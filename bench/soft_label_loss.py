"""Peak memory of a step of `SoftLabelLoss` against the vocabulary, beside the logits that it does not make.

python bench/soft_label_loss.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ssdfast import SoftLabelLoss

_TOKENS, _TOP, _HIDDEN = 2048, 20, 64
_VOCABULARIES = (1_000, 32_000, 151_936)


def measure(vocabulary: int) -> float:
    """MB by which forward and backward exceed the model with its gradients."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=_HIDDEN, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    loss = SoftLabelLoss(model)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    ids_BL = torch.randint(0, vocabulary, (1, _TOKENS))
    top_ids, top_logprobs = torch.randint(0, vocabulary, (1, _TOKENS, _TOP)), torch.full((1, _TOKENS, _TOP), -3.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outputs = model(input_ids=ids_BL, top_ids=top_ids, top_logprobs=top_logprobs)
    loss(outputs, ids_BL).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


def main() -> None:
    if len(sys.argv) > 1:
        print(measure(int(sys.argv[1])))
        return
    for vocabulary in _VOCABULARIES:
        command = [sys.executable, __file__, str(vocabulary)]
        used = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        head, logits = 4 * vocabulary * _HIDDEN / 1e6, 4 * vocabulary * _TOKENS / 1e6
        print(f"V = {vocabulary:,}: {used:.0f} MB ({head:.0f} MB a head's gradient, {logits:.0f} MB logits alone)")


if __name__ == "__main__":
    main()
