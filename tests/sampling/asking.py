"""Asking a fake server by the engine: settings, requests, and what must come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssdfast.config import EngineSamplingParams, ServerConfig
from ssdfast.sampling.engine import Completion, Request, Rules
from ssdfast.sampling.server_client import ServerEngine

from .fake_server import END, scripted

VOCABULARY = 90


class Words:
    """The tokenizer of the fake server."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(f"w{token}" for token in token_ids if not (skip_special_tokens and token == END))


def rules(**changes: Any) -> Rules:
    return Rules(**({"sampling": EngineSamplingParams(), "end_ids": frozenset({END})} | changes))


def engine(*urls: str, rules: Rules = rules(), tokenizer: Any = None, **settings: Any) -> ServerEngine:  # noqa: B008
    settings = {"read_timeout": 20.0} | settings
    return ServerEngine(ServerConfig(urls=urls, **settings), tokenizer or Words(), VOCABULARY, rules)


def requests(count: int, max_new_tokens: int = 12, **changes: Any) -> list[Request]:
    return [Request(f"p{i}", [5, i % 80, i // 80], 1000 + i, max_new_tokens, **changes) for i in range(count)]


def run(made: ServerEngine, asked: Sequence[Request]) -> list[Completion]:
    """Completions in the order of the requests, each exactly once."""
    found = list(made.complete(asked, lambda n: None))
    by_id = {completion.request.problem_id: completion for completion in found}
    assert len(found) == len(by_id) == len(asked)
    return [by_id[request.problem_id] for request in asked]


def expected(request: Request) -> list[int]:
    return scripted({"prompt": request.prompt_ids, "seed": request.seed, "max_tokens": request.max_new_tokens})


def assert_right(completions: Sequence[Completion]) -> None:
    for completion in completions:
        ids = expected(completion.request)
        assert completion.ids == ids
        assert completion.finish_reason == ("stop" if ids[-1] == END else "length")
