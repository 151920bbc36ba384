"""Sampling with a transformers model: one completion a prompt, in batches, prompts' common prefix read once.

Each trace draws from a generator of its own, so its randomness depends on its seed alone.

Shape legend: B traces in flight, V vocabulary, K survivors of top_k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from transformers import DynamicCache

from ..config import DecodingConfig
from ..kernels import lm_head_logits
from ..models import LanguageModel, end_ids
from ..progress import progress
from ..traces import SCHEMA, append, part_path

ENGINE = "transformers"


@dataclass(frozen=True)
class Request:
    """One trace to sample. The seed is its own: `trace_seed` makes one."""

    problem_id: str
    prompt_ids: list[int]
    seed: int
    sample: int = 0


def trace_seed(seed: int, problem_id: str, sample: int = 0) -> int:
    """A seed in 0..2^63-1 that depends on the three alone."""
    digest = hashlib.sha256(f"{seed}/{problem_id}#{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sample_traces(
    model: LanguageModel,
    requests: Sequence[Request],
    decoding: DecodingConfig,
    max_new_tokens: int,
    directory: Path,
    what: str = "sampling",
    traces_per_part: int = 32,
) -> None:
    """Write one trace a request to `directory`, part by part; parts already there are left as they are.

    Raises ValueError for an empty prompt, and where prompt and completion may outgrow the model's context.
    """
    starts = range(0, len(requests), traces_per_part)
    for request in requests:
        _check(request, model, max_new_tokens)
    done = sum(len(requests[s : s + traces_per_part]) for i, s in enumerate(starts) if part_path(directory, i).exists())
    with progress(what, len(requests), "traces", done) as advance:
        for i, start in enumerate(starts):
            if part_path(directory, i).exists():
                continue
            part = requests[start : start + traces_per_part]
            completions = _Batch(model, part, decoding).run(max_new_tokens, advance)
            append(directory, i, _table(model, part, completions, decoding))


def is_complete(directory: Path, requests: int, traces_per_part: int = 32) -> bool:
    """Whether `sample_traces` has nothing left to do."""
    return all(part_path(directory, i).exists() for i in range(-(-requests // traces_per_part)))


def draw(logits_BV: Tensor, decoding: DecodingConfig, uniform_B: Tensor) -> Tensor:
    """Token ids [B]: divide by T, keep the top k, then the nucleus of mass p; invert the cumulative mass at uniform_B.

    logits_BV: float32. uniform_B: float64 in [0, 1).
    """
    vocabulary = logits_BV.shape[1]
    z_BK, ids_BK = logits_BV.topk(min(decoding.top_k or vocabulary, vocabulary), dim=1)
    mass_BK = (z_BK.double() / decoding.temperature).softmax(1)
    before_BK = mass_BK.cumsum(1) - mass_BK
    mass_BK = torch.where(before_BK < decoding.top_p, mass_BK, 0.0)
    reached_BK = mass_BK.cumsum(1)
    place_B = (reached_BK <= uniform_B[:, None] * reached_BK[:, -1:]).sum(1)
    survivors_B = (mass_BK > 0).sum(1)
    return ids_BK.gather(1, torch.minimum(place_B, survivors_B - 1)[:, None])[:, 0]


class _Batch:
    """Traces that advance together; one that ends leaves, so that the others go faster."""

    def __init__(self, model: LanguageModel, requests: Sequence[Request], decoding: DecodingConfig) -> None:
        self.model, self.decoding = model, decoding
        self.prompts = [request.prompt_ids for request in requests]
        self.generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        self.completions: list[list[int]] = [[] for _ in requests]
        self.running = list(range(len(requests)))

    @torch.inference_mode()
    def run(self, max_new_tokens: int, advance) -> list[list[int]]:
        ends = end_ids(self.model)
        logits_BV = self._read_prompts()
        for place in range(max_new_tokens):
            uniform_B = torch.stack(
                [torch.rand((), dtype=torch.float64, generator=self.generators[i]) for i in self.running]
            ).to(logits_BV.device)
            tokens = draw(logits_BV, self.decoding, uniform_B).tolist()
            for i, token in zip(self.running, tokens, strict=True):
                self.completions[i].append(token)
            last = place == max_new_tokens - 1
            stay = [row for row, token in enumerate(tokens) if token not in ends and not last]
            advance(len(tokens) - len(stay))
            if not stay:
                break
            if len(stay) < len(tokens):
                self._keep(stay)
            logits_BV = self._step([tokens[row] for row in stay])
        return self.completions

    def _read_prompts(self) -> Tensor:
        """Logits [B, V] after each prompt. The common prefix goes through the model once, the rest left-padded."""
        prefix = _common_prefix(self.prompts)
        device, batch = self.model.device, len(self.prompts)
        self.cache = DynamicCache(config=self.model.model.config)
        if prefix:
            self._forward(torch.tensor([prefix], device=device), None, None)
            self.cache.batch_repeat_interleave(batch)
        rests = [prompt[len(prefix) :] for prompt in self.prompts]
        longest = max(map(len, rests))
        padded_BL = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=device)
        real_BL = torch.tensor([[0] * (longest - len(rest)) + [1] * len(rest) for rest in rests], device=device)
        self.mask_BL = torch.cat([real_BL.new_ones(batch, len(prefix)), real_BL], 1)
        position_BL = (self.mask_BL.cumsum(1) - 1).clamp(min=0)[:, -longest:]
        self.position_B = position_BL[:, -1]
        return self._forward(padded_BL, self.mask_BL, position_BL)

    def _step(self, tokens: list[int]) -> Tensor:
        self.position_B = self.position_B + 1
        self.mask_BL = torch.nn.functional.pad(self.mask_BL, (0, 1), value=1)
        ids_B1 = torch.tensor(tokens, device=self.model.device)[:, None]
        return self._forward(ids_B1, self.mask_BL, self.position_B[:, None])

    def _keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.model.device)
        self.cache.batch_select_indices(index)
        self.mask_BL, self.position_B = self.mask_BL[index], self.position_B[index]
        self.running = [self.running[row] for row in rows]

    def _forward(self, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor | None) -> Tensor:
        hidden_BLH = self.model.model.base_model(
            input_ids=ids_BL,
            attention_mask=mask_BL,
            position_ids=position_BL,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return lm_head_logits(hidden_BLH[:, -1], self.model.head)


def _common_prefix(prompts: list[list[int]]) -> list[int]:
    """What all prompts begin with; every prompt keeps at least one token of its own."""
    shortest = min(prompts, key=len)[:-1]
    differ = (i for i, token in enumerate(shortest) if any(prompt[i] != token for prompt in prompts))
    return shortest[: next(differ, len(shortest))]


def _check(request: Request, model: LanguageModel, max_new_tokens: int) -> None:
    if not request.prompt_ids:
        raise ValueError(f"the prompt of {request.problem_id} is empty")
    if len(request.prompt_ids) + max_new_tokens > model.context:
        raise ValueError(
            f"{request.problem_id}: a prompt of {len(request.prompt_ids)} tokens and {max_new_tokens} new ones"
            f" outgrow the context of {model.context}: ask for fewer new tokens"
        )


def _table(
    model: LanguageModel, requests: Sequence[Request], completions: list[list[int]], decoding: DecodingConfig
) -> pa.Table:
    ends = end_ids(model)
    rows = [
        {
            "problem_id": request.problem_id,
            "sample": request.sample,
            "prompt_ids": request.prompt_ids,
            "completion_ids": ids,
            "finish_reason": "stop" if ids[-1] in ends else "length",
            "seed": request.seed,
            "engine": ENGINE,
            **decoding.model_dump(),
            "text": model.tokenizer.decode(ids, skip_special_tokens=True),
        }
        for request, ids in zip(requests, completions, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
