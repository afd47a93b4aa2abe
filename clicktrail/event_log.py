"""The event log: append-only Parquet segments under one manifest, the single source of everything derived.

An accepted row gets an offset, for good; a version of the log is an offset (the number of rows accepted before
it). Event ids are unique: the first arrival stands, a copy is dropped and counted, a copy with other content is
handed back. A manifest is written aside, synced and renamed, so a reader sees the old version or the new one.
Small segments are merged as the log grows (`clicktrail.compaction`); digests are of content and do not change by it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.arrivals import REJECTED_SCHEMA, SortedOut, Standing, sort_out
from clicktrail.compaction import compact, compact_at_append
from clicktrail.contract import arrow_schema
from clicktrail.forgetting import forget, refused
from clicktrail.log_folder import STORED, LogFolder, known_at, row_group, spans
from clicktrail.log_hashes import RowHashes, from_hex, row_hashes, row_sum, to_hex
from clicktrail.log_index import build_index
from clicktrail.log_manifest import Manifest, Segment, Validated
from clicktrail.log_reading import attach, rows_of, stretch
from clicktrail.publish import failpoint, publish_bytes

__all__ = ["REJECTED_SCHEMA", "Appended", "EventLog", "known_at"]

_SCHEMA = arrow_schema()
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What became of a batch: rows in = accepted + copies + rows of `rejected`.

    `rejected` has columns `row` (index into the table that was given), `rule` and `reason`; `copied` holds the
    indices of the copies, int64 [copies].
    """

    version: int
    accepted: int
    copied: np.ndarray
    rejected: pa.Table

    @property
    def copies(self) -> int:
        """How many rows were copies."""
        return len(self.copied)


