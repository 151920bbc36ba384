"""Models: their properties, loading them, and the head that computes logits from hidden states.

Shape legend: N rows, H hidden size, V rows of lm_head.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from torch import Tensor

from .kernels import LmHead, lm_head_logits
from .run_dir import atomic_directory

# transformers imports torchao where it is installed, and torchao reports the kernels that it does not load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What a model's files tell without reading its weights."""

    path: str
    config: Any
    tokenizer: Any
    parameters: int
    """The number of parameters, 0 where it is not stored."""

    @property
    def vocabulary(self) -> int:
        """Rows of lm_head."""
        return int(self.config.vocab_size)

    @property
    def context(self) -> float:
        """The length of the context in tokens, infinite where the configuration has none."""
        return _context(self.config)


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model whose head is linear, on one device, in evaluation mode."""

    path: str
    model: Any  # transformers gives its models no common type with a decoder and a head
    tokenizer: Any
    head: LmHead

    @property
    def device(self) -> torch.device:
        return self.head.weight_VH.device

    @property
    def vocabulary(self) -> int:
        return self.head.weight_VH.shape[0]

    @property
    def context(self) -> float:
        """The length of the context in tokens, infinite where the configuration has none."""
        return _context(self.model.config.get_text_config())


def model_info(path: str) -> ModelInfo:
    """The tokenizer and the configuration of a model, without its weights. Raises ValueError as `load`."""
    directory, options = _source(path)
    with _reading(path, options):
        config = transformers.AutoConfig.from_pretrained(directory, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
    return ModelInfo(path, config.get_text_config(), tokenizer, _parameters(directory))


def load(path: str, dtype: str, attention: str | None = None) -> LanguageModel:
    """Load a directory of safetensors, or a GGUF file (dequantised), onto the GPU if there is one.

    attention: the attention implementation, by transformers' name; None is transformers' default.
    Nothing is downloaded or unpickled, and no code of the model's directory runs.
    Raises ValueError for a model that is missing or cannot be read, and for a head that is not linear.
    """
    torch_dtype = getattr(torch, dtype)
    directory, options = _source(path)
    weights: dict[str, Any] = {"dtype": torch_dtype, "use_safetensors": True}
    if "gguf_file" in options:
        weights = {"dtype": torch_dtype, "quantization_config": transformers.GgufConfig(dequantize=True)}
    with _reading(path, options):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            directory, attn_implementation=attention, **options, **weights
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **options)
    loaded = _with_head(path, model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer)
    _check_head(loaded)
    return loaded


def save(model: LanguageModel, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write weights (safetensors) and tokenizer as `directory`, whole or not at all.

    weights: written instead of the model's own, by the model's names.
    """
    with atomic_directory(directory) as temporary:
        model.model.save_pretrained(temporary, state_dict=weights)
        model.tokenizer.save_pretrained(temporary)


def linear_head(model: Any, dtype: torch.dtype | None = None) -> LmHead:
    """The head of a causal LM of transformers, with the parameters themselves, so that gradients flow to them.

    dtype: the parameters are converted to it.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    weight_VH, bias_V = head.weight, getattr(head, "bias", None)
    if dtype is not None:
        weight_VH, bias_V = weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    return LmHead(weight_VH, bias_V, float(scale), getattr(config, "final_logit_softcapping", None))


def check_same_vocabulary(a: ModelInfo, b: ModelInfo) -> None:
    """Raises ValueError with the first difference unless every token id means the same to both models."""
    ids_a, ids_b = a.tokenizer.get_vocab(), b.tokenizer.get_vocab()
    what = f"the tokenizers of {a.path} and {b.path} differ"
    for ids, other_ids, name in ((ids_a, ids_b, a.path), (ids_b, ids_a, b.path)):
        if only := sorted(ids.keys() - other_ids.keys(), key=ids.__getitem__):
            raise ValueError(
                f"{what}: {len(only)} tokens are in {name} alone, the first is {only[0]!r} (id {ids[only[0]]})"
            )
    for token, token_id in sorted(ids_a.items(), key=lambda item: item[1]):
        if ids_b[token] != token_id:
            raise ValueError(f"{what}: {token!r} is id {token_id} in the first and {ids_b[token]} in the second")
    if a.vocabulary != b.vocabulary:
        raise ValueError(
            f"the vocabularies differ: lm_head has {a.vocabulary} rows in {a.path} and {b.vocabulary} in {b.path}"
        )


def _locate(path: Path) -> tuple[Path, str | None]:
    """(directory, GGUF file name or None)."""
    if path.is_file() and path.suffix == ".gguf":
        return path.parent, path.name
    if not path.is_dir():
        raise ValueError(f"there is no model at {path}: name a directory of safetensors or a .gguf file")
    if not (path / "config.json").is_file():
        inside = sorted(p.name for p in path.glob("*.gguf"))
        remedy = f"name the file, {path / inside[0]}" if inside else "name a directory that save_pretrained wrote"
        raise ValueError(f"{path} has no config.json: {remedy}")
    return path, None


def _context(config: Any) -> float:
    return getattr(config, "max_position_embeddings", None) or math.inf


def _source(path: str) -> tuple[Path, dict[str, Any]]:
    directory, gguf = _locate(Path(path))
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    return directory, options | ({"gguf_file": gguf} if gguf else {})


@contextlib.contextmanager
def _reading(path: str, options: dict[str, Any]) -> Iterator[None]:
    """Silences progress bars and turns every error into a ValueError."""
    transformers.utils.logging.disable_progress_bar()
    # The GGUF reader shows its own progress bar even without a terminal.
    quiet = contextlib.redirect_stderr(io.StringIO()) if "gguf_file" in options else contextlib.nullcontext()
    try:
        with quiet:
            yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"{path} cannot be loaded as a model: {' '.join(str(error).split())}") from error


def _parameters(directory: Path) -> int:
    """The number of parameters by the headers of the safetensors files."""
    count = 0
    for file in directory.glob("*.safetensors"):
        with safetensors.safe_open(file, "numpy") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count


def _with_head(path: str, model: Any, tokenizer: Any) -> LanguageModel:
    head = linear_head(model)
    bias_V = None if head.bias_V is None else head.bias_V.detach()
    return LanguageModel(path, model, tokenizer, LmHead(head.weight_VH.detach(), bias_V, head.scale, head.softcap))


@torch.inference_mode()
def _check_head(loaded: LanguageModel) -> None:
    """Compare the head with the model's own logits: an architecture can transform them in ways that LmHead lacks."""
    ids = torch.arange(8, device=loaded.device)[None] % loaded.vocabulary
    expected_NV = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
    hidden_NH = loaded.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    actual_NV = lm_head_logits(hidden_NH, loaded.head)
    rounding = 1e-4 if hidden_NH.dtype == torch.float32 else 2e-2
    if not torch.allclose(actual_NV, expected_NV, rtol=rounding, atol=rounding * float(expected_NV.abs().max())):
        kind = type(loaded.model).__name__
        raise ValueError(f"{loaded.path} is not supported: the logits of {kind} are not those of a linear head")
