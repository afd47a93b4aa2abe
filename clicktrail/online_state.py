"""The online state of all entities in SQLite: a consumer of the event log, and its reader.

One transaction applies a stretch of the log to the states it touches and moves the view's offset, so
that a stretch is applied once however often the work is killed. Needs neither Feast nor torch.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail import state as states
from clicktrail.contract import BEHAVIOUR_TYPES
from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.engine import aggregates, sequence_lists, sequences
from clicktrail.history import label_steps
from clicktrail.publish import failpoint
from clicktrail.state import State

if TYPE_CHECKING:
    from clicktrail.event_log import EventLog

STRETCH = 500_000
"""Log rows that one transaction applies."""

_TABLES = """
create table if not exists state (view text not null, entity text not null, blob blob not null,
                                  primary key (view, entity)) without rowid;
create table if not exists meta (view text primary key, fingerprint text not null, declaration text not null,
                                 "offset" integer not null, watermark integer not null, epoch text not null,
                                 forgotten text not null);
"""


@dataclass(frozen=True, kw_only=True)
class ReadResult:
    """Features of some entities of one view: Arrow arrays [keys] by feature; `known` says of whom there is a state.

    `times`: as of when each was read, microseconds: the time asked for, or the entity's newest arrival if later.
    """

    columns: dict[str, pa.Array]
    known: list[bool]
    times: list[int]


@dataclass(frozen=True, kw_only=True)
class ViewMeta:
    """How far a view's state has come: log offset, largest known_at applied (microseconds), and of which log."""

    fingerprint: str
    offset: int
    watermark: int
    epoch: str


