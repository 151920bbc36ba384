"""The server engine against servers that answer from a script, and misbehave in every way that real ones have."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from ssdfast.config import SamplingConfig, ServerConfig
from ssdfast.rundir import Fault as Stop
from ssdfast.sampling import server as server_engine
from ssdfast.sampling import servers
from ssdfast.sampling.answers import events, retry_after, same_text
from ssdfast.sampling.engine import Completion, Request, Rules
from ssdfast.sampling.loops import LoopRule
from ssdfast.sampling.server import ServerEngine

from .fake_server import END, MODEL, FakeServer, Fault, scripted, top_of

VOCABULARY = 90
KEY = "sk-very-secret-0123456789"
LOOPS = LoopRule(4, 64, 16)
DEAD = "http://127.0.0.1:9/v1"  # the discard port: nothing listens


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(servers, "FIRST_PAUSE", 0.004)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class Words:
    """The tokenizer of the fake server."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(f"w{token}" for token in token_ids if not (skip_special_tokens and token == END))


def rules(**changes: Any) -> Rules:
    return Rules(**({"decoding": SamplingConfig(), "end_ids": frozenset({END})} | changes))


def engine(*urls: str, rules: Rules = rules(), tokenizer: Any = None, **settings: Any) -> ServerEngine:  # noqa: B008
    settings = {"timeout": 20.0} | settings
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


def test_what_is_asked_and_what_comes_back():
    decoding = SamplingConfig(temperature=0.7, top_k=7, top_p=0.9, min_p=0.03, presence_penalty=1.5)
    with FakeServer() as server:
        asked = requests(30)
        drawn: list[int] = []
        made = engine(server.url + "/", rules=rules(decoding=decoding, end_ids=frozenset({END, 0})))
        found = list(made.complete(asked, drawn.append))
        assert_right(found)
        assert {c.finish_reason for c in found} == {"stop", "length"}
        assert sum(drawn) == sum(len(c.ids) for c in found)
        assert all(c.top_ids is None and c.loop_at is None for c in found)
        body = next(b for b in server.bodies if b["seed"] == asked[7].seed)
        assert (
            body
            | {
                "model": MODEL,
                "prompt": asked[7].prompt_ids,
                "max_tokens": 12,
                "temperature": 0.7,
                "top_k": 7,
                "top_p": 0.9,
                "min_p": 0.03,
                "presence_penalty": 1.5,
                "frequency_penalty": 0.0,
                "repetition_penalty": 1.0,
                "stop_token_ids": [0, END],
                "ignore_eos": True,
                "stream": True,
                "return_token_ids": True,
            }
            == body
        )
        assert "logprobs" not in body


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


def test_no_requests_are_no_work():
    with FakeServer() as server:
        assert run(engine(server.url), []) == []


def looping(body: dict[str, Any]) -> list[int]:
    return [7, 8, 9, *([20, 21, 22] * 200)][: body["max_tokens"]]


@pytest.mark.parametrize("at_once", [1, 16, 600])
def test_a_loop_is_cut_exactly_and_the_server_let_go(at_once):
    with FakeServer(looping, events_at_once=at_once, pause=0.002) as server:
        made = engine(server.url, rules=rules(loops=LOOPS, top_logprobs=2))
        (found,) = run(made, requests(1, 600))
        assert found.finish_reason == "loop"
        assert found.loop_at == len(found.ids) == 3 + 64
        assert found.ids == looping({"max_tokens": 67})
        assert found.top_ids.shape == (67, 2)
        if at_once < 600:
            assert server.wait_for_hang_up()[0] < 600


def test_an_audited_loop_runs_on():
    with FakeServer(looping) as server:
        (found,) = run(engine(server.url, rules=rules(loops=LOOPS)), requests(1, 200, audited=True))
        assert (found.finish_reason, found.loop_at, len(found.ids)) == ("length", 67, 200)


def test_a_loop_with_the_last_token_is_a_loop():
    with FakeServer(looping) as server:
        (found,) = run(engine(server.url, rules=rules(loops=LOOPS)), requests(1, 67))
        assert (found.finish_reason, found.loop_at) == ("loop", 67)


