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

import torch
import transformers
from torch import Tensor
from transformers.utils import is_accelerate_available

from . import hub, model_files
from .kernels import LmHead, lm_head_logits
from .messages import one_line
from .run_dir import atomic_directory

# transformers imports torchao where it is installed, and torchao reports the kernels that it does not load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


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
    """The tokenizer and the configuration of a model, without its weights.

    Raises ValueError as `load`; of weights, where there are any, the headers are compared with the configuration.
    """
    directory, options = _source(path)
    config = _config(path, directory, options)
    tokenizer = _tokenizer(path, directory, options)
    gguf = "gguf_file" in options
    quantized = getattr(config, "quantization_config", None)
    if not gguf and not quantized and model_files.weight_files(directory) and is_accelerate_available():
        # On the meta device nothing is read but the headers; without accelerate, `load` is the first to compare.
        _load_weights(path, directory, options | {"device_map": "meta", "use_safetensors": True})
    return ModelInfo(path, config.get_text_config(), tokenizer, 0 if gguf else model_files.parameters(directory))


def text_config(directory: Path) -> Any:
    """The configuration of the text model of a directory, of which only config.json is read. Raises ValueError."""
    model_files.check_config(directory)
    return _config(str(directory), directory, _LOCAL).get_text_config()


def load(path: str, dtype: str, attention: str | None = None) -> LanguageModel:
    """Load a directory of safetensors, or a GGUF file (dequantised), onto the GPU if there is one.

    attention: the attention implementation, by transformers' name; None is transformers' default.
    Nothing is downloaded or unpickled, and no code of the model's directory runs.
    Raises ValueError for a model that is missing, incomplete or cannot be read, for weights that the architecture does
    not have, and for a head that is not linear.
    """
    torch_dtype = getattr(torch, dtype)
    directory, options = _source(path)
    weights: dict[str, Any] = {"dtype": torch_dtype, "use_safetensors": True}
    if "gguf_file" in options:
        weights = {"dtype": torch_dtype, "quantization_config": transformers.GgufConfig(dequantize=True)}
    elif not model_files.weight_files(directory):
        raise ValueError(
            f"{path} cannot be loaded as a model: it has no {model_files.WEIGHTS}; save the model again with"
            " save_pretrained, for other formats of weights are not read"
        )
    model = _load_weights(path, directory, {"attn_implementation": attention, **options, **weights})
    tokenizer = _tokenizer(path, directory, options)
    loaded = _with_head(path, model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer)
    _check_head(loaded)
    return loaded


def save(
    model: LanguageModel, directory: Path, weights: dict[str, Tensor] | None = None, card: str | None = None
) -> None:
    """Write weights (safetensors) and tokenizer as `directory`, whole or not at all.

    weights: written instead of the model's own, by the model's names. card: the text of README.md.
    """
    with atomic_directory(directory) as temporary:
        model.model.save_pretrained(temporary, state_dict=weights)
        model.tokenizer.save_pretrained(temporary)
        if card:
            (temporary / "README.md").write_text(card, encoding="utf-8")


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


def shared_vocabulary(a: ModelInfo, b: ModelInfo) -> int:
    """The number of entries over which two models are compared: the rows that both heads have.

    Heads are padded to convenient sizes, so that one may have rows beyond the other's which stand for no token.
    Raises ValueError with the first difference unless every token id means the same to both models, and for a head that
    lacks the row of a token.
    """
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
    rows = min(a.vocabulary, b.vocabulary)
    if a.vocabulary != b.vocabulary and (largest := max(ids_a.values(), default=0)) >= rows:
        raise ValueError(
            f"the vocabularies differ: lm_head has {a.vocabulary} rows in {a.path} and {b.vocabulary} in {b.path}, and"
            f" the tokenizer has the token id {largest}: use models whose heads have a row for every token"
        )
    return rows


def _context(config: Any) -> float:
    return getattr(config, "max_position_embeddings", None) or math.inf


