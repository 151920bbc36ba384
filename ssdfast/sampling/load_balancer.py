"""Load balancing: the next request goes to the least busy server that neither pauses nor was removed.

A server that fails repeatedly gets one request at a time, after increasing pauses, and is then removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

from ..run_dir import RunError
from .engine import Request

_log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


def pause(failures: int, seed: int) -> float:
    """Seconds to wait after this many failures: doubled each time, with a jitter of a quarter that the seed decides."""
    jitter = Random(seed * 1000 + failures).uniform(0.75, 1.25)
    return min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) * jitter


class Server:
    """One URL and its recent state."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        """The number of requests in flight."""
        self.paused_until = 0.0
        """By the monotonic clock."""
        self.removed_because = ""
        """Why it was removed; empty for a server in use."""
        self.failures = 0
        """Failures since a request last succeeded; those that were in flight together count once."""
        self.last_failure = -1.0
        """By the monotonic clock."""
        self.failed_requests: set[tuple[str, int]] = set()
        """Requests that failed since then. A single one may be the request's fault."""


class LoadBalancer:
    """The servers of a run; `acquire` lends one. `start` must be called first in each event loop."""

    def __init__(self, urls: Sequence[str], max_concurrent_requests: int, max_retries: int) -> None:
        self.servers = [Server(url) for url in urls]
        self.max_concurrent_requests, self.max_retries = max_concurrent_requests, max_retries

    def start(self) -> None:
        self._released = asyncio.Condition()

    @asynccontextmanager
    async def acquire(self, avoid: Server | None) -> AsyncIterator[Server]:
        """The least busy server with a free slot, another one than `avoid` if possible; waits for it.

        Raises RunError where all servers were removed.
        """
        server = await self._wait_for_server(avoid)
        server.in_flight += 1
        try:
            yield server
        finally:
            server.in_flight -= 1
            await self._notify()

    async def _wait_for_server(self, avoid: Server | None) -> Server:
        async with self._released:
            while True:
                free = [server for server in self._in_use() if server.in_flight < self._limit(server)]
                now = time.monotonic()
                if ready := [server for server in free if server.paused_until <= now]:
                    return min(ready, key=lambda server: (server is avoid, server.in_flight))
                soonest = min((server.paused_until - now for server in free), default=None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(soonest):  # wait_for may swallow a cancellation
                        await self._released.wait()

    def _in_use(self) -> list[Server]:
        if servers := [server for server in self.servers if not server.removed_because]:
            return servers
        reasons = "; ".join(f"{server.url}: {server.removed_because}" for server in self.servers)
        raise RunError(
            f"no server is left ({reasons}): finished traces are kept, start the same command again when one answers"
        )

    def _limit(self, server: Server) -> int:
        return self.max_concurrent_requests if server.failures < 2 else 1

    async def _notify(self) -> None:
        async with self._released:
            self._released.notify_all()

    def record_success(self, server: Server) -> None:
        server.failures = 0
        server.failed_requests.clear()

    def record_failure(self, server: Server, request: Request, started: float, reason: str) -> None:
        """A request that started at `started` (monotonic) failed. Raises RunError where that was the last server."""
        server.failed_requests.add((request.problem_id, request.sample))
        if server.removed_because or started <= server.last_failure:
            return
        server.failures += 1
        server.last_failure = time.monotonic()
        self.pause(server, pause(server.failures, request.seed))
        if server.failures > max(self.max_retries, 2) and len(server.failed_requests) > 1:
            server.removed_because = reason
            remaining = len(self._in_use())
            _log.warning(
                "%s fails repeatedly (%s) and is removed; %d of the servers remain", server.url, reason, remaining
            )

    def pause(self, server: Server, seconds: float) -> None:
        """Send no request to the server for so long."""
        server.paused_until = max(server.paused_until, time.monotonic() + seconds)
