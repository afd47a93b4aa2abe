"""Hashes that the event log keeps: of ids, of what an event says, of whole rows.

Those of text are halves of MD5, as DuckDB computes it: defined outside of any library, so that what was stored stays
true, and quick for a column. DuckDB's own hash() and Arrow's may change between versions.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from clicktrail.contract import arrow_schema

_ARRIVAL = ("ingested_at", "source_seq")


def _field_sql(field: pa.Field) -> str:
    value = f"epoch_us({field.name})" if pa.types.is_timestamp(field.type) else field.name
    return f"'{field.name}=' || {value}"


_FIELDS = ", ".join(_field_sql(field) for field in arrow_schema() if field.name not in _ARRIVAL)
_CONTENT = f"md5_number_lower(concat_ws(chr(31), {_FIELDS}))"
_SEEDS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)


@dataclass(frozen=True, kw_only=True)
class RowHashes:
    """Hashes of the rows of a contract table, uint64 [rows] each.

    `ids` are of event_id, `label_of` of that column (0 where it is null). `contents` are of what makes two arrivals
    of one event_id the same event: all but when and in which order they arrived. Missing values are left out of it,
    so that a column which the contract gains later changes no older hash.
    """

    ids: np.ndarray
    contents: np.ndarray
    label_of: np.ndarray

    def take(self, rows: np.ndarray) -> RowHashes:
        """Hashes of some of the rows."""
        return RowHashes(ids=self.ids[rows], contents=self.contents[rows], label_of=self.label_of[rows])


def row_hashes(table: pa.Table) -> RowHashes:
    """Hashes of every row of a contract table."""
    ids = "md5_number_lower(event_id) as ids, coalesce(md5_number_lower(label_of), 0) as label_of"
    return RowHashes(**_columns(table, f"{ids}, {_CONTENT} as contents"))


def id_hashes(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hashes of ids, 0 for null; uint64 [ids]."""
    if len(ids) < _FEW:
        return np.array([_lower_half(one) for one in ids.to_pylist()], np.uint64)
    return _columns(pa.table({"id": ids}), "coalesce(md5_number_lower(id), 0) as low")["low"]


def wide_hashes(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The lower and the upper half of the MD5 of ids, uint64 [2, ids], 0 for null: wide enough not to collide."""
    halves = "coalesce(md5_number_lower(id), 0) as low, coalesce(md5_number_upper(id), 0) as high"
    found = _columns(pa.table({"id": ids}), halves)
    return np.stack([found["low"], found["high"]])


def row_sum(stored: pa.Table) -> np.ndarray:
    """Two sums of row hashes, modulo 2^64; uint64 [2].

    Does not depend on the order of rows, and a row can be taken out again. `stored` has the columns `content`,
    `ingested_at`, `source_seq` and `offset`; a row's hash is of all four.
    """
    words = [stored["content"], *(stored[name].cast(pa.int64()) for name in ("ingested_at", "source_seq", "offset"))]
    parts = [word.to_numpy().view(np.uint64) for word in words]
    total = np.zeros(2, np.uint64)
    for place, seed in enumerate(_SEEDS):
        mixed = np.full(stored.num_rows, seed, np.uint64)
        for part in parts:
            mixed = _mix(mixed ^ part)
        total[place] = mixed.sum(dtype=np.uint64)
    return total


def _mix(word: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every bit of a word decides over every bit of the result."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def to_hex(total: np.ndarray) -> str:
    """A row sum as 32 hexadecimal digits."""
    return f"{int(total[0]):016x}{int(total[1]):016x}"


def from_hex(text: str) -> np.ndarray:
    """The row sum that `to_hex` wrote."""
    return np.array([int(text[:16], 16), int(text[16:], 16)], np.uint64)


_FEW = 2_000
"""Fewer ids are hashed sooner than DuckDB has planned its query."""


def _lower_half(text: str | None) -> int:
    return (
        0 if text is None else int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")
    )


def _columns(table: pa.Table, select: str) -> dict[str, np.ndarray]:
    with _database(os.getpid()).cursor() as con:
        con.register("given", table)
        found = con.sql(f"select {select} from given").fetchnumpy()
    return {name: np.asarray(values) for name, values in found.items()}


@functools.cache
def _database(process: int) -> duckdb.DuckDBPyConnection:  # noqa: ARG001 - a forked process opens its own
    """To open a database costs more than the hashes of 2,000 rows; a cursor of one that is open costs nothing."""
    return duckdb.connect()
