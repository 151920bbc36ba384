"""Servers that fail in every way that real ones have: asked again, left out, or the end of the run."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from ssdfast.run_dir import RunError as Stop
from ssdfast.sampling import load_balancer
from ssdfast.sampling import server_client as server_engine
from ssdfast.sampling.engine import Completion, Request

from .asking import assert_right, engine, requests, run
from .fake_server import MODEL, FakeServer, Fault, scripted

pytestmark = pytest.mark.usefixtures("short_pauses")

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
        assert_right(run(engine(server.url, read_timeout=slow), asked))
        assert len(server.bodies) == 3


def test_pauses_grow_and_depend_on_the_trace_alone(monkeypatch):
    pauses: list[tuple[int, int]] = []
    monkeypatch.setattr(server_engine, "pause", lambda failures, seed: pauses.append((failures, seed)) or 0.0)
    with FakeServer(faults=[Fault(500)] * 3) as one:
        assert_right(run(engine(one.url), requests(1)))
    assert pauses == [(1, 1000), (2, 1000), (3, 1000)]
    assert load_balancer.pause(1, 5) == load_balancer.pause(1, 5) != load_balancer.pause(1, 6)
    for failures in (1, 2, 5):
        assert 0.75 <= load_balancer.pause(failures, 5) / (load_balancer.FIRST_PAUSE * 2 ** (failures - 1)) <= 1.25
    assert load_balancer.pause(50, 5) <= 1.25 * load_balancer.LONGEST_PAUSE


def test_the_wait_that_a_server_asks_for_is_kept():
    with FakeServer(faults=[Fault(429, {"Retry-After": "0.4"})]) as server:
        began = time.monotonic()
        assert_right(run(engine(server.url), requests(1)))
        assert time.monotonic() - began >= 0.4


def test_a_request_that_always_fails_is_an_error_and_the_others_go_on():
    def bad(body: dict[str, Any]) -> Fault | None:
        return Fault(500, message="a very\n bad prompt") if body["prompt"][1] == 3 else None

    with FakeServer(fault=bad) as server:
        found = run(engine(server.url, max_retries=2, max_concurrent_requests=2), requests(12))
        assert_right([c for c in found if c.request.problem_id != "p3"])
        assert (found[3].finish_reason, found[3].ids) == ("error", [])
        assert "3 times" in found[3].reason
        assert "HTTP 500 (a very bad prompt)" in found[3].reason
        assert server.asked[str(found[3].request.prompt_ids)] == 3


def test_requests_in_flight_are_bounded_and_spread():
    with FakeServer(pause=0.01) as one, FakeServer(pause=0.01) as two:
        assert_right(run(engine(one.url, two.url, max_concurrent_requests=5), requests(60)))
        assert one.most_busy <= 5
        assert two.most_busy <= 5
        assert one.most_busy == two.most_busy == 5
        assert min(len(one.bodies), len(two.bodies)) > 15


def test_a_dead_server_is_removed_and_the_others_continue(caplog):
    with FakeServer(pause=0.002) as one, FakeServer() as two:
        made = engine(one.url, two.url, max_concurrent_requests=4, max_retries=3)
        two.die()
        assert_right(run(made, requests(300)))
        assert one.most_busy <= 4
        assert caplog.text.count(f"{two.url} fails repeatedly (") == 1
        assert "1 of the servers remain" in caplog.text


def test_when_no_server_is_left_the_run_stops_and_says_how_to_go_on():
    with FakeServer(faults=[None] * 5, fault=lambda body: Fault(500)) as one, FakeServer() as two:
        made = engine(one.url, two.url, max_concurrent_requests=4, max_retries=3)
        two.die()
        found: list[Completion] = []
        with pytest.raises(Stop, match=r"no server is left .*HTTP 500.* start the same command again") as stop:
            found.extend(made.complete(requests(100), lambda n: None))
        assert two.url in str(stop.value)


def test_finished_completions_come_before_the_stop():
    with FakeServer(faults=[None] * 5, fault=lambda body: Fault(500)) as server:
        found: list[Completion] = []
        with pytest.raises(Stop):
            found.extend(
                engine(server.url, max_concurrent_requests=1, max_retries=2).complete(requests(100), lambda n: None)
            )
        assert len(found) == 6
        assert_right(found[:5])
        assert found[5].finish_reason == "error"


def test_a_server_that_comes_back_is_used_again():
    with FakeServer(faults=[Fault(503)] * 9) as server:
        assert_right(run(engine(server.url, max_concurrent_requests=3, max_retries=8), requests(10)))


def test_many_requests_over_three_servers_with_faults_of_every_kind():
    rng = random.Random(7)
    kinds = [fault for name, fault in PASSING.items() if "hang" not in name]

    def unlucky(body: dict[str, Any]) -> Fault | None:
        return rng.choice(kinds) if rng.random() < 0.15 else None

    with ExitStack() as stack:
        three = [stack.enter_context(FakeServer(fault=unlucky)) for _ in range(3)]
        made = engine(*(server.url for server in three), max_concurrent_requests=256, max_retries=12)
        assert_right(run(made, requests(300)))
        assert all(len(server.bodies) > 50 for server in three)


def test_256_requests_in_flight_at_one_server():
    barrier = threading.Barrier(256)

    def together(body: dict[str, Any]) -> list[int]:
        barrier.wait(timeout=15)
        return scripted(body)

    with FakeServer(together) as server:
        assert_right(run(engine(server.url, max_concurrent_requests=256), requests(256)))
