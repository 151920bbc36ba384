"""Sampling from vLLM's OpenAI-compatible servers: streamed token ids, from several URLs at once.

Prompts and completions are sent as ids, because text could be tokenized differently. Streaming makes it possible to
stop a loop (closing the stream frees its slot on the server) and to tell a hung server from a slow one. A failed
request is retried, on another server if there is one; an invalid response stops the run.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..config import ServerConfig
from ..messages import one_line
from ..run_dir import RunError
from .engine import Completion, Request, Rules
from .load_balancer import LoadBalancer, Server, pause
from .server_response import (
    RequestFailed,
    RequestRejected,
    ServerResponse,
    Tokenizer,
    error_message,
    events,
    retry_after,
)
from .vllm import check_sampling_params

if TYPE_CHECKING:
    import httpx2

STREAM_TOKENS = 16
"""Tokens per event, where the server supports it; one event per token would keep this process too busy."""
_SECONDS_TO_START = 30.0
_SECONDS_TO_CLOSE = 5.0
_RETRY = (408, 425, 429)

Put = Callable[[int | Completion | BaseException | None], None]


class ServerEngine:
    """Servers of the same model."""

    name = "server"

    def __init__(self, config: ServerConfig, tokenizer: Tokenizer, vocabulary: int, rules: Rules) -> None:
        """Check which models each server serves.

        tokenizer: the model's own, which the servers' must equal; vocabulary: the number of rows of lm_head.
        Raises ValueError for settings that do not fit the servers, RunError where one does not respond.
        """
        check_sampling_params(rules.sampling)
        try:
            import httpx2
        except ImportError:
            raise ValueError("the server engine needs a package that is not installed: pip install httpx2") from None
        if not config.urls:
            raise ValueError("the server engine needs the URL of a server: set --server.urls")
        self.http = httpx2
        self.config, self.tokenizer, self.vocabulary, self.rules = config, tokenizer, vocabulary, rules
        self.capacity = config.max_concurrent_requests * len(config.urls)
        self._key = _read_key(config.api_key_env)
        self.load_balancer = LoadBalancer(
            [url.rstrip("/") for url in config.urls], config.max_concurrent_requests, config.max_retries
        )
        self.model = config.served_model_name
        self.names = frozenset[str]()
        self.check()

    def close(self) -> None:
        """Does nothing: no resources are held between runs."""

    def check(self) -> None:
        """Raises ValueError unless each server serves the model, RunError where one cannot be reached."""
        with self.http.Client(headers=self._headers(), timeout=_SECONDS_TO_START) as client:
            for server in self.load_balancer.servers:
                served = self._served(client, server.url)
                if not self.model and len(served) == 1:
                    self.model = next(iter(served))
                listed = ", ".join(served) or "none"
                if not self.model:
                    raise ValueError(
                        f"{server.url} serves several models, choose one with --server.served-model-name: {listed}"
                    )
                if self.model not in served:
                    raise ValueError(f"{server.url} does not serve the model {self.model!r} but: {listed}")
                # A server responds with its model's first name, whichever name the request has.
                same = {name for name, root in served.items() if root and root == served[self.model]}
                self.names |= {self.model} | same

    def _served(self, client: httpx2.Client, url: str) -> dict[str, str | None]:
        """The names of the server's models, each with the path that it was loaded from."""
        try:
            response = client.get(f"{url}/models")
        except (self.http.RequestError, self.http.InvalidURL) as error:
            raise RunError(
                f"{url} cannot be reached ({one_line(error)}): start the server, or correct the URL"
            ) from None
        self._check_access(response.status_code, f"{url}/models", response.content)
        try:
            return {str(model["id"]): model.get("root") for model in response.raise_for_status().json()["data"]}
        except (self.http.HTTPStatusError, ValueError, LookupError, TypeError, AttributeError):
            raise RunError(
                f"{url}/models responds with HTTP {response.status_code} and lists no models:"
                " the URL of an OpenAI-compatible server goes up to and including /v1"
            ) from None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _check_access(self, status: int, address: str, body: bytes) -> None:
        """Raises RunError for what fails every request: a missing or rejected key, a wrong address."""
        response = f"{address} responds with HTTP {status} ({error_message(body, self._key)})"
        if status in (401, 403):
            what = "holds a key that the server rejects" if self._key else "is not set"
            raise RunError(f"{response}: the environment variable {self.config.api_key_env} {what}")
        if status == 404 or 300 <= status < 400:
            raise RunError(f"{response}: the URL of an OpenAI-compatible server goes up to and including /v1")

    def complete(
        self, requests: Sequence[Request], on_tokens: Callable[[int], object]
    ) -> Generator[Completion, None, None]:
        """Each request's completion as it finishes; see `Engine`.

        Raises ValueError for an invalid response, RunError where no server is left or access is denied.
        """
        arrived: queue.SimpleQueue[int | Completion | BaseException | None] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._send_all(requests, arrived.put))
        thread = threading.Thread(target=_run, args=(loop, task, arrived.put), name="sampling", daemon=True)
        thread.start()
        try:
            while (event := arrived.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, int):
                    on_tokens(event)
                else:
                    yield event
        finally:
            with suppress(RuntimeError):  # closed already
                loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _send_all(self, requests: Sequence[Request], put: Put) -> None:
        self.load_balancer.start()
        todo = deque(requests)
        limits = self.http.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            self.http.AsyncClient(headers=self._headers(), limits=limits, timeout=None) as client,
            asyncio.TaskGroup() as group,
        ):

            async def worker() -> None:
                while todo:
                    put(await self._send_until_done(client, todo.popleft(), put))

            for _ in range(min(len(todo), self.config.max_concurrent_requests * len(self.load_balancer.servers))):
                group.create_task(worker())

    async def _send_until_done(self, client: httpx2.AsyncClient, request: Request, put: Put) -> Completion:
        last: Server | None = None
        failures = 0
        while True:
            async with self.load_balancer.acquire(last) as server:
                started, last = time.monotonic(), server
                try:
                    completion = await self._send(client, server.url, request, put)
                    self.load_balancer.record_success(server)
                    return completion
                except RequestRejected as rejection:
                    return Completion(request, [], "error", reason=f"{server.url} rejects it: {rejection}")
                except RequestFailed as failure:
                    failures += 1
                    reason = str(failure)
                    self.load_balancer.pause(server, failure.wait)
                    if not failure.overloaded:
                        self.load_balancer.record_failure(server, request, started, reason)
            if failures > self.config.max_retries:
                tries = f"{failures} times, the last time" if failures > 1 else "once,"
                return Completion(request, [], "error", reason=f"it failed {tries} at {server.url}: {reason}")
            await asyncio.sleep(pause(failures, request.seed))

    async def _send(self, client: httpx2.AsyncClient, url: str, request: Request, put: Put) -> Completion:
        partial = ServerResponse(request, self.rules, url, self.names, self.tokenizer, self.vocabulary)
        clock = asyncio.get_running_loop().time
        try:
            async with (
                asyncio.timeout(self.config.read_timeout) as limit,
                client.stream("POST", f"{url}/completions", json=self._body(request)) as response,
            ):
                if response.status_code != 200:
                    await self._fail(response, url)
                async for event in events(response.aiter_bytes()):
                    if tokens := partial.read(event, self._key):
                        put(tokens)
                        limit.reschedule(clock() + self.config.read_timeout)
                    if partial.looped:
                        break
                    if partial.finish_reason:
                        limit.reschedule(clock() + _SECONDS_TO_CLOSE)
        except (TimeoutError, self.http.RequestError) as error:
            if not partial.finish_reason:
                slow = f"no token came for {self.config.read_timeout:g} s"
                raise RequestFailed(slow if isinstance(error, TimeoutError) else one_line(error)) from None
        return partial.completion()

    async def _fail(self, response: httpx2.Response, url: str) -> None:
        """Raises the error of a status other than 200."""
        status, body = response.status_code, await response.aread()
        self._check_access(status, f"{url}/completions", body)
        message = f"HTTP {status} ({error_message(body, self._key)})"
        if status < 500 and status not in _RETRY:
            raise RequestRejected(message)
        raise RequestFailed(message, retry_after(response.headers.get("retry-after")), overloaded=status in _RETRY)

    def _body(self, request: Request) -> dict[str, Any]:
        """The request with every parameter that a server might have a different default for."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt_ids,
            "max_tokens": request.max_new_tokens,
            "seed": request.seed,
            **self.rules.sampling.model_dump(),
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": sorted(self.rules.end_ids),
            "ignore_eos": True,  # the model's own: only stop_token_ids apply
            "stream": True,
            "stream_interval": STREAM_TOKENS,
            "return_token_ids": True,
        }
        if self.rules.top_logprobs:
            body |= {"logprobs": self.rules.top_logprobs, "return_tokens_as_token_ids": True}
        return body


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], put: Put) -> None:
    """Run the loop to its end, cancelled or not, and put None last."""
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as group:
        put(group.exceptions[0])
    except BaseException as error:
        put(error)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        put(None)


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"the environment variable {variable} holds no valid key: remove spaces and non-ASCII characters"
        )
    return key
