"""Online state in a SQLite file: one machine, no server.

Records of an entity are rows side by side in one clustered table; every micro-batch adds one row an entity.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clicktrail.state_store import Held, Step

_TABLES = """
begin immediate;
create table if not exists state_texts (name text primary key, text text not null) without rowid;
create table if not exists state_generations (id integer primary key autoincrement, name text not null unique);
create table if not exists state_chunks (generation integer not null, entity text not null, moment integer not null,
                                         chunk blob not null, primary key (generation, entity, moment)) without rowid;
drop table if exists state; -- an older version's
drop table if exists meta;
commit;
"""
_TEXTS = "select name, text from state_texts"
_AT_ONCE = 10_000
_FEW = 64
"""Entities that are read by one statement; those of more would differ each time, and have to be prepared anew."""

_MAPPED_BYTES = 2**32
"""How much of the file a reader maps: long states are read in half the time, past the copies of the page cache."""

_CHECKPOINT_PAGES = 4_000
_MAPPED, _CACHE_KIB = 2**34, 65_536


class SqliteState:
    """State in a SQLite file; Feast keeps views of other sources in the same one."""

    piece = 512
    """See `StateStore`: a row to step to, and mostly a page to look up."""

    def __init__(self, path: Path) -> None:
        """`path` is the file; it is made when it is written to first."""
        self.path = path
        self._lock = threading.Lock()  # of the writer
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []  # those that nobody uses just now
        self._numbers: dict[str, int] = {}
        self._read: object = None
        self._written: object = None

    # ---- reading

    def texts(self, prefix: str) -> dict[str, str]:
        """See `StateStore`."""
        sql = f"{_TEXTS} where name >= ? and name < ?"
        with self._reading() as con:
            rows = con.execute(sql, [prefix, prefix + "\U0010ffff"]).fetchall() if con else []
        return {name[len(prefix) :]: text for name, text in rows}

    def read(
        self, names: Sequence[str], wanted: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[list[str | None], list[Held]]:
        """See `StateStore`."""
        few = sum(len(entities) for _, entities in wanted) <= _FEW
        with self._reading(at_once=few) as con:
            if con is None:
                return [None] * len(names), [Held(pieces=[], sizes=[0] * len(entities)) for _, entities in wanted]
            if few:
                return self._few(con, names, wanted)
            found = dict(con.execute(f"{_TEXTS} where name in ({_marks(names)})", names).fetchall())
            held = [self._held(con, generation, entities) for generation, entities in wanted]
        return [found.get(name) for name in names], held

    def _few(
        self, con: sqlite3.Connection, names: Sequence[str], wanted: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[list[str | None], list[Held]]:
        """As `read`, in one statement, which is of one moment by itself: each costs as much again as what it finds."""
        parts = [f"select -1, name, text from state_texts where name in ({_marks(names)})"]
        values: list[object] = [*names]
        for place, (generation, entities) in enumerate(wanted):
            if entities:
                some = list(dict.fromkeys(entities))
                which = f"generation = ? and entity in ({_marks(some)})"
                parts.append(f"select {place}, entity, chunk from state_chunks where {which}")
                values += [self._number(con, generation), *some]
        found: dict[tuple[int, str], list[Any]] = {}
        for place, key, value in con.execute(" union all ".join(parts), values):
            found.setdefault((place, key), []).append(value)
        held = []
        for place, (_, entities) in enumerate(wanted):
            chunks = [found.get((place, entity), ()) for entity in entities]
            pieces = [one for many in chunks for one in many]
            held.append(Held(pieces=pieces, sizes=[sum(map(len, one)) for one in chunks]))
        return [found.get((-1, name), (None,))[0] for name in names], held

    def sizes(self, generation: str, entities: Sequence[str]) -> list[int]:
        """See `StateStore`."""
        found: dict[str, int] = {}
        with self._reading() as con:
            if con is None:
                return [0] * len(entities)
            for some in _parts(entities):
                found |= con.execute(
                    "select entity, sum(length(chunk)) from state_chunks "
                    f"where generation = ? and entity in ({_marks(some)}) group by entity",
                    [self._number(con, generation), *some],
                ).fetchall()
        return [found.get(entity, 0) for entity in entities]

    def entities(self, generation: str) -> Iterator[str]:
        """See `StateStore`."""
        last = ""
        sql = "select distinct entity from state_chunks where generation = ? and entity > ? order by entity limit ?"
        while True:
            with self._reading() as con:
                rows = con.execute(sql, [self._number(con, generation), last, _AT_ONCE]).fetchall() if con else []
            if not rows:
                return
            yield from (entity for (entity,) in rows)
            last = rows[-1][0]

    def identity(self) -> object:
        """See `StateStore`."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    # ---- writing

    def apply(self, steps: Sequence[Step]) -> list[bool]:
        """See `StateStore`."""
        with self._writing() as con:
            return [self._apply(con, step) for step in steps]

    def clear(self, generation: str) -> None:
        """See `StateStore`."""
        sql = (
            "delete from state_chunks where generation = ?1 and entity in "
            "(select distinct entity from state_chunks where generation = ?1 limit ?2)"
        )
        while True:
            with self._writing() as con:
                number = self._number(con, generation)
                if not con.execute(sql, [number, _AT_ONCE]).rowcount:
                    con.execute("delete from state_generations where id = ?", [number])
                    return

    # ---- inside

    def _held(self, con: sqlite3.Connection, generation: str, entities: Sequence[str]) -> Held:
        number = self._number(con, generation)
        found: dict[str, list[bytes]] = {}
        for some in _parts(entities):
            for entity, chunk in con.execute(
                f"select entity, chunk from state_chunks where generation = ? and entity in ({_marks(some)})",
                [number, *some],
            ):
                found.setdefault(entity, []).append(chunk)
        pieces: list[bytes] = []
        sizes = []
        for entity in entities:
            chunks = found.get(entity, ())
            pieces.extend(chunks)
            sizes.append(sum(map(len, chunks)))
        return Held(pieces=pieces, sizes=sizes)

    def _apply(self, con: sqlite3.Connection, step: Step) -> bool:
        for name, expected in step.expect.items():
            row = con.execute("select text from state_texts where name = ?", [name]).fetchone()
            if (row[0] if row else None) != expected:
                return False
        for name, text in step.put.items():
            if text is None:
                con.execute("delete from state_texts where name = ?", [name])
            else:
                con.execute("insert or replace into state_texts values (?, ?)", [name, text])
        if not step.append and not step.replace:
            return True
        con.execute("insert or ignore into state_generations (name) values (?)", [step.generation])
        number = self._number(con, step.generation)
        con.executemany(
            "delete from state_chunks where generation = ? and entity = ?",
            [(number, entity) for entity, _ in step.replace],
        )
        con.executemany(
            "insert into state_chunks values (?, ?, ?, ?)",
            [
                (number, entity, step.moment, chunk)
                for entity, chunk in sorted([*step.append, *step.replace])  # neighbours share a page
                if chunk
            ],
        )
        return True

    def _number(self, con: sqlite3.Connection, generation: str) -> int:
        """A generation's number in this file; -1 where it has none. Numbers and names are never given again."""
        if generation not in self._numbers:
            row = con.execute("select id from state_generations where name = ?", [generation]).fetchone()
            if row is None:
                return -1
            self._numbers[generation] = row[0]
        return self._numbers[generation]

    @contextmanager
    def _reading(self, *, at_once: bool = False) -> Iterator[sqlite3.Connection | None]:
        """A connection at one moment of the file; None where there is no state yet. `at_once`: for one statement."""
        identity = self.identity()
        if identity != self._read:  # another file took its place: an open connection still reads the old one
            self._close_readers()
            self._read = identity
        con: sqlite3.Connection | None
        try:
            con = self._readers.pop()
        except IndexError:
            con = self._open()
        if con is None:
            yield None
            return
        if not at_once:
            con.execute("begin")
        try:
            yield con
        finally:
            if not at_once:
                con.execute("rollback")
            if identity == self._read:
                self._readers.append(con)
            else:
                con.close()

    def _open(self) -> sqlite3.Connection | None:
        if not self.path.exists():
            return None
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        con = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False)
        if con.execute("select 1 from sqlite_master where name = 'state_generations'").fetchone():
            con.execute(f"pragma mmap_size = {_MAPPED}")  # a call for every page would take half of a read's time
            con.execute(f"pragma cache_size = -{_CACHE_KIB}")
            return con
        con.close()  # Feast may have made the file, or an older version of this library
        return None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._writer is not None and self.identity() != self._written:
                self._close_writer()
            if self._writer is None:
                self._writer = self._make()
            con = self._writer
            con.execute("begin immediate")  # one writer at a time: the next one waits here
            try:
                yield con
            except BaseException:
                con.execute("rollback")
                self._numbers = {}
                raise
            con.execute("commit")

    def _make(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        con = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        con.execute("pragma journal_mode = wal")
        con.execute("pragma synchronous = normal")  # the log is the truth: what a power cut takes is applied again
        con.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        con.executescript(_TABLES)
        self._written = self.identity()
        return con

    def _close_readers(self) -> None:
        idle, self._readers, self._numbers = self._readers, [], {}
        for con in idle:
            con.close()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._numbers = None, {}

    def __del__(self) -> None:
        """Close the connections: those that are merely let go of wait for the garbage collector, and keep the file."""
        self._close_readers()
        self._close_writer()


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _parts(entities: Sequence[str]) -> Iterator[Sequence[str]]:
    distinct = list(dict.fromkeys(entities))
    return (distinct[at : at + _AT_ONCE] for at in range(0, len(distinct), _AT_ONCE))
