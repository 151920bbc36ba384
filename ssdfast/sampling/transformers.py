"""Sampling with a transformers model: traces advance together, new ones join as others end.

In float32 a trace depends on its seed only and not on the other traces of its batch: where the rounding of a batch
could change a sampled token, about once in some thousand tokens, the token is sampled from a forward pass of that trace
alone.

Shape legend: B traces in flight, L tokens, V vocabulary, K most likely tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from ..kernels import lm_head_logits
from ..messages import one_line
from ..models import LanguageModel
from ..run_dir import RunError
from .engine import Completion, FinishReason, Request, Rules
from .growing_cache import can_join, from_prefix, keep_and_join, make_cache, padded_left
from .partial_completion import PartialCompletion
from .token_sampling import Noise, draw, top_k_logprobs

_LEAVE = 8
"""an eighth of the rows changes hands at a time"""
_READ_TOKENS = 1024
"""Prompts of similar length are read together, about as many tokens at once as a product needs to be fast."""


class TransformersEngine:
    """`batch_size` traces advance together; where one ends, the next one takes its place."""

    name = "transformers"

    def __init__(self, model: LanguageModel, rules: Rules, batch_size: int) -> None:
        self.model, self.rules, self.batch_size = model, rules, batch_size
        self.capacity = batch_size

    def complete(
        self, requests: Sequence[Request], on_tokens: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Raises RunError where the batch does not fit into memory."""
        waiting, batch = deque(requests), _Batch(self.model, self.rules)
        try:
            while waiting or batch.active:
                if free := batch.room(self.batch_size, len(waiting)):
                    batch.join([waiting.popleft() for _ in range(free)])
                yield from batch.advance(on_tokens, refills=bool(waiting))
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"out of memory with {self.batch_size} traces at once ({one_line(error, 120)}):"
                " start the same command again with a smaller --batch-size; finished traces are kept"
            ) from None

    def close(self) -> None:
        pass


@dataclass
class _Rows:
    """Traces after a forward pass: keys and values, mask [B, L], last positions [B] and logits [B, V]."""

    cache: DynamicCache
    mask_BL: Tensor
    position_B: Tensor
    logits_BV: Tensor


