"""A vLLM server to test against: it speaks the same protocol, from a script, and misbehaves where the script says so.

The completion of a request is a function of its prompt and seed, so that it is the same whichever server answers and
however often it is asked.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "the-model"
END = 1
Script = Callable[[dict[str, Any]], list[int]]


def scripted(body: dict[str, Any]) -> list[int]:
    """Random tokens of 2..89, as many as the request allows, or fewer and then the end."""
    rng = random.Random(f"{body['prompt']}/{body['seed']}")
    ids = [rng.randrange(2, 90) for _ in range(rng.randint(0, 2 * body["max_tokens"]))]
    return [*ids, END][: body["max_tokens"]]


def top_of(prompt: Sequence[int], step: int, k: int) -> dict[int, float]:
    """Log-probabilities of k ids and of one more, less likely, which stands first as a drawn token does."""
    rng = random.Random(f"{list(prompt)}/{step}")
    ids = rng.sample(range(90), k + 1)
    return {ids[-1]: -50.0, **{token: -rng.randint(0, 12) / 4 for token in ids[:-1]}}


@dataclass
class Fault:
    """How one answer goes wrong."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "not today"
    after: int = 0
    """tokens sent before it breaks off or hangs"""
    breaks: bool = False
    """the socket is closed"""
    hangs: bool = False
    """nothing more comes, before the headers where after = 0"""
    ends: bool = False
    """the stream ends in good order, without a finish_reason"""
    event: dict[str, Any] | None = None
    """sent in place of the rest"""
    lie: Callable[[dict[str, Any]], None] | None = None
    """changes every event before it is sent"""


class FakeServer:
    """`with FakeServer(...) as server:` listens on server.url."""

    def __init__(
        self,
        script: Script = scripted,
        faults: Sequence[Fault | None] = (),
        fault: Callable[[dict[str, Any]], Fault | None] = lambda body: None,
        decode: Callable[[list[int]], str] = lambda ids: " ".join(f"w{token}" for token in ids),
        models: Sequence[str] = (MODEL,),
        key: str = "",
        events_at_once: int = 3,
        pause: float = 0.0,
    ) -> None:
        """faults: of the first requests, in order; `fault` of those after; events_at_once: tokens of an event."""
        self.script, self.faults, self.fault, self.decode = script, deque(faults), fault, decode
        self.models, self.key, self.events_at_once, self.pause = models, key, events_at_once, pause
        self.bodies: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.sent = 0
        """tokens"""
        self.hung_up: list[int] = []
        """tokens sent in answers that the other side left"""
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.http = _Http(("127.0.0.1", 0), _Handler)
        self.http.fake = self
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.die()

    def die(self) -> None:
        """Listen no more."""
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def wait_for_hang_up(self) -> list[int]:
        deadline = time.monotonic() + 10
        while not self.hung_up and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.hung_up


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    fake: FakeServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        fake = self.server.fake
        if not self.path.endswith("/v1/models"):
            self._json(404, {"detail": "Not Found"})
        elif self._let_in():
            self._json(200, {"data": [{"id": name, "root": f"/models/{name}"} for name in fake.models]})

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._let_in():
            return
        with fake.lock:
            fake.bodies.append(body)
            fake.asked[str(body["prompt"])] += 1
            fault = fake.faults.popleft() if fake.faults else fake.fault(body)
            fake.busy += 1
            fake.most_busy = max(fake.most_busy, fake.busy)
        try:
            self._answer(body, fault)
        finally:
            with fake.lock:
                fake.busy -= 1

    def _let_in(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.server.fake.key and given != f"Bearer {self.server.fake.key}":
            self._json(401, {"error": {"message": f"Unauthorized: {given}"}})
            return False
        return True

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body: dict[str, Any], fault: Fault | None) -> None:
        fake, fault = self.server.fake, fault or Fault()
        if fault.status != 200:
            self._json(fault.status, {"error": {"message": fault.message}}, fault.headers)
            return
        if fault.hangs and not fault.after:
            fake.closing.wait()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        ids, step = fake.script(body), fake.events_at_once
        sent = 0
        try:
            for start in range(0, len(ids), step):
                if (fault.breaks or fault.hangs or fault.ends or fault.event) and sent >= fault.after:
                    break
                event = self._event(body, ids, start, step)
                if fault.lie:
                    fault.lie(event)
                self._send(f"data: {json.dumps(event, ensure_ascii=False)}\n\n")
                sent += len(ids[start : start + step])
                if fake.pause:
                    time.sleep(fake.pause)
            if fault.hangs:
                fake.closing.wait()
            if fault.breaks or fault.hangs:
                self.close_connection = True
                self.connection.close()
                return
            if fault.event:
                self._send(f"data: {json.dumps(fault.event)}\n\n")
            self._send("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            fake.hung_up.append(sent)
            self.close_connection = True
        finally:
            with fake.lock:
                fake.sent += sent

    def _event(self, body: dict[str, Any], ids: list[int], start: int, step: int) -> dict[str, Any]:
        some = ids[start : start + step]
        last = start + step >= len(ids)
        stopped = last and ids[-1] in body["stop_token_ids"]
        decode = self.server.fake.decode
        before = decode(ids[:start])
        choice: dict[str, Any] = {
            "index": 0,
            "text": decode(ids[:-1] if stopped else ids[: start + step])[len(before) :],
            "finish_reason": ("stop" if stopped else "length") if last else None,
            "token_ids": some,
        }
        if start == 0:
            choice["prompt_token_ids"] = body["prompt"]
        if k := body.get("logprobs"):
            tops = [top_of(body["prompt"], start + i, k) for i in range(len(some))]
            choice["logprobs"] = {
                "top_logprobs": [{f"token_id:{token}": logprob for token, logprob in top.items()} for top in tops]
            }
        return {"model": MODEL, "choices": [choice]}

    def _send(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()
