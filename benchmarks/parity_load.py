"""What goes on at the same time in the parity benchmark: events that arrive, processes that update and that read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.parity_world import Shop
from clicktrail.event_log import EventLog

BATCH, PAUSE = 400, 0.2
"""Rows that reach the log at once, and seconds between: 2,000 events a second."""


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
    """A process that follows the log; what it says goes to a file."""

    def __init__(self, environ: dict[str, str], said: Path) -> None:
        """Start it."""
        command = [sys.executable, "-m", "clicktrail.updater", "--metrics-port", "0"]
        self._said, self._since = said, 0.0
        with said.open("wb") as stream:
            self._process = subprocess.Popen(command, env=environ, stdout=stream, stderr=subprocess.STDOUT)

    def at_work(self) -> float:
        """For how many seconds it has been at work; 0 while it starts.

        Raises:
            RuntimeError: it ended by itself.
        """
        if self._process.poll() is not None:
            message = f"an updater ended with status {self._process.returncode}: {self._said.read_text()[-2000:]}"
            raise RuntimeError(message)
        if not self._since and b"updating" in self._said.read_bytes():
            self._since = time.monotonic()
        return time.monotonic() - self._since if self._since else 0.0

    def end(self, number: int) -> None:
        """End it by a signal."""
        self._process.send_signal(number)
        self._process.wait()


class Updaters:
    """Processes that follow the log; one that is killed is started again."""

    def __init__(self, environ: dict[str, str], number: int) -> None:
        """Start so many."""
        self._environ, self._started = environ, 0
        self._running = [self._start() for _ in range(number)]

    def _start(self) -> Updater:
        self._started += 1
        return Updater(self._environ, Path(self._environ["CLICKTRAIL_HOME"]) / f"updater {self._started}")

    def all_at_work(self) -> bool:
        """Whether each has seen what is in the store: a second is enough."""
        return all(one.at_work() > 1 for one in self._running)

    def kill_one(self, rng: np.random.Generator) -> bool:
        """Kill one that has been at work for a moment, where there is one."""
        for place, one in enumerate(self._running):
            if one.at_work() > rng.uniform(0.05, 3):
                one.end(signal.SIGKILL)
                self._running[place] = self._start()
                return True
        return False

    def stop(self) -> None:
        """End them."""
        for one in self._running:
            one.end(signal.SIGTERM)
        self._running = []


class Reader:
    """A process that reads until it has had enough; what it was answered goes to the read log."""

    def __init__(self, environ: dict[str, str], reads: int, seed: int) -> None:
        """Start it."""
        command = [sys.executable, "-m", "benchmarks.parity", "--reads", str(reads), "--reader", str(seed)]
        self._process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)

    @property
    def running(self) -> bool:
        """Whether it is still at it."""
        return self._process.poll() is None

    def refused(self) -> int:
        """How many batches were refused: while there was no state, an answer would have been wrong."""
        said, _ = self._process.communicate()
        if self._process.returncode:
            message = f"a reader failed with status {self._process.returncode}"
            raise RuntimeError(message)
        return int(json.loads(said.splitlines()[-1])["refused"])

    def stop(self) -> None:
        """End it, done or not."""
        if self.running:
            self._process.kill()
            self._process.wait()