class _Batch:
    """The rows of a batch. A row whose trace has ended stays until enough of them can leave together."""

    def __init__(self, model: LanguageModel, rules: Rules) -> None:
        self.model, self.rules = model, rules
        self.traces: list[PartialCompletion] = []
        self.active: list[int] = []
        """the rows whose traces have not ended"""
        self.exact = model.head.weight_VH.dtype == torch.float32
        self.can_join = can_join(make_cache(model.model.config))
        self.cache: DynamicCache
        self.mask_BL: Tensor
        self.position_B: Tensor
        self.logits_BV: Tensor

    def room(self, batch_size: int, waiting: int) -> int:
        """How many of the waiting requests join now: as few copies of the cache as may be, with few rows empty."""
        free = min(batch_size - len(self.active), waiting)
        if not self.active:
            return free
        return free if self.can_join and free >= min(max(1, batch_size // _LEAVE), waiting) else 0

    @torch.inference_mode()
    def join(self, requests: Sequence[Request]) -> None:
        """Read the prompts of new traces, which join those that are active."""
        requests = sorted(requests, key=lambda request: len(request.prompt_ids))
        parts = self._read_prompts([request.prompt_ids for request in requests])
        traces = [PartialCompletion(request, self.rules) for request in requests]
        if self.active:
            rows, first = self._active_rows()
            kept = _Rows(self.cache, self.mask_BL[rows, first:], self.position_B[rows], self.logits_BV[rows])
            traces = [self.traces[row] for row in self.active] + traces
        else:
            kept, *parts = parts
            rows, first = torch.arange(len(kept.mask_BL), device=self.model.device), 0
        length = max(part.mask_BL.shape[1] for part in (kept, *parts))
        if parts:
            keep_and_join(kept.cache, rows, first, [part.cache for part in parts], length)
        self.cache = kept.cache
        self.mask_BL = torch.cat([padded_left(part.mask_BL, length) for part in (kept, *parts)])
        self.position_B = torch.cat([part.position_B for part in (kept, *parts)])
        self.logits_BV = torch.cat([part.logits_BV for part in (kept, *parts)])
        self.traces, self.active = traces, list(range(len(traces)))

    def advance(self, on_tokens: Callable[[int], object], refills: bool) -> Iterator[Completion]:
        """One token of every active trace; yields those that end. refills: other traces wait for their rows."""
        looped = self._sample(self.logits_BV)
        on_tokens(len(self.active))
        finished, remaining = [], []
        for row in self.active:
            reason = self._finish_reason(self.traces[row], looped[row])
            if reason is None:
                remaining.append(row)
            else:
                finished.append(self.traces[row].completion(reason))
        self.active = remaining
        yield from finished
        if self.active:
            ended = len(self.traces) - len(self.active)
            if not (refills and self.can_join) and ended >= max(1, len(self.traces) // _LEAVE):
                self._leave()
            self.logits_BV = self._step()

    def _active_rows(self) -> tuple[Tensor, int]:
        """The rows, and the number of leading tokens that are padding in all of them."""
        rows = torch.tensor(self.active, device=self.model.device)
        return rows, int(self.mask_BL[rows].any(0).int().argmax())

    @torch.inference_mode()
    def _leave(self) -> None:
        """Ended traces leave the batch."""
        rows, first = self._active_rows()
        if self.can_join:
            keep_and_join(self.cache, rows, first, [], self.mask_BL.shape[1] - first)
        else:
            index: Any = rows
            self.cache.reorder_cache(index)  # beam search calls this; recurrent layers have no other selection
            first = 0
        self.mask_BL, self.position_B = self.mask_BL[rows, first:], self.position_B[rows]
        self.traces = [self.traces[row] for row in self.active]
        self.active = list(range(len(self.traces)))

    @torch.inference_mode()
    def _sample(self, logits_BV: Tensor) -> dict[int, bool]:
        """Sample the next token of each active trace; whether a loop ends it there, by row."""
        seeds_B = np.array([trace.request.seed for trace in self.traces], np.uint64)
        noise = Noise(seeds_B, np.array([len(trace.ids) for trace in self.traces], np.uint64))
        sampled = draw(self._with_penalty(logits_BV, self.traces), self.rules.sampling, noise)
        tokens, close = sampled.ids_B.tolist(), sampled.close_B.tolist()
        top = top_k_logprobs(logits_BV, self.rules.top_logprobs) if self.rules.top_logprobs else None
        steps = list(zip(*(x_BK.tolist() for x_BK in top), strict=True)) if top else []
        looped = {}
        for row in self.active:
            trace = self.traces[row]
            if self.exact and close[row]:
                alone_1V = self._with_penalty(self._logits_alone(trace), [trace])
                tokens[row] = draw(alone_1V, self.rules.sampling, noise.row(row)).ids_B.item()
            looped[row] = trace.add([tokens[row]], steps[row : row + 1])
        return looped

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

    def _read_prompts(self, prompts: list[list[int]]) -> list[_Rows]:
        """The rows of prompts that are sorted by length, in parts. The prefix that all of them share is read once."""
        device = self.model.device
        prefix = _common_prefix(prompts) if len(prompts) > 1 and self.can_join else []
        prefix_cache = make_cache(self.model.model.config)
        if prefix:
            self._forward(prefix_cache, torch.tensor([prefix], device=device), None, None)
        parts = []
        for rests in self._in_parts([prompt[len(prefix) :] for prompt in prompts]):
            longest = len(rests[-1])
            padded_BL = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests], device=device)
            real_BL = torch.tensor([[0] * (longest - len(rest)) + [1] * len(rest) for rest in rests], device=device)
            mask_BL = torch.cat([real_BL.new_ones(len(rests), len(prefix)), real_BL], 1)
            position_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)[:, -longest:]
            cache = from_prefix(prefix_cache) if self.can_join else prefix_cache
            logits_BV = self._forward(cache, padded_BL, mask_BL, position_BL)
            parts.append(_Rows(cache, mask_BL, position_BL[:, -1], logits_BV))
        return parts

    def _in_parts(self, rests: list[list[int]]) -> list[list[list[int]]]:
        """Consecutive prompts, as many as have about `_READ_TOKENS` tokens; all of them where they cannot be joined."""
        parts: list[list[list[int]]] = [[]]
        for rest in rests:
            if self.can_join and parts[-1] and (len(parts[-1]) + 1) * len(rest) > _READ_TOKENS:
                parts.append([])
            parts[-1].append(rest)
        return parts

    @torch.inference_mode()
    def _step(self) -> Tensor:
        self.position_B = self.position_B + 1
        self.mask_BL = torch.nn.functional.pad(self.mask_BL, (0, 1), value=1)
        ids_B1 = torch.tensor([trace.ids[-1:] for trace in self.traces], device=self.model.device)
        return self._forward(self.cache, ids_B1, self.mask_BL, self.position_B[:, None])

    def _forward(
        self, cache: DynamicCache, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor | None
    ) -> Tensor:
        hidden_BLH = self.model.model.base_model(
            input_ids=ids_BL,
            attention_mask=mask_BL,
            position_ids=position_BL,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return lm_head_logits(hidden_BLH[:, -1], self.model.head)


def _common_prefix(prompts: list[list[int]]) -> list[int]:
    """The common prefix of all prompts; every prompt keeps at least one token after it."""
    shortest = min(prompts, key=len)[:-1]
    differ = (i for i, token in enumerate(shortest) if any(prompt[i] != token for prompt in prompts))
    return shortest[: next(differ, len(shortest))]
