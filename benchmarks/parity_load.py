"""What goes on at the same time in the parity benchmark: events that arrive, processes that update and that read."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.synchronize import Event

from benchmarks.parity_world import Shop
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings

BATCH, PAUSE = 400, 0.2
"""Rows that reach the log at once, and seconds between: 2,000 events a second."""


def processes() -> ForkServerContext:
    """Starts processes that find our modules imported: one that is killed is replaced within a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.parity_load", "benchmarks.parity_readers", "clicktrail.updater"])
    return context


class Writer(threading.Thread):
    """Lets events run into the log until it is stopped."""

    def __init__(self, log: EventLog, shop: Shop) -> None:
        """Nothing happens before `start`."""
        super().__init__(daemon=True)
        self._log, self._shop, self._stopped = log, shop, threading.Event()

    def run(self) -> None:
        """A batch after the other, each a moment after the one before."""
        while not self._stopped.wait(PAUSE):
            self._log.append(self._shop.batch(BATCH))

    def stop(self) -> None:
        """No more events."""
        self._stopped.set()
        self.join()


class Updater:
    """A process that follows the log."""

    def __init__(self, settings: Settings, context: ForkServerContext) -> None:
        """Start it."""
        self._ready, self._since = context.Event(), 0.0
        self._process: ForkServerProcess = context.Process(target=follow, args=(settings, self._ready), daemon=True)
        self._process.start()

    def at_work(self) -> float:
        """For how many seconds it has been at work; 0 while it starts.

        Raises:
            RuntimeError: it ended by itself.
        """
        if not self._process.is_alive():
            message = f"an updater ended by itself, with status {self._process.exitcode}"
            raise RuntimeError(message)
        if not self._since and self._ready.is_set():
            self._since = time.monotonic()
        return time.monotonic() - self._since if self._since else 0.0

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._process.join()


def follow(settings: Settings, ready: Event) -> None:
    """What an updater's process does."""
    from clicktrail.updater import run

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ready.set()
    run(settings, stop=stop)


class Updaters:
    """Processes that follow the log; one that is killed is started again."""

    def __init__(self, start: Callable[[], Updater], number: int) -> None:
        """Start so many."""
        self._start = start
        self._running = [start() for _ in range(number)]

    def all_at_work(self) -> bool:
        """Whether each has seen what is in the store: two seconds are enough."""
        return all(one.at_work() > 2 for one in self._running)  # noqa: PLR2004

    def kill_one(self) -> bool:
        """Kill the one that has been at work for longest, where one is."""
        oldest = max(range(len(self._running)), key=lambda place: self._running[place].at_work())
        if not self._running[oldest].at_work():
            return False
        self._running[oldest].kill()
        self._running[oldest] = self._start()
        return True

    def stop(self) -> None:
        """End them."""
        for one in self._running:
            one.stop()
        self._running = []