PASSING = {
    "overloaded": Fault(429, {"Retry-After": "0.05"}),
    "overloaded, no word when": Fault(429),
    "error": Fault(500),
    "gateway": Fault(503),
    "dies": Fault(breaks=True, after=3),
    "dies before a token": Fault(breaks=True),
    "ends early": Fault(ends=True, after=3),
    "ends before a token": Fault(ends=True),
    "error in the stream": Fault(event={"error": {"message": "CUDA", "code": 500}}, after=3),
    "aborts": Fault(event={"model": MODEL, "choices": [{"text": "", "token_ids": [], "finish_reason": "abort"}]}),
    "hangs": Fault(hangs=True),
    "hangs in the middle": Fault(hangs=True, after=3),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_fails_is_asked_again_from_the_start(name):
    slow = 0.3 if "hangs" in name else 20.0
    with FakeServer(faults=[PASSING[name]] * 2) as server:
        asked = [Request("p", [5, 6], 3, 200)]
        assert_right(run(engine(server.url, timeout=slow), asked))
        assert len(server.bodies) == 3


def test_pauses_grow_and_depend_on_the_trace_alone(monkeypatch):
    pauses: list[tuple[int, int]] = []
    monkeypatch.setattr(server_engine, "pause", lambda failures, seed: pauses.append((failures, seed)) or 0.0)
    with FakeServer(faults=[Fault(500)] * 3) as one:
        assert_right(run(engine(one.url), requests(1)))
    assert pauses == [(1, 1000), (2, 1000), (3, 1000)]
    assert servers.pause(1, 5) == servers.pause(1, 5) != servers.pause(1, 6)
    for failures in (1, 2, 5):
        assert 0.75 <= servers.pause(failures, 5) / (servers.FIRST_PAUSE * 2 ** (failures - 1)) <= 1.25
    assert servers.pause(50, 5) <= 1.25 * servers.LONGEST_PAUSE


def test_the_wait_that_a_server_asks_for_is_kept():
    with FakeServer(faults=[Fault(429, {"Retry-After": "0.4"})]) as server:
        began = time.monotonic()
        assert_right(run(engine(server.url), requests(1)))
        assert time.monotonic() - began >= 0.4


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("2.5") == 2.5
    assert retry_after(None) == retry_after("soon") == retry_after("-3") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9


def test_a_request_that_always_fails_is_an_error_and_the_others_go_on():
    def bad(body: dict[str, Any]) -> Fault | None:
        return Fault(500, message="a very\n bad prompt") if body["prompt"][1] == 3 else None

    with FakeServer(fault=bad) as server:
        found = run(engine(server.url, retries=2, concurrency=2), requests(12))
        assert_right([c for c in found if c.request.problem_id != "p3"])
        assert (found[3].finish_reason, found[3].ids) == ("error", [])
        assert "3 times" in found[3].reason
        assert "HTTP 500 (a very bad prompt)" in found[3].reason
        assert server.asked[str(found[3].request.prompt_ids)] == 3


@pytest.mark.parametrize("retried", [False, True])
def test_a_refused_request_is_an_error_and_not_asked_again(retried):
    message = "maximum context length is 4096 tokens\n" + "x" * 5000
    bad = Fault(event={"error": {"message": message, "code": 400}}) if retried else Fault(400, message=message)
    with FakeServer(faults=[bad]) as server:
        found = run(engine(server.url, concurrency=1), requests(3))
        assert found[0].finish_reason == "error"
        assert "maximum context length is 4096 tokens xxx" in found[0].reason
        assert "\n" not in found[0].reason
        assert len(found[0].reason) < 400
        assert_right(found[1:])
        assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_closed_door_stops_the_run(status):
    with FakeServer(faults=[Fault(status)]) as server, pytest.raises(Stop, match=f"HTTP {status} .not today") as stop:
        run(engine(server.url, concurrency=1), requests(3))
    assert server.url in str(stop.value)
    assert ("OPENAI_API_KEY is not set" in str(stop.value)) == (status != 404)


def test_the_key_is_sent_and_never_shown(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    caplog.set_level("DEBUG")
    with FakeServer(
        key=KEY, faults=[None, Fault(500, message=f"bad {KEY}"), Fault(400, message=f"bad {KEY}")]
    ) as server:
        made = engine(server.url, api_key_env="MY_KEY", concurrency=1, retries=0)
        found = run(made, requests(3))
        assert [c.finish_reason for c in found][1:] == ["error", "error"]
        assert KEY not in repr(found)
        assert KEY not in repr(made)
        assert "bad ***" in found[1].reason
        server.key = "another"
        with pytest.raises(Stop, match="MY_KEY holds a key that it refuses") as stop:
            run(made, requests(1))
        assert KEY not in str(stop.value)
        with pytest.raises(Stop, match="MY_KEY") as stop:
            engine(server.url, api_key_env="MY_KEY")
        assert KEY not in str(stop.value)
    monkeypatch.setenv("MY_KEY", "sk-two words")
    with pytest.raises(ValueError, match="MY_KEY holds no key") as odd:
        engine(server.url, api_key_env="MY_KEY")
    assert "two" not in str(odd.value)
    assert KEY not in caplog.text


def change(**values: Any) -> Fault:
    return Fault(lie=lambda event: event["choices"][0].update(values))


def without(name: str) -> Fault:
    return Fault(lie=lambda event: event["choices"][0].pop(name, None))


LIES = {
    "model": (Fault(lie=lambda event: event.update(model="gpt-2")), "answers as the model 'gpt-2', asked was 'the-mod"),
    "vocabulary": (change(token_ids=[3, VOCABULARY]), "drew the token 90, the vocabulary has 90 entries"),
    "no number": (change(token_ids=["3"]), "drew the token '3'"),
    "prompt": (change(prompt_token_ids=[5, 1, 0]), "token 1 is 1, not 0"),
    "longer prompt": (change(prompt_token_ids=[1, 5, 0, 0]), "4 tokens, not 3"),
    "text": (change(text="another text"), "has another tokenizer: .* begins 'another text.*', its ids say 'w3 w3"),
    "text alone": (without("token_ids"), "text without token ids: it has to be vLLM 0.10.2 or newer"),
    "no ids at all": (change(token_ids=[]), "text without token ids"),
    "unasked end": (change(finish_reason="stop", token_ids=[4, 5]), "at token 5, which ends none here"),
    "early end": (change(finish_reason="length", token_ids=[4]), "after 1 tokens where 12 .* --max-model-len"),
    "reason": (change(finish_reason="content_filter", token_ids=[4, 5]), "reason of its own, 'content_filter'"),
    "past the end": (change(token_ids=[END, 4]), "goes on after the end"),
    "too long": (change(token_ids=[4] * 13, finish_reason="length"), "goes on after the end"),
    "no log-probabilities": (change(logprobs=None), "log-probabilities of 0 tokens came with 3 tokens"),
    "few": (change(logprobs={"top_logprobs": [{"token_id:3": -1.0}] * 3}), "1 log-probabilities .*, 4 were asked for"),
    "by text": (change(logprobs={"top_logprobs": [{"w3": -1.0}] * 3}), "log-probabilities came by text, not by id"),
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


def test_servers_are_asked_what_they_serve():
    with FakeServer() as one, FakeServer(models=["a", "b"]) as two, FakeServer(models=[MODEL, "a"]) as three:
        with pytest.raises(ValueError, match=f"{two.url} serves several models, .*: a, b"):
            engine(two.url)
        with pytest.raises(ValueError, match=f"{one.url} does not serve the model 'c' but: {MODEL}"):
            engine(one.url, served_model="c")
        with pytest.raises(ValueError, match=f"{two.url} does not serve the model '{MODEL}' but: a, b"):
            engine(one.url, two.url)
        assert engine(one.url, three.url).model == MODEL
        with pytest.raises(Stop, match=r"/models answers HTTP 404 \(.*Not Found.*including /v1"):
            engine(one.url.removesuffix("/v1") + "/v2")
    for url in (DEAD, one.url):
        with pytest.raises(Stop, match=re.escape(f"{url} cannot be reached")):
            engine(url)
    with pytest.raises(ValueError, match=r"--server\.urls"):
        engine()
    with pytest.raises(ValueError, match=r"temperatures from 0\.01 to 2, not at 2\.5"):
        engine(one.url, rules=rules(decoding=SamplingConfig(temperature=2.5)))


def test_requests_in_flight_are_bounded_and_spread():
    with FakeServer(pause=0.01) as one, FakeServer(pause=0.01) as two:
        assert_right(run(engine(one.url, two.url, concurrency=5), requests(60)))
        assert one.most_busy <= 5
        assert two.most_busy <= 5
        assert one.most_busy == two.most_busy == 5
        assert min(len(one.bodies), len(two.bodies)) > 15


def test_a_dead_server_is_left_out_and_the_others_go_on(capsys):
    with FakeServer(pause=0.002) as one, FakeServer() as two:
        made = engine(one.url, two.url, concurrency=4, retries=3)
        two.die()
        assert_right(run(made, requests(300)))
        assert one.most_busy <= 4
        said = capsys.readouterr().err
        assert said.count(f"{two.url} fails again and again (") == 1
        assert "1 of the servers go on" in said


def test_when_no_server_is_left_the_run_stops_and_says_how_to_go_on():
    with FakeServer(faults=[None] * 5, fault=lambda body: Fault(500)) as one, FakeServer() as two:
        made = engine(one.url, two.url, concurrency=4, retries=3)
        two.die()
        found: list[Completion] = []
        with pytest.raises(Stop, match=r"no server is left .*HTTP 500.* start the same command again") as stop:
            found.extend(made.complete(requests(100), lambda n: None))
        assert two.url in str(stop.value)


def test_finished_completions_come_before_the_stop():
    with FakeServer(faults=[None] * 5, fault=lambda body: Fault(500)) as server:
        found: list[Completion] = []
        with pytest.raises(Stop):
            found.extend(engine(server.url, concurrency=1, retries=2).complete(requests(100), lambda n: None))
        assert len(found) == 6
        assert_right(found[:5])
        assert found[5].finish_reason == "error"


def test_a_server_that_comes_back_is_used_again():
    with FakeServer(faults=[Fault(503)] * 9) as server:
        assert_right(run(engine(server.url, concurrency=3, retries=8), requests(10)))


@pytest.mark.parametrize("how", ["close", "raise", "interrupt"])
def test_abandoning_cancels_what_is_in_flight(how):
    endless = FakeServer(lambda body: [3] * 100_000 if body["prompt"][1] else [4, END], pause=0.005)

    began = False

    def stop(n: int) -> None:
        if how == "interrupt" and began:
            raise KeyboardInterrupt

    with endless as server:
        completions: Iterator[Completion] = engine(server.url).complete(requests(40, 100_000), stop)
        assert next(completions).ids == [4, END]
        began = True
        if how == "close":
            completions.close()
        elif how == "raise":
            with pytest.raises(ZeroDivisionError):
                completions.throw(ZeroDivisionError())
        else:
            with pytest.raises(KeyboardInterrupt):
                next(completions)
        deadline = time.monotonic() + 10
        while server.busy and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.busy == 0
        assert 0 < len(server.hung_up) == len(server.bodies) - 1
        assert not [t for t in threading.enumerate() if t.name == "sampling"]


def test_many_requests_over_three_servers_with_faults_of_every_kind():
    rng = random.Random(7)
    kinds = [fault for name, fault in PASSING.items() if "hang" not in name]

    def unlucky(body: dict[str, Any]) -> Fault | None:
        return rng.choice(kinds) if rng.random() < 0.15 else None

    with ExitStack() as stack:
        three = [stack.enter_context(FakeServer(fault=unlucky)) for _ in range(3)]
        made = engine(*(server.url for server in three), concurrency=256, retries=12)
        assert_right(run(made, requests(300)))
        assert all(len(server.bodies) > 50 for server in three)


def test_256_requests_in_flight_at_one_server():
    barrier = threading.Barrier(256)

    def together(body: dict[str, Any]) -> list[int]:
        barrier.wait(timeout=15)
        return scripted(body)

    with FakeServer(together) as server:
        assert_right(run(engine(server.url, concurrency=256), requests(256)))