class OnlineState:
    """States in a SQLite file; safe to open from several processes."""

    def __init__(self, path: Path | str) -> None:
        """`path` is the SQLite file; it is made when it is written to first."""
        self.path = Path(path)

    # ---- writing

    def prepare(self, declaration: Declaration) -> None:
        """Make room for a view, at offset 0 where it is new.

        Raises:
            ValueError: a view of this name is there with another declaration.
        """
        with self._writing() as con:
            row = con.execute("select fingerprint from meta where view = ?", [declaration.name]).fetchone()
            if row and row[0] != declaration.fingerprint:
                raise ValueError(_changed(declaration.name))
            if not row:
                con.execute(
                    "insert into meta values (?, ?, ?, 0, 0, '', '')",
                    [declaration.name, declaration.fingerprint, json.dumps(to_json(declaration), sort_keys=True)],
                )

    def check(self, declaration: Declaration) -> None:
        """Nothing happens where the view is new or unchanged.

        Raises:
            ValueError: a view of this name is there with another declaration.
        """
        here = self.views().get(declaration.name)
        if here and here.fingerprint != declaration.fingerprint:
            raise ValueError(_changed(declaration.name))

    def drop(self, view: str) -> None:
        """Remove a view and its states."""
        with self._writing() as con:
            con.execute("delete from state where view >= ? || '@' and view < ? || 'A'", [view, view])  # '@' + 1 is 'A'
            con.execute("delete from meta where view = ?", [view])

    def catch_up(
        self,
        log: EventLog,
        declaration: Declaration,
        *,
        stop: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Apply the log up to `stop` (its end by default) to a view's states; returns the view's offset.

        State of another log, or older than a user's wish to be forgotten, is dropped and built again.
        `progress` is called with the number of log rows done.

        Raises:
            ValueError: the view is here with another declaration, or is removed meanwhile.
        """
        self.prepare(declaration)
        stop = log.version if stop is None else stop
        while True:
            with self._writing() as con:
                forgotten = log.forgotten_digest  # asked each time: else two at once, an old and a new one, never agree
                meta = con.execute(
                    'select "offset", epoch, forgotten from meta where view = ?', [declaration.name]
                ).fetchone()
                if meta is None:
                    message = f"view {declaration.name!r} was removed while its state was brought up to the log"
                    raise ValueError(message)
                offset, epoch, before = meta
                if (epoch and epoch != log.epoch) or (offset and before != forgotten):
                    con.execute("delete from state where view = ?", [_key(declaration)])
                    offset = 0
                    con.execute('update meta set "offset" = 0, watermark = 0 where view = ?', [declaration.name])
                if offset >= stop:
                    return int(offset)
                until = min(offset + STRETCH, stop)
                con.executemany(
                    "insert or replace into state values (?, ?, ?)", _advance(con, log, declaration, offset, until)
                )
                con.execute(
                    'update meta set "offset" = ?, watermark = max(watermark, ?), epoch = ?, forgotten = ? '
                    "where view = ?",
                    [until, log.end_time(until), log.epoch, forgotten, declaration.name],
                )
                failpoint("state.before_commit")
            failpoint("state.after_commit")
            if progress:
                progress(until - offset)

    # ---- reading

    def views(self) -> dict[str, ViewMeta]:
        """The views that are here, and how far each has come."""
        if not self.path.exists():
            return {}
        with closing(self.connect(read_only=True)) as con:
            if not con.execute("select 1 from sqlite_master where name = 'meta'").fetchone():
                return {}  # Feast keeps views of other sources in this file too, and may have made it
            rows = con.execute('select view, fingerprint, "offset", watermark, epoch from meta').fetchall()
        return {
            view: ViewMeta(fingerprint=fingerprint, offset=offset, watermark=watermark, epoch=epoch)
            for view, fingerprint, offset, watermark, epoch in rows
        }

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self.connect(read_only=False)) as con:
            con.execute("begin immediate")  # one writer at a time: the next one waits here
            try:
                yield con
            except BaseException:
                con.execute("rollback")
                raise
            con.execute("commit")

    def connect(self, *, read_only: bool) -> sqlite3.Connection:
        """A connection of the caller's own to the file; writing makes it, with its tables."""
        if read_only:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            return sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
        con = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        con.execute("pragma journal_mode = wal")
        con.execute("pragma synchronous = normal")  # the log is the truth: what a power cut takes is applied again
        con.executescript(_TABLES)
        return con


class OnlineReader:
    """Finishes features from stored states at a read time, by the engine that the offline store uses."""

    def __init__(self, path: Path | str, declarations: Sequence[Declaration]) -> None:
        """Read the states of these views from the SQLite file at `path`.

        Raises:
            ValueError: there is no such file, or a view's state is missing or of another declaration.
        """
        self._state = OnlineState(path)
        self._declarations = {one.name: one for one in declarations}
        self._keys = {one.name: _key(one) for one in declarations}  # a digest each: too dear for every read
        here = self._state.views()
        for name, declaration in self._declarations.items():
            if name not in here:
                message = f"{path} holds no state of view {name!r}: run `make features materialize` for this shop"
                raise ValueError(message)
            if here[name].fingerprint != declaration.fingerprint:
                raise ValueError(_changed(name))
        self._connection = self._state.connect(read_only=True)

    def meta(self) -> dict[str, object]:
        """`offset` and `watermark` (microseconds) of the view that is furthest behind, `epoch`, `fingerprints`."""
        here = {name: meta for name, meta in self._state.views().items() if name in self._declarations}
        return {
            "offset": min((meta.offset for meta in here.values()), default=0),
            "watermark": min((meta.watermark for meta in here.values()), default=0),
            "epoch": next((meta.epoch for meta in here.values()), ""),
            "fingerprints": {name: meta.fingerprint for name, meta in here.items()},
        }

    def read(self, view: str, keys: Sequence[str | None], t: int) -> ReadResult:
        """Features of entities as of `t` (microseconds UTC), or of an entity's newest arrival where that is later.

        An entity without a state gets the values of nothing; where the key is None there is no value at all.
        """
        declaration, key = self._declarations[view], self._keys[view]
        blobs = [self._blob(key, entity) for entity in keys]
        found = [states.empty(declaration) if blob is None else states.unpack(declaration, blob) for blob in blobs]
        times = [max(t, one.time) for one in found]
        columns = finish(declaration, found, np.array(times, np.int64))
        nobody = [entity is None for entity in keys]
        if any(nobody):
            columns = {name: _without(column, nobody) for name, column in columns.items()}
        return ReadResult(columns=columns, known=[blob is not None for blob in blobs], times=times)

    def _blob(self, key: str, entity: str | None) -> bytes | None:
        if entity is None:
            return None
        row = self._connection.execute("select blob from state where view = ? and entity = ?", [key, entity]).fetchone()
        return row[0] if row else None


def finish(declaration: Declaration, found: Sequence[State], t: np.ndarray) -> dict[str, pa.Array]:
    """Features of each state at its read time; `t` int64 [states], microseconds."""
    history = states.history_of(declaration, found)
    entity = np.arange(len(found))
    if declaration.is_sequence:
        return sequence_lists(declaration, sequences(declaration, history, entity, t))
    return aggregates(declaration, history, entity, t)


def declarations_here(path: Path | str) -> list[Declaration]:
    """The declarations whose state a SQLite file holds."""
    with closing(OnlineState(path).connect(read_only=True)) as con:
        return [from_json(json.loads(text)) for (text,) in con.execute("select declaration from meta order by view")]


# ---- applying a stretch of the log


def _advance(
    con: sqlite3.Connection, log: EventLog, declaration: Declaration, start: int, stop: int
) -> Iterator[tuple[str, str, bytes]]:
    """(view key, entity, new state) of every entity that the log rows start..stop touch."""
    key = _key(declaration)
    fresh = _arrived(log, declaration, start, stop)
    steps = _steps(log, declaration, start, stop)
    nothing = states.empty(declaration)
    for entity in fresh.keys() | steps.keys():
        row = con.execute("select blob from state where view = ? and entity = ?", [key, entity]).fetchone()
        old = states.unpack(declaration, row[0]) if row else nothing
        new = fresh.get(entity, nothing)
        new = State(**{**new.__dict__, "offset": stop, "steps": steps.get(entity, nothing.steps)})
        yield key, entity, states.pack(declaration, states.prune(declaration, states.merge(declaration, old, new)))


def _arrived(log: EventLog, declaration: Declaration, start: int, stop: int) -> dict[str, State]:
    """What arrived for each entity in a stretch of the log."""
    from clicktrail.event_log import known_at  # who only reads states needs no DuckDB

    columns = states.stored_columns(declaration)
    needed = [
        declaration.entity_key,
        "event_type",
        "event_timestamp",
        "ingested_at",
        "source_seq",
        "event_id",
        "offset",
    ]
    all_types = set(declaration.events) >= set(BEHAVIOUR_TYPES)
    table = log.read(
        list(dict.fromkeys([*needed, *columns])),
        event_types=None if all_types else declaration.events,
        start=start,
        stop=stop,
    )
    if all_types:
        table = table.filter(pc.is_in(table["event_type"], pa.array(declaration.events)))
    table = table.filter(pc.is_valid(table[declaration.entity_key])).combine_chunks()
    known = known_at(table)
    order = pc.sort_indices(
        table.select([declaration.entity_key, "event_timestamp", "source_seq", "event_id"]).append_column(
            "known", pa.array(known)
        ),
        [
            (name, "ascending")
            for name in (declaration.entity_key, "known", "event_timestamp", "source_seq", "event_id")
        ],
    )
    table, known = table.take(order), known[order.to_numpy()]
    event = table["event_timestamp"].cast(pa.int64()).to_numpy()
    arrived = table["ingested_at"].cast(pa.int64()).to_numpy()
    offsets = table["offset"].to_numpy()
    types = pc.index_in(table["event_type"], pa.array(declaration.events)).to_numpy().astype(np.uint8)
    whole = {name: table[name].combine_chunks() for name in columns}
    encoded = table[declaration.entity_key].combine_chunks().dictionary_encode()  # codes rise with the sorted keys
    ids = encoded.dictionary.to_pylist()
    starts = np.searchsorted(encoded.indices.to_numpy(), np.arange(len(ids) + 1))
    nothing = states.empty(declaration)
    return {
        entity: State(
            offset=stop,
            time=int(arrived[begin:end].max()),
            known=known[begin:end],
            event=event[begin:end],
            offsets=offsets[begin:end],
            types=types[begin:end],
            columns={name: column.slice(begin, end - begin) for name, column in whole.items()},
            steps=nothing.steps,
        )
        for entity, begin, end in zip(ids, starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    }


def _steps(log: EventLog, declaration: Declaration, start: int, stop: int) -> dict[str, np.ndarray]:
    """Label steps, by entity, of every event that a stretch of the log labels or brings."""
    from clicktrail.label_events import read_labels  # who only reads states needs no DuckDB

    out: dict[str, list[np.ndarray]] = {}
    kinds = states.label_kinds(declaration)
    if not kinds:
        return {}
    table = log.read(["event_id", "label_of"], start=start, stop=stop)
    touched = pa.concat_arrays([chunk for name in table.column_names for chunk in table[name].chunks])
    for kind, (label, events) in enumerate(kinds):
        found = read_labels(log, label, events, stop=stop, of=touched.drop_null().unique())
        target = found["target"].to_numpy()
        known, step = label_steps(
            target, found["known"].to_numpy(), found["value"].to_numpy(), found["target_known"].to_numpy()
        )
        rows = np.stack([np.full(len(target), kind), target, known, found["target_event"].to_numpy(), step], axis=1)
        for entity, row in zip(found[declaration.entity_key].to_pylist(), rows, strict=True):
            if entity is not None:
                out.setdefault(entity, []).append(row)
    return {entity: np.stack(rows) for entity, rows in out.items()}


def _without(column: pa.Array, nobody: Iterable[bool]) -> pa.Array:
    if pa.types.is_large_list(column.type):
        return column  # a sequence of nobody is empty
    return pc.if_else(pa.array(nobody), pa.scalar(None, column.type), column)


def _key(declaration: Declaration) -> str:
    return f"{declaration.name}@{declaration.fingerprint[:16]}"


def _changed(view: str) -> str:
    return (
        f"view {view!r} is here with another declaration: a published view is never changed in place. Declare "
        f"{_next_version(view)!r} beside it and move its readers over, or restore the old declaration"
    )


def _next_version(view: str) -> str:
    stem, _, version = view.rpartition("_v")
    return f"{stem}_v{int(version) + 1}" if stem and version.isdigit() else f"{view}_v2"
