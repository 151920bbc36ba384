"""What a server answers is read to the letter and not believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from ssdfast.sampling.engine import Request
from ssdfast.sampling.server_response import events, retry_after, same_text

from .asking import VOCABULARY, assert_right, engine, requests, rules, run
from .fake_server import END, FakeServer, Fault, top_of

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_log_probabilities_are_the_likeliest_in_order():
    with FakeServer() as server:
        (found,) = run(engine(server.url, rules=rules(top_logprobs=6)), requests(1, 40))
        assert found.top_ids.dtype == np.int32
        assert found.top_logprobs.dtype == np.float32
        assert found.top_ids.shape == found.top_logprobs.shape == (len(found.ids), 6)
        for step in range(len(found.ids)):
            top = top_of(found.request.prompt_ids, step, 6)
            order = sorted(top, key=lambda token: (-top[token], token))[:6]
            assert found.top_ids[step].tolist() == order
            assert found.top_logprobs[step].tolist() == [top[token] for token in order]


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("2.5") == 2.5
    assert retry_after(None) == retry_after("soon") == retry_after("-3") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9


def change(**values: Any) -> Fault:
    return Fault(lie=lambda event: event["choices"][0].update(values))


def without(name: str) -> Fault:
    return Fault(lie=lambda event: event["choices"][0].pop(name, None))


LIES = {
    "model": (
        Fault(lie=lambda event: event.update(model="gpt-2")),
        "responds as the model 'gpt-2', requested was 'the",
    ),
    "vocabulary": (change(token_ids=[3, VOCABULARY]), "sampled the token 90, the vocabulary has 90 entries"),
    "no number": (change(token_ids=["3"]), "sampled the token '3'"),
    "prompt": (change(prompt_token_ids=[5, 1, 0]), "token 1 is 1, not 0"),
    "longer prompt": (change(prompt_token_ids=[1, 5, 0, 0]), "4 tokens, not 3"),
    "text": (
        change(text="another text"),
        "has a different tokenizer: .* begins 'another text.*', its ids decode to 'w3 w3",
    ),
    "text alone": (without("token_ids"), "text without token ids: use vLLM 0.10.2 or newer"),
    "no ids at all": (change(token_ids=[]), "text without token ids"),
    "unasked end": (change(finish_reason="stop", token_ids=[4, 5]), "at token 5, which is no end of text"),
    "early end": (change(finish_reason="length", token_ids=[4]), "after 1 tokens where 12 .* --max-model-len"),
    "reason": (change(finish_reason="content_filter", token_ids=[4, 5]), "unknown reason, 'content_filter'"),
    "past the end": (change(token_ids=[END, 4]), "continues after the end"),
    "too long": (change(token_ids=[4] * 13, finish_reason="length"), "continues after the end"),
    "no log-probabilities": (change(logprobs=None), "log-probabilities of 0 tokens with 3 tokens"),
    "few": (change(logprobs={"top_logprobs": [{"token_id:3": -1.0}] * 3}), "1 log-probabilities .*, 4 were requested"),
    "by text": (change(logprobs={"top_logprobs": [{"w3": -1.0}] * 3}), "log-probabilities by text, not by id"),
}


@pytest.mark.parametrize("name", LIES)
def test_an_answer_that_cannot_be_true_stops_the_run(name):
    lie, message = LIES[name]
    with FakeServer(lambda body: [3] * 12, fault=lambda body: lie) as server:
        made = engine(server.url, rules=rules(top_logprobs=4 if "log-prob" in message else 0))
        with pytest.raises(ValueError, match=message) as wrong:
            run(made, [Request("p", [5, 0, 0], 1, 12)])
        assert str(wrong.value).startswith(server.url)
        assert "\n" not in str(wrong.value)


def test_texts_are_compared_leniently_where_they_are_no_whole_characters():
    assert same_text(" Hello  world", "Hello world ")
    assert not same_text("Hello world", "Hello word")
    assert not same_text("Hello", "Hello world")
    assert not same_text("", "Hello")
    assert same_text("Hello", "Hello wor\ufffd")  # a stream holds back what may become a character
    assert same_text("Hello \ufffdx", "Hello \ufffd\ufffdx")
    assert not same_text("Help\ufffd", "Hello\ufffd")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_read_however_they_are_cut(size):
    values = [{"text": "a\u2028é"}, {"text": "\n"}, {}]
    lines = [b": a comment", *(b"data: " + json.dumps(v, ensure_ascii=False).encode() for v in values), b"data: [DONE]"]
    stream = b"\r\n".join(lines) + b"\n\n"

    async def read() -> list[dict[str, Any]]:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(stream), size):
                yield stream[start : start + size]

        return [event async for event in events(chunks())]

    assert asyncio.run(read()) == values


def test_a_text_may_hold_line_separators():
    strange = "a\u2028b\x85c\x0bd\ne"

    class Strange:
        def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
            return strange * len(token_ids)

    with FakeServer(decode=lambda ids: strange * len(ids)) as server:
        assert_right(run(engine(server.url, tokenizer=Strange()), requests(4)))
