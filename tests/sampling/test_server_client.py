"""The server engine against servers that answer from a script."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ssdfast.config import EngineSamplingParams
from ssdfast.loop_detection import LoopRule
from ssdfast.run_dir import RunError as Stop
from ssdfast.sampling.engine import Completion

from .asking import assert_right, engine, requests, rules, run
from .fake_server import END, MODEL, FakeServer, Fault

pytestmark = pytest.mark.usefixtures("short_pauses")
KEY = "sk-very-secret-0123456789"
LOOPS = LoopRule(4, 64, 16)
DEAD = "http://127.0.0.1:9/v1"  # the discard port: nothing listens


def test_what_is_asked_and_what_comes_back():
    sampling = EngineSamplingParams(temperature=0.7, top_k=7, top_p=0.9, min_p=0.03, presence_penalty=1.5)
    with FakeServer() as server:
        asked = requests(30)
        drawn: list[int] = []
        made = engine(server.url + "/", rules=rules(sampling=sampling, end_ids=frozenset({END, 0})))
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


@pytest.mark.parametrize("retried", [False, True])
def test_a_refused_request_is_an_error_and_not_asked_again(retried):
    message = "maximum context length is 4096 tokens\n" + "x" * 5000
    bad = Fault(event={"error": {"message": message, "code": 400}}) if retried else Fault(400, message=message)
    with FakeServer(faults=[bad]) as server:
        found = run(engine(server.url, max_concurrent_requests=1), requests(3))
        assert found[0].finish_reason == "error"
        assert "maximum context length is 4096 tokens xxx" in found[0].reason
        assert "\n" not in found[0].reason
        assert len(found[0].reason) < 400
        assert_right(found[1:])
        assert len(server.bodies) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_closed_door_stops_the_run(status):
    with FakeServer(faults=[Fault(status)]) as server, pytest.raises(Stop, match=f"HTTP {status} .not today") as stop:
        run(engine(server.url, max_concurrent_requests=1), requests(3))
    assert server.url in str(stop.value)
    assert ("OPENAI_API_KEY is not set" in str(stop.value)) == (status != 404)


def test_the_key_is_sent_and_never_shown(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    caplog.set_level("DEBUG")
    with FakeServer(
        key=KEY, faults=[None, Fault(500, message=f"bad {KEY}"), Fault(400, message=f"bad {KEY}")]
    ) as server:
        made = engine(server.url, api_key_env="MY_KEY", max_concurrent_requests=1, max_retries=0)
        found = run(made, requests(3))
        assert [c.finish_reason for c in found][1:] == ["error", "error"]
        assert KEY not in repr(found)
        assert KEY not in repr(made)
        assert "bad ***" in found[1].reason
        server.key = "another"
        with pytest.raises(Stop, match="MY_KEY holds a key that the server rejects") as stop:
            run(made, requests(1))
        assert KEY not in str(stop.value)
        with pytest.raises(Stop, match="MY_KEY") as stop:
            engine(server.url, api_key_env="MY_KEY")
        assert KEY not in str(stop.value)
    monkeypatch.setenv("MY_KEY", "sk-two words")
    with pytest.raises(ValueError, match="MY_KEY holds no valid key") as odd:
        engine(server.url, api_key_env="MY_KEY")
    assert "two" not in str(odd.value)
    assert KEY not in caplog.text


def test_servers_are_asked_what_they_serve():
    with FakeServer() as one, FakeServer(models=["a", "b"]) as two, FakeServer(models=[MODEL, "a"]) as three:
        with pytest.raises(ValueError, match=f"{two.url} serves several models, .*: a, b"):
            engine(two.url)
        with pytest.raises(ValueError, match=f"{one.url} does not serve the model 'c' but: {MODEL}"):
            engine(one.url, served_model_name="c")
        with pytest.raises(ValueError, match=f"{two.url} does not serve the model '{MODEL}' but: a, b"):
            engine(one.url, two.url)
        assert engine(one.url, three.url).model == MODEL
        with pytest.raises(Stop, match=r"/models responds with HTTP 404 \(.*Not Found.*including /v1"):
            engine(one.url.removesuffix("/v1") + "/v2")
    for url in (DEAD, one.url):
        with pytest.raises(Stop, match=re.escape(f"{url} cannot be reached")):
            engine(url)
    with pytest.raises(ValueError, match=r"--server\.urls"):
        engine()
    with pytest.raises(ValueError, match=r"temperatures from 0\.01 to 2, not at 2\.5"):
        engine(one.url, rules=rules(sampling=EngineSamplingParams(temperature=2.5)))


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
