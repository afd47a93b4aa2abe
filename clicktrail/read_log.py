"""What was answered online, kept so that it can be held against the log later (validation/parity.py).

A sample of the rows that an online reader answers goes to Parquet files, a folder a view: the values, and what they
depend on: entity, the log offset of its state, the time that was asked for and the time that was answered. Files are
written aside and renamed, so a killed process loses its buffer and nothing else; the oldest files go when the log
grows past its limit. `CLICKTRAIL_READ_LOG` is the share of rows that are kept; where it is 0, the default, there is
no recorder, and a read costs what it cost before.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.publish import publish_bytes, publish_file
from clicktrail.settings import Settings

if TYPE_CHECKING:
    from clicktrail.online_state import ReadResult

LIMIT_BYTES = 512 * 2**20
"""What a shop's read log may hold; the oldest files make room."""

FEATURE = "feature."
"""What stands before a feature's name among the columns."""

_DECLARATION = b"clicktrail.declaration"
_MARK = "forgotten"
_ROWS = 5_000
_SECONDS = 60.0


class Recorder:
    """Keeps a share of the rows that one process answers; safe to call from several threads."""

    def __init__(
        self, folder: Path, share: float, *, limit_bytes: int = LIMIT_BYTES, rows: int = _ROWS, seed: int | None = None
    ) -> None:
        """Write below `folder`.

        Args:
            folder: the shop's read log.
            share: which part of the rows is kept, above 0 and at most 1.
            limit_bytes: size of all files together.
            rows: how many rows are kept in memory before they are written.
            seed: of the choice; the system's by default.
        """
        self._folder, self._share, self._limit, self._rows = folder, share, limit_bytes, rows
        self._random = random.Random(seed)  # noqa: S311 - a sample, no secret
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Declaration, list[pa.Table]]] = {}
        self._held = 0
        self._written = time.monotonic()
        self._number = 0
        self._skip = self._gap()
        atexit.register(self.flush)

    def note(self, declaration: Declaration, keys: Sequence[str | None], t: int, result: ReadResult) -> None:
        """A read of `keys` at `t` was answered with `result`."""
        if self._skip >= len(keys):  # mostly so, where the share is small: nothing but a subtraction is paid
            self._skip -= len(keys)
            return
        with self._lock:
            chosen = []
            while self._skip < len(keys):
                chosen.append(self._skip)
                self._skip += 1 + self._gap()
            self._skip -= len(keys)
            view = f"{declaration.name}@{declaration.fingerprint[:16]}"
            self._kept.setdefault(view, (declaration, []))[1].append(rows_of(keys, t, result, chosen))
            self._held += len(chosen)
            if self._held >= self._rows or time.monotonic() - self._written > _SECONDS:
                self._flush()

    def flush(self) -> None:
        """Write what is in memory; done by itself when the process ends."""
        with self._lock:
            self._flush()

    def _gap(self) -> int:
        """Rows to pass by before the next one that is kept: geometric, so that each row has the same chance."""
        return int(self._random.expovariate(1) / -math.log1p(-self._share)) if self._share < 1 else 0

    def _flush(self) -> None:
        kept, self._kept, self._held = self._kept, {}, 0
        self._written = time.monotonic()
        forgotten = _forgotten(self._folder)
        for view, (declaration, tables) in kept.items():
            self._number += 1
            table = pa.concat_tables(tables).replace_schema_metadata(
                {_DECLARATION: json.dumps(to_json(declaration)).encode()}
            )
            table = table.filter(pc.greater(table["wall"], forgotten))
            if not table.num_rows:
                continue
            path = self._folder / view / f"{time.time_ns() // 1_000:016d}-{os.getpid()}-{self._number}.parquet"
            publish_file(path, partial(_write, table), "read_log")
            if _forgotten(self._folder) != forgotten:  # whoever forgets may have missed this file
                path.unlink(missing_ok=True)
        if kept:
            _make_room(self._folder, self._limit)


def recorder(settings: Settings) -> Recorder | None:
    """The recorder of a shop; None where none of its reads are to be kept."""
    return Recorder(settings.read_log, settings.read_log_share) if settings.read_log_share else None


def forget_before(folder: Path, wall: int) -> None:
    """Have recorders drop what they still hold of reads up to this wall clock, microseconds: users were forgotten."""
    publish_bytes(folder / _MARK, str(wall).encode(), "read_log.mark")


def files(folder: Path) -> list[Path]:
    """The files of a read log, those of a view together, oldest first."""
    return sorted(path for path in folder.glob("*/*.parquet") if not path.name.startswith("."))


def read(path: Path) -> tuple[Declaration, pa.Table]:
    """The view and the rows of one file.

    Columns: `entity`, `asked` and `answered` (int64, microseconds UTC), `offset` (of the log, up to which the entity's
    state was applied), `found` (whether there was a state), `wall` (int64, microseconds UTC: when it was answered), and
    each feature under `feature.<name>`.
    """
    table = pq.read_table(path)
    return from_json(json.loads(table.schema.metadata[_DECLARATION])), table


def by_view(folder: Path, rows: int = 200_000) -> Iterator[tuple[Declaration, pa.Table]]:
    """The read log in pieces of one view, each of about so many rows; a file that goes meanwhile is left out."""
    declaration: Declaration | None = None
    tables: list[pa.Table] = []
    held = 0
    for path in files(folder):
        try:
            found, table = read(path)
        except FileNotFoundError:
            continue
        if declaration is not None and tables and (found != declaration or held >= rows):
            yield declaration, pa.concat_tables(tables)
            tables, held = [], 0
        declaration = found
        tables.append(table)
        held += table.num_rows
    if declaration is not None and tables:
        yield declaration, pa.concat_tables(tables)


def _forgotten(folder: Path) -> int:
    mark = folder / _MARK
    return int(mark.read_bytes()) if mark.is_file() else 0


def rows_of(keys: Sequence[str | None], t: int, result: ReadResult, chosen: Sequence[int] | None = None) -> pa.Table:
    """Rows of the read log (see `read`): what was just answered for `keys` at `t`, or for the chosen places of them."""
    places = np.arange(len(keys)) if chosen is None else np.array(chosen, np.int64)
    index = pa.array(places)
    return pa.table(
        {
            "entity": pa.array(keys, pa.string()).take(index),
            "asked": pa.array(np.full(len(places), t, np.int64)),
            "answered": pa.array(result.times, pa.int64()).take(index),
            "offset": pa.array(result.offsets, pa.int64()).take(index),
            "found": pa.array(result.known, pa.bool_()).take(index),
            "wall": pa.array(np.full(len(places), time.time_ns() // 1_000, np.int64)),
            **{f"{FEATURE}{name}": plain(column.take(index)) for name, column in result.columns.items()},
        }
    )


def plain(column: pa.Array) -> pa.Array:
    """A feature's column without dictionaries, lists with 64-bit offsets: one type whichever door it comes from."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return column
    values = column.flatten()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    mask = column.is_null() if column.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), plain(values), mask=mask)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _make_room(folder: Path, limit: int) -> None:
    """Remove the oldest files of all views until the rest fits; another process may be at it too."""
    sizes = []
    for path in files(folder):
        try:
            sizes.append((path.name, path.stat().st_size, path))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in sizes)
    for _, size, path in sorted(sizes):  # a name begins with the time at which it was written
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
