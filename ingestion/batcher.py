"""Many small requests become few flushes: each waits until the flush that holds its events is durable."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ingestion.live import FLUSH_EVENTS, FLUSH_SECONDS, Arrivals, Taken
from ingestion.live_metrics import IntakeMetrics

logger = logging.getLogger("clicktrail.intake")

ROOM = 50_000
"""So many events may wait (about 25 MB); what comes then is turned away until there is room again."""

_DOUBT_SECONDS = 10
"""So long after a flush has failed the intake calls itself not ready; then it may be tried again."""


class FullError(Exception):
    """Too many events wait already."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    arrivals: Arrivals
    done: asyncio.Future[Taken]


class Batcher:
    """Begins a flush every `every` seconds, or as soon as `most` events wait; one flush at a time.

    Lives on one event loop; the flush itself runs in a thread, and what arrives meanwhile is the next one.
    """

    def __init__(
        self,
        take_in: Callable[[Sequence[Arrivals]], Taken],
        metrics: IntakeMetrics,
        *,
        every: float = FLUSH_SECONDS,
        most: int = FLUSH_EVENTS,
        room: int = ROOM,
    ) -> None:
        """`take_in` takes a flush and returns when it is durable."""
        self._take_in = take_in
        self._metrics = metrics
        self._every, self._most, self._room = every, most, room
        self._waiting: list[_Waiting] = []
        self._events = 0  # in `_waiting` and in the flush at work
        self._changed = asyncio.Event()
        self._closing = False
        self._began = -math.inf
        self._failed_at = -math.inf

    @property
    def ready(self) -> bool:
        """Whether more may be sent here."""
        return not self._closing and self._events < self._room and time.monotonic() - self._failed_at >= _DOUBT_SECONDS

    async def submit(self, arrivals: Arrivals) -> Taken:
        """What became of these events, once they are durable.

        Raises:
            FullError: there is no room; nothing of them was taken.
            OSError: the log cannot be written; nothing of them was taken.
        """
        count = len(arrivals.events)
        if self._closing or (self._events and self._events + count > self._room):
            raise FullError
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(arrivals=arrivals, done=done))
        self._add(count)
        self._changed.set()
        return await done

    async def run(self) -> None:
        """Flush until `close`, and then what still waits."""
        while True:
            await self._gather()
            group = self._next_group()
            if not group:
                return
            await self._flush(group)

    def close(self) -> None:
        """Take nothing more; `run` ends when everything that waits is durable."""
        self._closing = True
        self._changed.set()

    async def _gather(self) -> None:
        """Wait until a flush is due."""
        while not self._closing:
            waiting = sum(len(one.arrivals.events) for one in self._waiting)
            if waiting >= self._most:
                return
            # a flush that took long, or was long ago, leaves nothing to wait for
            left = self._began + self._every - time.monotonic() if self._waiting else None
            if left is not None and left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _next_group(self) -> list[_Waiting]:
        """The oldest requests, up to the first that fills the flush."""
        ends = accumulate(len(one.arrivals.events) for one in self._waiting)
        count = next((index for index, end in enumerate(ends, 1) if end >= self._most), len(self._waiting))
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _flush(self, group: list[_Waiting]) -> None:
        arrivals = [one.arrivals for one in group]
        self._began = time.monotonic()
        try:
            taken = await asyncio.to_thread(self._take_in, arrivals)
            self._metrics.record(arrivals, taken, time.monotonic() - self._began)
        except Exception as error:  # every request hears of it, the next flush is another
            logger.exception("a flush of %d events failed", sum(len(one.events) for one in arrivals))
            self._metrics.failures.labels("flush").inc()
            self._failed_at = time.monotonic()
            for one in group:
                if not one.done.done():
                    one.done.set_exception(error)
        else:
            self._failed_at = -math.inf
            start = 0
            for one in group:
                stop = start + len(one.arrivals.events)
                if not one.done.done():  # done: the client went away meanwhile
                    one.done.set_result(taken.part(start, stop))
                start = stop
        self._add(-sum(len(one.events) for one in arrivals))

    def _add(self, events: int) -> None:
        self._events += events
        self._metrics.waiting.set(self._events)
