"""Live events on their way into the log: cast, row rules, quarantine, log. One path for every door.

Whatever brings events (HTTP, Redis Streams, Kafka) hands them over in groups, a flush each. Rejected rows are in
quarantine before the others enter the log, and when a flush returns both are durable. Nothing is remembered here:
an event that is handed over again, after a kill for example, is a copy to the log and is counted as one.
Always: events in = accepted + copies + rejected.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from clicktrail.event_log import Appended, EventLog
from clicktrail.settings import Settings
from ingestion.handed_back import handed_back
from ingestion.live_json import read_events
from validation.quarantine import publish_quarantine
from validation.routing import QUARANTINE_SCHEMA, Failure, route
from validation.stamps import rules_stamp

FLUSH_SECONDS = 0.25
"""From the beginning of a flush to that of the next, unless it takes longer or there is nothing to do."""

FLUSH_EVENTS = 5_000
"""So many waiting events begin a flush at once: beyond this a larger one is hardly cheaper an event."""

ACCEPTED, COPY, REJECTED = range(3)
"""What became of an event."""

_FILE_ROWS = 5_000


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Events that arrived together in one stream.

    Attributes:
        stream: names the stream in quarantine.
        events: JSON values; whatever is no object is refused by name.
        positions: place of each in the stream, int64 [events]; with the stream's name it names the event.
        arrived_at: when the intake saw them, microseconds UTC.
    """

    stream: str
    events: Sequence[Any]
    positions: np.ndarray
    arrived_at: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of a flush, all of it durable.

    Attributes:
        version: of the log, after it.
        fates: `ACCEPTED`, `COPY` or `REJECTED` of each event, int8 [events].
        rejected: `QUARANTINE_SCHEMA`, in the order of the events.
        rejected_at: index of the event of each of these rows, int64 [rejected], ascending.
    """

    version: int
    fates: np.ndarray
    rejected: pa.Table
    rejected_at: np.ndarray

    def count(self, fate: int) -> int:
        """How many events had this fate."""
        return int((self.fates == fate).sum())

    def part(self, start: int, stop: int) -> Taken:
        """What became of the events `start` to `stop`, their indices counted from `start`."""
        first, last = np.searchsorted(self.rejected_at, [start, stop])
        return Taken(
            version=self.version,
            fates=self.fates[start:stop],
            rejected=self.rejected.slice(first, last - first),
            rejected_at=self.rejected_at[first:last] - start,
        )


class LiveIntake:
    """Takes flushes into one shop's log, one at a time. Several may be at work, in one process or many."""

    def __init__(self, settings: Settings) -> None:
        """`settings` says where log and quarantine of the shop lie; nothing is made before the first flush."""
        self.log = EventLog(settings.log)
        self._quarantine = _Quarantine(settings.quarantine)
        self._stamp = rules_stamp()
        # kept open: to open a database costs as much as the row rules of 2,000 events
        self._con = duckdb.connect(config={"threads": 1})

    def take_in(self, arrivals: Sequence[Arrivals]) -> Taken:
        """One flush of JSON events.

        Raises:
            OSError: the log or the quarantine cannot be written; nothing has entered, hand the events over again.
        """
        positions = np.concatenate([one.positions for one in arrivals])
        arrived = np.repeat([one.arrived_at for one in arrivals], [len(one.events) for one in arrivals])
        events = [event for one in arrivals for event in one.events]
        table, failures = read_events(events, positions=positions, arrived=arrived)
        streams = np.repeat([one.stream for one in arrivals], [len(one.events) for one in arrivals])
        return self.enter(table, streams=streams, positions=positions, failures=failures)

    def enter(
        self, table: pa.Table, *, streams: np.ndarray, positions: np.ndarray, failures: Sequence[Failure] = ()
    ) -> Taken:
        """One flush of a table that has the contract's columns already.

        Args:
            table: contract columns, any of them may be null; [events].
            streams: name of the stream that each came from, str [events].
            positions: place of each in its stream, int64 [events].
            failures: what could not be read.
        """
        routed = route(table, file="", rows=np.arange(table.num_rows), failures=failures, con=self._con)
        fates = np.full(table.num_rows, ACCEPTED, np.int8)
        kept = routed.kept
        ruled_out = routed.bad["row"].to_numpy()
        found: list[tuple[pa.Table, np.ndarray]] = []

        def before(appended: Appended) -> None:
            conflicts = kept[appended.rejected["row"].to_numpy()]
            at = np.concatenate([ruled_out, conflicts])
            order = np.argsort(at)
            ids = routed.good["event_id"]
            back = handed_back(appended, ids, files=streams[conflicts].tolist(), rows=positions[kept])
            bad = pa.concat_tables([_named(routed.bad, streams, positions), back]).take(pa.array(order))
            found.append((bad, at[order]))
            self._quarantine.publish(bad)

        appended = self.log.append(routed.good, validated_by=self._stamp, before=before)
        self._quarantine.settle()
        rejected, rejected_at = found[0]
        fates[kept[appended.copied]] = COPY
        fates[rejected_at] = REJECTED
        taken = Taken(version=appended.version, fates=fates, rejected=rejected, rejected_at=rejected_at)
        assert taken.count(ACCEPTED) == appended.accepted, (taken, appended)  # noqa: S101 - ours to keep
        return taken


def _named(bad: pa.Table, streams: np.ndarray, positions: np.ndarray) -> pa.Table:
    """Rejected rows whose `row` is an index into the flush, under the names of their streams."""
    at = bad["row"].to_numpy()
    return bad.set_column(0, "file", pa.array(streams[at].tolist(), pa.string())).set_column(
        1, "row", pa.array(positions[at], pa.int64())
    )


class _Quarantine:
    """Rejected rows of one intake in few files: the newest is published anew with every flush, until it is full."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = _file_name()
        self._rows = self._next = QUARANTINE_SCHEMA.empty_table()

    def publish(self, rows: pa.Table) -> None:
        self._next = pa.concat_tables([self._rows, rows])
        if rows.num_rows:
            publish_quarantine(self._folder, self._name, self._next)

    def settle(self) -> None:
        """The flush is in the log: had it failed, it would come again and its rows with it."""
        self._rows = self._next
        if self._rows.num_rows >= _FILE_ROWS:
            self._name = _file_name()
            self._rows = QUARANTINE_SCHEMA.empty_table()


def _file_name() -> str:
    return f"live-{uuid.uuid4().hex}"