class EventLog:
    """The event log in a folder; the folder need not exist yet. Threads may share one."""

    def __init__(self, path: Path) -> None:
        """`path` is the folder of this log."""
        self.path = path
        self._folder = LogFolder(path)

    # ---- what it holds

    @property
    def version(self) -> int:
        """Rows accepted so far, which is the next offset."""
        return self._manifest().version

    @property
    def epoch(self) -> str:
        """Names this log: state that was derived from another log does not match it."""
        return self._manifest().epoch

    @property
    def forgotten_digest(self) -> str:
        """Changes whenever users are forgotten; empty while there are none."""
        users = self._manifest().forgotten
        return hashlib.sha256("\0".join(users).encode()).hexdigest() if users else ""

    @property
    def forgotten(self) -> tuple[str, ...]:
        """The users that are forgotten, sorted."""
        return self._manifest().forgotten

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that hold the rows now, in the order of offsets."""
        return self._manifest().segments

    def accepted_at(self, offset: int) -> int:
        """Wall clock when this row was about to be published, microseconds; see `Manifest.accepted_at`."""
        return self._manifest().accepted_at(offset)

    def accepted(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The appends that brought start <= offset < stop: how many of these rows each, and when (microseconds).

        Only the newest appends are told apart; rows before them count as the oldest of these.
        """
        out = []
        for end, moment in self._manifest().appends:
            if start < min(end, stop):
                out.append((min(end, stop) - start, moment))
                start = end
        return out

    def validated(self, stop: int | None = None) -> list[Validated]:
        """What validated the rows before `stop` when they came: stretches without gaps, in the order of offsets."""
        manifest = self._manifest()
        return manifest.validated(_end(manifest, stop))

    def batches(self) -> list[dict[str, Any]]:
        """What was recorded of each batch that has a digest, in order of arrival."""
        return self._reading(self._batches)

    def batch(self, digest: str) -> dict[str, Any] | None:
        """What was recorded of the batch with this digest."""
        return next((entry for entry in self.batches() if entry["digest"] == digest), None)

    def has_batch(self, digest: str) -> bool:
        """Whether this batch was taken in already."""
        return self.batch(digest) is not None

    def end_time(self, stop: int | None = None) -> int:
        """The largest known_at that readers see before `stop`, microseconds UTC; 0 when there is none."""

        def read(manifest: Manifest) -> int:
            end = _end(manifest, stop)
            latest: list[int] = []
            for segment in manifest.within(0, end):
                if segment.stop > end:
                    times = stretch(self._folder, manifest, _TIMES, start=segment.start, stop=end)
                    latest += [spans(times)["max_known"]] if times.num_rows else []
                elif segment.seen_rows:
                    latest.append(segment.max_known)
            return max(latest, default=0)

        return self._reading(read)

    def digest(self, stop: int | None = None) -> str:
        """Digest of what readers see before `stop` and of who is forgotten; how rows lie in segments is all one."""

        def read(manifest: Manifest) -> str:
            end = _end(manifest, stop)
            total = np.zeros(2, np.uint64)
            for segment in manifest.within(0, end):
                if segment.stop <= end:
                    total += from_hex(segment.digest)
                else:
                    total += row_sum(stretch(self._folder, manifest, _SUMMED, start=segment.start, stop=end))
            forgotten = ",".join(manifest.forgotten)
            return hashlib.sha256(f"{to_hex(total)}|{end}|{forgotten}".encode()).hexdigest()

        return self._reading(read)

    # ---- reading

    def read(
        self,
        columns: Sequence[str] | None = None,
        *,
        event_types: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        dictionaries: Sequence[str] = (),
    ) -> pa.Table:
        """Rows with start <= offset < stop, in the order of their offsets, forgotten users left out.

        Args:
            columns: contract columns and `offset`; all of them by default.
            event_types: only these.
            start: first offset.
            stop: first offset that is not read; the whole log by default.
            dictionaries: string columns to return dictionary-encoded.

        Raises:
            ValueError: `stop` lies past the end of the log.
        """
        names = [*_SCHEMA.names, "offset"] if columns is None else list(columns)

        def read(manifest: Manifest) -> pa.Table:
            return stretch(
                self._folder,
                manifest,
                names,
                start=start,
                stop=_end(manifest, stop),
                event_types=event_types,
                dictionaries=dictionaries,
            )

        return self._reading(read)

    def query(self, sql: str, *, stop: int | None = None) -> pa.Table:
        """Run DuckDB SQL over the view `events` (contract columns, `offset`, `known_at`), forgotten users left out.

        Sums over doubles are not reproducible in DuckDB: keep money in integers.
        """

        def read(manifest: Manifest) -> pa.Table:
            with duckdb.connect() as con:
                con.execute("set timezone = 'UTC'")
                attach(self._folder, manifest, con, stop=_end(manifest, stop), view="events")
                return con.sql(sql).to_arrow_table()

        return self._reading(read)

    def attach(self, con: duckdb.DuckDBPyConnection, *, stop: int | None = None, view: str = "events") -> None:
        """Create the view `view` over the log in a DuckDB connection.

        It names files: a compaction takes them away, after which it has to be attached again (`query` does so).
        """
        self._reading(lambda manifest: attach(self._folder, manifest, con, stop=_end(manifest, stop), view=view))

    # ---- rows by event id

    def locate(self, event_ids: pa.Array | pa.ChunkedArray, *, stop: int | None = None) -> np.ndarray:
        """Offset of each of these events; -1 where readers see none before `stop`. int64 [event_ids]."""
        found = self.rows_of(event_ids, ["event_id", "offset"], stop=stop)
        place = pc.index_in(event_ids, value_set=found["event_id"].combine_chunks())
        return pc.fill_null(found["offset"].take(place), -1).to_numpy()

    def rows_of(
        self, event_ids: pa.Array | pa.ChunkedArray, columns: Sequence[str], *, stop: int | None = None
    ) -> pa.Table:
        """The events of these ids that readers see before `stop`, in the order of their offsets.

        Costs as much as there are ids, however long the log.
        """
        return self._reading(
            lambda manifest: rows_of(
                self._folder, manifest, event_ids, columns, key="event_id", stop=_end(manifest, stop)
            )
        )

    def labels_of(
        self, event_ids: pa.Array | pa.ChunkedArray | None, columns: Sequence[str], *, stop: int | None = None
    ) -> pa.Table:
        """The labels that speak of these events and that readers see before `stop`, in the order of their offsets.

        All labels where `event_ids` is None. Costs as much as there are labels, however long the log.
        """
        return self._reading(
            lambda manifest: rows_of(
                self._folder, manifest, event_ids, columns, key="label_of", stop=_end(manifest, stop)
            )
        )

    # ---- writing

    def append(
        self,
        table: pa.Table,
        *,
        batch: str = "",
        validated_by: str = "",
        counts: dict[str, Any] | None = None,
        before: Callable[[Appended], None] | None = None,
    ) -> Appended:
        """Take in a batch in one step: uniqueness, offsets, segment, manifest. Durable when it returns.

        Where many small segments have come together, they are merged first.

        Args:
            table: contract columns (`arrow_schema()`); row rules were checked before.
            batch: digest of the batch; recorded, so that `has_batch` knows it.
            validated_by: names what held the rows to the contract (`validation.stamps`); empty where nothing did, and
                then no bundle is built of what learns from them.
            counts: anything to record beside it.
            before: called with the outcome before any of it is published, under the writer's lock: whoever
                keeps rejected rows publishes them here, so that a kill in between loses none. An error stops it.

        Raises:
            ValueError: the table has not the contract's schema, or this batch was taken in before.
        """
        _check_schema(table)
        compact_at_append(self._folder)
        with self._folder.writing() as manifest:
            if batch and any(entry["digest"] == batch for entry in self._batches(manifest)):
                message = f"batch {batch} was taken in before: ask has_batch first"
                raise ValueError(message)
            hashes = row_hashes(table)
            found = self._sort_out(manifest, table, hashes)
            outcome = Appended(
                version=manifest.version + len(found.accepted),
                accepted=len(found.accepted),
                copied=found.copied,
                rejected=found.rejected,
            )
            if before is not None:
                before(outcome)
            newest = manifest
            if outcome.accepted:
                segment = self._publish_segment(table, hashes, found.accepted, manifest.version)
                newest = newest.with_append(segment, time.time_ns() // 1_000, validated_by)
            if batch:
                newest = self._record(newest, batch, outcome, counts or {})
            if newest is not manifest:
                self._folder.manifest.publish(newest, "log.manifest")
            if newest.batches != manifest.batches and manifest.batches:
                (self.path / manifest.batches).unlink(missing_ok=True)
        return outcome

    def forget(self, user_ids: Iterable[str]) -> None:
        """Forget users: from now on no reader sees their events, or labels of these, and no more of them enter.

        Their rows are erased when their segments are written next: `compact` does so.
        """
        with self._folder.compacting(wait=True), self._folder.writing() as manifest:
            users = set(user_ids) - set(manifest.forgotten)
            if users:
                self._folder.manifest.publish(forget(self._folder, manifest, users), "log.forget")

    def compact(self) -> None:
        """Make large segments of small ones and erase what forgotten users left. Others may be at work meanwhile."""
        compact(self._folder)

    # ---- inside

    def _manifest(self) -> Manifest:
        return self._folder.manifest.load()

    def _reading(self, read: Callable[[Manifest], _T]) -> _T:
        """Read as of the newest manifest, and again where a compaction took its files away meanwhile."""
        manifest = self._manifest()
        while True:
            try:
                return read(manifest)
            except (FileNotFoundError, duckdb.IOException):
                newest = self._manifest()
                if newest is manifest:
                    raise
                manifest = newest

    def _sort_out(self, manifest: Manifest, table: pa.Table, hashes: RowHashes) -> SortedOut:
        found = self._folder.find(manifest.segments, hashes.ids, hidden=True)

        def same_id(pairs: np.ndarray) -> np.ndarray:
            stands = self._folder.take(manifest, found.offsets[pairs], ["event_id"])["event_id"]
            return pc.equal(stands, table["event_id"].take(pa.array(found.wanted[pairs]))).to_numpy()

        standing = Standing(rows=found.wanted, contents=found.contents, same_id=same_id)
        forgotten, taken = refused(self._folder, manifest, table, hashes)
        return sort_out(table, hashes, standing, forgotten=forgotten, taken=taken)

    def _publish_segment(self, table: pa.Table, hashes: RowHashes, accepted: np.ndarray, start: int) -> Segment:
        """Write the accepted rows of a batch and their index; readers see them once a manifest names them."""
        if not np.array_equal(accepted, np.arange(table.num_rows)):
            table, hashes = table.combine_chunks().take(pa.array(accepted)), hashes.take(accepted)
        offsets = np.arange(start, start + len(accepted))
        rows = pa.table([*table.columns, pa.array(offsets), pa.array(hashes.contents)], schema=STORED)
        segment = Segment(
            file=f"{start:015d}.parquet",
            start=start,
            stop=start + len(accepted),
            rows=len(accepted),
            digest=to_hex(row_sum(rows)),
            accepted_at=0,
            **spans(rows),
        )
        self._folder.publish_segment(
            segment.file,
            lambda writer: writer.write_table(rows, row_group_size=row_group(len(accepted))),
            "log.segment",
        )
        labels = pc.is_valid(rows["label_of"]).to_numpy()
        self._folder.publish_index(segment, build_index(hashes, offsets, labels))
        failpoint("log.before_manifest")
        return segment

    def _batches(self, manifest: Manifest) -> list[dict[str, Any]]:
        return list(json.loads((self.path / manifest.batches).read_bytes())) if manifest.batches else []

    def _record(self, manifest: Manifest, digest: str, outcome: Appended, counts: dict[str, Any]) -> Manifest:
        """The manifest with one more batch listed. The list is a file of its own: most appends do not touch it."""
        entry = {
            "digest": digest,
            "version": outcome.version,
            "accepted": outcome.accepted,
            "copies": outcome.copies,
            "rejected": outcome.rejected.num_rows,
            "counts": counts,
        }
        generation = manifest.generation + 1
        name = f"batches.{generation}.json"
        publish_bytes(self.path / name, json.dumps([*self._batches(manifest), entry]).encode(), "log.batches")
        return replace(manifest, batches=name, generation=generation)


_TIMES = ("event_timestamp", "ingested_at")
_SUMMED = ("content", "ingested_at", "source_seq", "offset")


def _check_schema(table: pa.Table) -> None:
    if table.column_names != _SCHEMA.names or table.schema.types != _SCHEMA.types:
        odd = [f for f in _SCHEMA if f.name not in table.column_names or table.schema.field(f.name).type != f.type]
        extra = sorted(set(table.column_names) - set(_SCHEMA.names))
        message = (
            f"the batch does not follow the event contract: wrong or missing {[str(f) for f in odd]}, unknown "
            f"{extra}; bring it into form with table.select(names).cast(clicktrail.contract.arrow_schema())"
        )
        raise ValueError(message)


def _end(manifest: Manifest, stop: int | None) -> int:
    """The offset to stop at."""
    if stop is not None and stop > manifest.version:
        message = f"offset {stop} was asked for, the log ends at {manifest.version}: ingest first"
        raise ValueError(message)
    return manifest.version if stop is None else stop
