"""Sampling with a transformers model: traces advance in batches, and the prompts' common prefix is processed once.

In float32 a trace depends on its seed only and not on the other traces of its batch: where the rounding of a batch
could change a sampled token, about once in some thousand tokens, the token is sampled from a forward pass of that trace
alone.

Shape legend: B traces in flight, L tokens, V vocabulary, K most likely tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..kernels import lm_head_logits
from ..messages import one_line
from ..models import LanguageModel
from ..run_dir import RunError
from .engine import Completion, FinishReason, Request, Rules
from .partial_completion import PartialCompletion, TopTokens
from .token_sampling import Noise, draw, top_k_logprobs


class TransformersEngine:
    """`batch_size` traces advance together; a finished trace leaves the batch, which makes the next steps faster."""

    name = "transformers"

    def __init__(self, model: LanguageModel, rules: Rules, batch_size: int) -> None:
        self.model, self.rules, self.batch_size = model, rules, batch_size

    def complete(
        self, requests: Sequence[Request], on_tokens: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Raises RunError where the batch does not fit into memory."""
        for start in range(0, len(requests), self.batch_size):
            try:
                yield from _Batch(self.model, self.rules, requests[start : start + self.batch_size]).run(on_tokens)
            except torch.OutOfMemoryError as error:
                raise RunError(
                    f"out of memory with {self.batch_size} traces at once ({one_line(error, 120)}):"
                    " start the same command again with a smaller --batch-size; finished traces are kept"
                ) from None

    def close(self) -> None:
        pass


class _Batch:
    def __init__(self, model: LanguageModel, rules: Rules, requests: Sequence[Request]) -> None:
        self.model, self.rules = model, rules
        self.traces = [PartialCompletion(request, rules) for request in requests]
        self.seeds_B = np.array([request.seed for request in requests], np.uint64)
        self.exact = model.head.weight_VH.dtype == torch.float32

    def run(self, on_tokens: Callable[[int], object]) -> Iterator[Completion]:
        logits_BV = self._read_prompts()
        while self.traces:
            looped = self._sample(logits_BV)
            on_tokens(len(self.traces))
            reasons = list(map(self._finish_reason, self.traces, looped))
            finished = [
                trace.completion(reason)
                for trace, reason in zip(self.traces, reasons, strict=True)
                if reason is not None
            ]
            if active := [row for row, reason in enumerate(reasons) if reason is None]:
                if finished:
                    self._select(active)
            else:
                self.traces = []
            yield from finished
            if self.traces:
                logits_BV = self._step()

    @torch.inference_mode()
    def _sample(self, logits_BV: Tensor) -> list[bool]:
        """Sample the next token of each trace; whether a loop ends it there."""
        noise = Noise(self.seeds_B, np.array([len(trace.ids) for trace in self.traces], np.uint64))
        sampled = draw(self._with_penalty(logits_BV, self.traces), self.rules.sampling, noise)
        tokens = sampled.ids_B.tolist()
        if self.exact:
            for row in torch.nonzero(sampled.close_B)[:, 0].tolist():
                alone_1V = self._with_penalty(self._logits_alone(self.traces[row]), self.traces[row : row + 1])
                tokens[row] = draw(alone_1V, self.rules.sampling, noise.row(row)).ids_B.item()
        steps: list[list[TopTokens]] = [[] for _ in self.traces]
        if self.rules.top_logprobs:
            ids_BK, logprobs_BK = top_k_logprobs(logits_BV, self.rules.top_logprobs)
            steps = [[step] for step in zip(ids_BK.tolist(), logprobs_BK.tolist(), strict=True)]
        return [trace.add([token], step) for trace, token, step in zip(self.traces, tokens, steps, strict=True)]

    def _finish_reason(self, trace: PartialCompletion, looped: bool) -> FinishReason | None:
        if trace.ids[-1] in self.rules.end_ids:
            return "stop"
        if looped:
            return "loop"
        return "length" if len(trace.ids) == trace.request.max_new_tokens else None

    def _with_penalty(self, logits_BV: Tensor, traces: Sequence[PartialCompletion]) -> Tensor:
        if not self.rules.sampling.presence_penalty:
            return logits_BV
        logits_BV = logits_BV.clone()
        for logits_V, trace in zip(logits_BV, traces, strict=True):
            logits_V[sorted(set(trace.ids))] -= self.rules.sampling.presence_penalty
        return logits_BV

    def _logits_alone(self, trace: PartialCompletion) -> Tensor:
        """Logits [1, V] after a trace, from a forward pass of that trace alone."""
        ids_1L = torch.tensor([[*trace.request.prompt_ids, *trace.ids]], device=self.model.device)
        hidden_1LH = self.model.model.base_model(input_ids=ids_1L, use_cache=False).last_hidden_state
        return lm_head_logits(hidden_1LH[:, -1], self.model.head)

    @torch.inference_mode()
    def _read_prompts(self) -> Tensor:
        """Logits [B, V] after each prompt. The common prefix is processed once; the rests are left-padded."""
        prompts = [trace.request.prompt_ids for trace in self.traces]
        device, batch = self.model.device, len(prompts)
        self.cache = DynamicCache(config=self.model.model.config)
        # Padding between prefix and rest would count in a sliding window and enter a recurrent state.
        share_prefix = batch > 1 and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        prefix = _common_prefix(prompts) if share_prefix else []
        if prefix:
            self._forward(torch.tensor([prefix], device=device), None, None)
            self.cache.batch_repeat_interleave(batch)
        rests = [prompt[len(prefix) :] for prompt in prompts]
        longest = max(map(len, rests))
        padded_BL = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=device)
        real_BL = torch.tensor([[0] * (longest - len(rest)) + [1] * len(rest) for rest in rests], device=device)
        self.mask_BL = torch.cat([real_BL.new_ones(batch, len(prefix)), real_BL], 1)
        position_BL = (self.mask_BL.cumsum(1) - 1).clamp(min=0)[:, -longest:]
        self.position_B = position_BL[:, -1]
        return self._forward(padded_BL, self.mask_BL, position_BL)

    @torch.inference_mode()
    def _step(self) -> Tensor:
        self.position_B = self.position_B + 1
        self.mask_BL = torch.nn.functional.pad(self.mask_BL, (0, 1), value=1)
        ids_B1 = torch.tensor([trace.ids[-1:] for trace in self.traces], device=self.model.device)
        return self._forward(ids_B1, self.mask_BL, self.position_B[:, None])

    @torch.inference_mode()
    def _select(self, rows: list[int]) -> None:
        index: Any = torch.tensor(rows, device=self.model.device)
        self.cache.reorder_cache(index)  # beam search calls this; recurrent layers have no other selection
        self.mask_BL, self.position_B = self.mask_BL[index], self.position_B[index]
        self.traces = [self.traces[row] for row in rows]
        self.seeds_B = self.seeds_B[rows]

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
    """The common prefix of all prompts; every prompt keeps at least one token after it."""
    shortest = min(prompts, key=len)[:-1]
    differ = (i for i, token in enumerate(shortest) if any(prompt[i] != token for prompt in prompts))
    return shortest[: next(differ, len(shortest))]
