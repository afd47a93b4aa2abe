"""Copies of requests for a shadow: nobody waits for them, and what does not fit is dropped and counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import ClientSession

from serving.rollout.answers import difference, reading
from serving.rollout.backend import Backend
from serving.rollout.metrics import RolloutMetrics
from serving.rollout.passing import Asked, Reply, UnreachedError, ask

_ROOM = 256
_AT_ONCE = 4
_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class _Copy:
    shadow: Backend
    asked: Asked
    answered: Reply


class Shadow:
    """A bounded queue of copies, and the few that are asked at the same time."""

    def __init__(self, session: ClientSession, metrics: RolloutMetrics) -> None:
        """`run` has to be running for anything to leave the queue."""
        self._session = session
        self._metrics = metrics
        self._queue: asyncio.Queue[_Copy] = asyncio.Queue(_ROOM)

    def offer(self, shadow: Backend, asked: Asked, answered: Reply) -> None:
        """Ask the shadow the same, some time soon, and compare with what the champion answered."""
        try:
            self._queue.put_nowait(_Copy(shadow=shadow, asked=asked, answered=answered))
        except asyncio.QueueFull:
            self._metrics.shadowed("dropped")

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._compare(await self._queue.get())

    async def _compare(self, copy: _Copy) -> None:
        try:
            reply = await ask(self._session, copy.shadow, copy.asked, _TIMEOUT_S)
        except UnreachedError:
            self._metrics.shadowed("failed")
            return
        if reply.status != copy.answered.status:
            self._metrics.shadowed("failed")
            return
        apart = difference(reading(copy.answered.body), reading(reply.body))
        self._metrics.shadowed("incomparable" if apart is None else "compared", apart)
