"""Keeps what a service decided, in files (clicktrail.decision_files), without making anybody wait.

A request pays for a reference in a queue. A thread makes a file of what came together, every few seconds; what it holds
in memory meanwhile is bounded. A service that ends writes what it holds, one that is killed loses those seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from clicktrail import decision_files
from clicktrail.contract import MICROSECONDS
from serving.decision_rows import DecisionTable, Noted

logger = logging.getLogger("clicktrail.serving")

SECONDS = 10.0
"""How often what is held is written, and so what a killed service loses at most."""

ROWS = 2_000
"""As soon as so many are held they are written at once."""

ROOM = 10_000
"""Rows that may be held; further ones are dropped and counted, since memory is for answers."""

_SLICE, _PAUSE_S = 50, 0.002
_DAY_US = 86_400 * MICROSECONDS


class Counts(Protocol):
    """Who is told what became of rows."""

    def kept(self, rows: int, size: int) -> None:
        """So many were written, to so many bytes."""

    def dropped(self, rows: int) -> None:
        """So many were not, and will not be."""


class DecisionLog:
    """The decisions of one process; `note` is called by one thread."""

    def __init__(
        self,
        folder: Path,
        task: str,
        table: DecisionTable,
        counts: Counts,
        *,
        share: float = 1.0,
        days: int = 90,
        seconds: float = SECONDS,
        room: int = ROOM,
    ) -> None:
        """Write below `folder`; nothing is written before `start`.

        Args:
            folder: the shop's decisions.
            task: whose.
            table: how a decision becomes rows.
            counts: is told what became of rows.
            share: which part of the requests is kept; the same request by its id in every service.
            days: for how many days.
            seconds: how often what is held is written.
            room: rows that may be held.
        """
        self._folder, self._task, self._table, self._counts = folder, task, table, counts
        self._below, self._days, self._seconds, self._room = int(share * 2**32), days, seconds, room
        self._waiting: deque[Noted] = deque()
        self._held = 0  # of `note`'s thread: rows that went in
        self._taken = 0  # of the writer: rows that came out
        self._wake, self._ending = threading.Event(), False
        self._writer = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}"  # processes of two containers may have the same number
        self._number = 0
        self._swept: date | None = None

    def start(self) -> None:
        """Begin to write in the background."""
        self._writer.start()

    def note(self, noted: Noted) -> None:
        """Keep a decision, if its request is among those that are kept and there is room for it."""
        if zlib.crc32(noted.request_id.encode()) >= self._below:
            return
        rows = noted.decision.read.rows
        held = self._held - self._taken + rows
        if held > self._room:
            self._counts.dropped(rows)
            return
        self._held += rows
        self._waiting.append(noted)
        if held >= ROWS:
            self._wake.set()

    def close(self) -> None:
        """Write what is held, and end."""
        self._ending = True
        self._wake.set()
        if self._writer.is_alive():
            self._writer.join()
        self.flush()

    def flush(self) -> None:
        """Write what is held now."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        for day, rows in groupby(batch, lambda noted: noted.received // _DAY_US):
            self._write(datetime.fromtimestamp(day * 86_400, UTC).date(), list(rows))
        self._taken += sum(noted.decision.read.rows for noted in batch)

    # ---- inside

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self.flush()
            self._sweep()

    def _write(self, day: date, batch: list[Noted]) -> None:
        rows = sum(noted.decision.read.rows for noted in batch)
        self._number += 1
        name = f"part-{batch[0].received:016d}-{self._name}-{self._number}.parquet"
        path = decision_files.folder_of(self._folder, self._task, day) / name
        try:
            kept = decision_files.publish(self._folder, path, pa.concat_tables(self._tables(batch)))
            self._counts.kept(kept, path.stat().st_size if kept else 0)
        except Exception:  # whatever it is, the service goes on answering, and counts what is lost
            self._counts.dropped(rows)
            logger.exception("decisions could not be written")

    def _tables(self, batch: list[Noted]) -> Iterator[pa.Table]:
        """The rows of a batch in slices, with a pause after each: requests come first."""
        for start in range(0, len(batch), _SLICE):
            yield self._table.rows(batch[start : start + _SLICE])
            if not self._ending:
                time.sleep(_PAUSE_S)

    def _sweep(self) -> None:
        today = datetime.now(UTC).date()
        if today != self._swept:
            self._swept = today
            decision_files.remove_older(self._folder, self._task, self._days, today)
