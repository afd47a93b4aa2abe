"""The batcher: few flushes of many requests, one at a time, with a bound on what waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from ingestion.batcher import Batcher, FullError
from ingestion.live import ACCEPTED, REJECTED, Arrivals, Taken
from ingestion.live_metrics import IntakeMetrics
from validation.routing import QUARANTINE_SCHEMA


class Log:
    """Takes flushes and remembers them; an event that is no text is rejected. `free` lets a flush end."""

    def __init__(self) -> None:
        """It can be written to."""
        self.flushes: list[list[object]] = []
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def take_in(self, arrivals: Sequence[Arrivals]) -> Taken:
        """As `LiveIntake.take_in` does."""
        assert self.free.wait(10)
        if self.broken:
            message = "no space"
            raise OSError(message)
        events = [event for one in arrivals for event in one.events]
        self.flushes.append(events)
        fates = np.array([ACCEPTED if isinstance(event, str) else REJECTED for event in events], np.int8)
        at = np.flatnonzero(fates == REJECTED)
        rows = [{"file": "s", "row": int(index), "rule": "r"} for index in at]
        rejected = QUARANTINE_SCHEMA.empty_table().from_pylist(rows, schema=QUARANTINE_SCHEMA)
        return Taken(version=len(events), fates=fates, rejected=rejected, rejected_at=at)


def arrivals(*events: object) -> Arrivals:
    return Arrivals(stream="s", events=events, positions=np.arange(len(events)), arrived_at=0)


def running(
    log: Log, work: Callable[[Batcher], Awaitable[None]], *, every: float = 60.0, most: int = 4, room: int = 8
) -> None:
    """Do `work` beside a batcher that runs, close it and wait for its end."""

    async def beside() -> None:
        batcher = Batcher(log.take_in, IntakeMetrics(), every=every, most=most, room=room)
        flushing = asyncio.create_task(batcher.run())
        await work(batcher)
        batcher.close()
        await asyncio.wait_for(flushing, 10)

    asyncio.run(beside())


def test_a_full_flush_does_not_wait() -> None:
    """As soon as `most` events wait they are flushed, however long `every` is; each request gets its own part."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        await batcher.submit(arrivals("first"))
        parts = await asyncio.gather(batcher.submit(arrivals("a", 1)), batcher.submit(arrivals(2, "b", 3)))
        assert [part.fates.tolist() for part in parts] == [[ACCEPTED, REJECTED], [REJECTED, ACCEPTED, REJECTED]]
        assert [part.rejected_at.tolist() for part in parts] == [[1], [0, 2]]

    running(log, work)
    assert log.flushes == [["first"], ["a", 1, 2, "b", 3]]


def test_flushes_keep_a_distance() -> None:
    """After a pause a request is flushed at once; what comes within `every` of that is the next flush together."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        began = time.monotonic()
        await batcher.submit(arrivals("a"))
        assert time.monotonic() - began < 0.5
        first = asyncio.create_task(batcher.submit(arrivals("b")))
        await asyncio.sleep(0.1)
        await asyncio.gather(first, batcher.submit(arrivals("c")))
        assert time.monotonic() - began >= 0.5

    running(log, work, every=0.5)
    assert log.flushes == [["a"], ["b", "c"]]


def test_what_comes_during_a_flush_is_the_next() -> None:
    """One flush is at work at a time; a flush takes the oldest requests until it is full."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        log.free.clear()
        first = asyncio.create_task(batcher.submit(arrivals(*"abcd")))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.submit(arrivals(name))) for name in "efgh"]
        await asyncio.sleep(0.05)
        assert log.flushes == []
        log.free.set()
        await asyncio.gather(first, *others)

    running(log, work)
    assert log.flushes == [list("abcd"), list("efgh")]


def test_without_room_a_request_is_turned_away() -> None:
    """Waiting events and those of the flush at work fill the room; what does not fit is refused at once, whole."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        log.free.clear()
        tasks = [asyncio.create_task(batcher.submit(arrivals(*"abcd"))) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not batcher.ready
        with pytest.raises(FullError):
            await batcher.submit(arrivals("e"))
        log.free.set()
        await asyncio.gather(*tasks)
        assert batcher.ready
        assert (await batcher.submit(arrivals(*"abcdefghijk"))).count(ACCEPTED) == 11  # alone, it may be larger

    running(log, work)
    assert log.flushes == [list("abcd"), list("abcd"), list("abcdefghijk")]


def test_a_failed_flush_is_told_to_its_requests_alone() -> None:
    """Those that waited for it get the error, the intake calls itself not ready, the next flush is another."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        log.broken = True
        results = await asyncio.gather(
            batcher.submit(arrivals("a", "b")), batcher.submit(arrivals("c", "d")), return_exceptions=True
        )
        assert [str(one) for one in results] == ["no space", "no space"]
        assert not batcher.ready
        log.broken = False
        await batcher.submit(arrivals(*"abcd"))
        assert batcher.ready

    running(log, work)
    assert log.flushes == [list("abcd")]


def test_closing_flushes_what_waits() -> None:
    """Requests that are in when the intake is told to stop are answered; later ones are turned away."""
    log = Log()

    async def work(batcher: Batcher) -> None:
        last = asyncio.create_task(batcher.submit(arrivals("a")))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(FullError):
            await batcher.submit(arrivals("b"))
        assert (await last).count(ACCEPTED) == 1

    running(log, work)
    assert log.flushes == [["a"]]