def _source(path: str) -> tuple[Path, dict[str, Any]]:
    """(directory, options of transformers' loaders), with its files checked."""
    directory, gguf = model_files.locate(hub.local_path(path))
    model_files.check(directory, gguf)
    return directory, _LOCAL | ({"gguf_file": gguf} if gguf else {})


def _config(path: str, directory: Path, options: dict[str, Any]) -> Any:
    file = path if "gguf_file" in options else directory / "config.json"
    with _reading(f"{file} cannot be read as a model's configuration", "restore the file", options):
        return transformers.AutoConfig.from_pretrained(directory, **options)


def _tokenizer(path: str, directory: Path, options: dict[str, Any]) -> Any:
    remedy = "restore tokenizer.json and tokenizer_config.json beside the weights"
    with _reading(f"the tokenizer of {path} cannot be loaded", remedy, options):
        return transformers.AutoTokenizer.from_pretrained(directory, **options)


def _load_weights(path: str, directory: Path, options: dict[str, Any]) -> Any:
    """A causal LM whose every weight is in the files. Raises ValueError for weights that are missing or unknown."""
    remedy = "restore its files, or convert it to a causal language model of transformers"
    with _reading(f"{path} cannot be loaded as a model", remedy, options):
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            directory, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    model, info = loaded
    model_files.check_loading(path, type(model).__name__, info)
    return model


@contextlib.contextmanager
def _reading(failure: str, remedy: str, options: dict[str, Any]) -> Iterator[None]:
    """Silences progress bars and reports, and turns every error but lack of memory into a ValueError.

    failure: the beginning of the message.
    """
    transformers.utils.logging.disable_progress_bar()
    # The GGUF reader shows its own progress bar even without a terminal.
    quiet = contextlib.redirect_stderr(io.StringIO()) if "gguf_file" in options else contextlib.nullcontext()
    # What the loading report warns of is an error here, and no model is sharded on the meta device.
    names = ("transformers.modeling_utils", "transformers.distributed.tensor_parallel")
    for name in names:
        logging.getLogger(name).addFilter(_is_no_warning)
    try:
        with quiet:
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the readers of a damaged file raise any exception
        raise ValueError(f"{failure} ({one_line(error, model_files.REASON_LENGTH)}): {remedy}") from error
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(_is_no_warning)


def _is_no_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING


def _with_head(path: str, model: Any, tokenizer: Any) -> LanguageModel:
    head = linear_head(model)
    bias_V = None if head.bias_V is None else head.bias_V.detach()
    return LanguageModel(path, model, tokenizer, LmHead(head.weight_VH.detach(), bias_V, head.scale, head.softcap))


@torch.inference_mode()
def _check_head(loaded: LanguageModel) -> None:
    """Compare the head with the model's own logits: an architecture can transform them in ways that LmHead lacks."""
    ids = torch.arange(8, device=loaded.device)[None] % loaded.vocabulary
    expected_NV = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
    _check_finite(loaded, expected_NV)
    hidden_NH = loaded.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    actual_NV = lm_head_logits(hidden_NH, loaded.head)
    rounding = 1e-4 if hidden_NH.dtype == torch.float32 else 2e-2
    if not torch.allclose(actual_NV, expected_NV, rtol=rounding, atol=rounding * float(expected_NV.abs().max())):
        kind = type(loaded.model).__name__
        raise ValueError(f"{loaded.path} is not supported: the logits of {kind} are not those of a linear head")


def _check_finite(loaded: LanguageModel, logits_NV: Tensor) -> None:
    if not logits_NV.isfinite().all():
        names = (name for name, weight in loaded.model.named_parameters() if not weight.isfinite().all())
        where = f"the weight {name} has" if (name := next(names, None)) else f"it overflows in {loaded.model.dtype} to"
        raise ValueError(f"{loaded.path}: {where} values that are not finite numbers: save or copy the model again")
