"""Which server takes the next request: the less busy one, not one that pauses, never one that is left out.

One that fails again and again is asked by one request at a time, after longer and longer pauses, and then left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random

from ..progress import say
from ..run_dir import RunError
from .engine import Request

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


def pause(failures: int, seed: int) -> float:
    """Seconds to wait after this many failures: twice as many each time, give or take a quarter, drawn by the seed."""
    jitter = Random(seed * 1000 + failures).uniform(0.75, 1.25)
    return min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) * jitter


class Server:
    """One URL, and how it has been doing lately."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.busy = 0
        """requests in flight"""
        self.paused_until = 0.0
        """by the monotonic clock"""
        self.gone = ""
        """why it is left out"""
        self.strikes = 0
        """failures since a request last succeeded; those that were in flight together count once"""
        self.struck_at = -1.0
        self.failed: set[tuple[str, int]] = set()
        """requests that failed since then: one alone may be the request's fault"""


class Servers:
    """Those of a run; `asking` lends one. `begin` goes before, in each event loop anew."""

    def __init__(self, urls: Sequence[str], concurrency: int, retries: int) -> None:
        self.servers = [Server(url) for url in urls]
        self.concurrency, self.retries = concurrency, retries

    def begin(self) -> None:
        self.changed = asyncio.Condition()

    @asynccontextmanager
    async def asking(self, avoid: Server | None) -> AsyncIterator[Server]:
        """The least busy server that has room, another one than `avoid` if possible; waits for it.

        Raises RunError where all are left out.
        """
        server = await self._free(avoid)
        server.busy += 1
        try:
            yield server
        finally:
            server.busy -= 1
            await self._tell()

    async def _free(self, avoid: Server | None) -> Server:
        async with self.changed:
            while True:
                left = self._left()
                roomy = [server for server in left if server.busy < self._room(server)]
                now = time.monotonic()
                if ready := [server for server in roomy if server.paused_until <= now]:
                    return min(ready, key=lambda server: (server is avoid, server.busy))
                soonest = min((server.paused_until - now for server in roomy), default=None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(soonest):  # wait_for may swallow a cancellation
                        await self.changed.wait()

    def _left(self) -> list[Server]:
        if left := [server for server in self.servers if not server.gone]:
            return left
        reasons = "; ".join(f"{server.url}: {server.gone}" for server in self.servers)
        raise RunError(
            f"no server is left ({reasons}): finished traces are kept, start the same command again when one answers"
        )

    def _room(self, server: Server) -> int:
        return self.concurrency if server.strikes < 2 else 1

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def worked(self, server: Server) -> None:
        server.strikes = 0
        server.failed.clear()

    def failed(self, server: Server, request: Request, began: float, reason: str) -> None:
        """A request that began at `began` (monotonic) failed. Raises RunError where that was the last server."""
        server.failed.add((request.problem_id, request.sample))
        if server.gone or began <= server.struck_at:
            return
        server.strikes += 1
        server.struck_at = time.monotonic()
        self.hold(server, pause(server.strikes, request.seed))
        if server.strikes > max(self.retries, 2) and len(server.failed) > 1:
            server.gone = reason
            left = self._left()
            say(f"{server.url} fails again and again ({reason}): it is left out, {len(left)} of the servers go on")

    def hold(self, server: Server, seconds: float) -> None:
        """Send it nothing for so long."""
        server.paused_until = max(server.paused_until, time.monotonic() + seconds)
