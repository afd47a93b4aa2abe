"""What becomes of the rows of a batch: accepted, a copy, or refused and by which rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clicktrail.contract import AHEAD_LIMIT_SECONDS, MICROSECONDS
from clicktrail.log_hashes import RowHashes

REJECTED_SCHEMA = pa.schema([("row", pa.int64()), ("rule", pa.string()), ("reason", pa.string())])

_ACCEPTED, _COPY = 0, 1
_RULES = {
    2: ("ahead_of_arrival", f"dated more than {AHEAD_LIMIT_SECONDS} s ahead of its own arrival"),
    3: ("forgotten", "of a user who is forgotten, or a label of such a user's event"),
    4: ("conflict", "an event with this event_id and other content came first"),
}
_AHEAD, _FORGOTTEN, _CONFLICT = _RULES


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Events of the log whose id may be that of a row of the batch.

    `rows` (of the batch), int64; `contents` of the standing event, uint64; `same_id` tells of some of these pairs (by
    index, int64) whether the ids are really the same, bool.
    """

    rows: np.ndarray
    contents: np.ndarray
    same_id: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SortedOut:
    """`accepted` rows in order of arrival and `copied` rows in theirs, int64; `rejected` as `REJECTED_SCHEMA`."""

    accepted: np.ndarray
    copied: np.ndarray
    rejected: pa.Table


def sort_out(
    table: pa.Table, hashes: RowHashes, standing: Standing, *, forgotten: np.ndarray, taken: np.ndarray
) -> SortedOut:
    """Decide over each row of a batch.

    Args:
        table: the batch, contract columns.
        hashes: of its rows.
        standing: what the log holds.
        forgotten: rows that must not enter, bool [rows].
        taken: rows whose event_id was that of an erased event, bool [rows].
    """
    event, arrived = (table[name].cast(pa.int64()).to_numpy() for name in ("event_timestamp", "ingested_at"))
    fate = np.full(table.num_rows, _ACCEPTED, np.int8)
    _decide(fate, np.flatnonzero(event - arrived > AHEAD_LIMIT_SECONDS * MICROSECONDS), _AHEAD)
    _decide(fate, np.flatnonzero(forgotten), _FORGOTTEN)
    same = hashes.contents[standing.rows] == standing.contents  # content covers the id: nothing more to ask
    _decide(fate, standing.rows[same], _COPY)
    other = np.flatnonzero(~same)
    _decide(fate, standing.rows[other[standing.same_id(other)]], _CONFLICT)
    _decide(fate, np.flatnonzero(taken), _CONFLICT)
    rows, first = _came_again(table["event_id"], hashes.ids, arrived, np.flatnonzero(fate == _ACCEPTED))
    fate[rows] = np.where(hashes.contents[rows] == hashes.contents[first], _COPY, _CONFLICT)

    accepted = np.flatnonzero(fate == _ACCEPTED)
    accepted = accepted[np.argsort(arrived[accepted], kind="stable")]
    return SortedOut(accepted=accepted, copied=np.flatnonzero(fate == _COPY), rejected=_rejected(fate))


def _decide(fate: np.ndarray, rows: np.ndarray, what: int) -> None:
    """Rows over which nothing was decided yet."""
    fate[rows[fate[rows] == _ACCEPTED]] = what


def _came_again(
    ids: pa.ChunkedArray, hashes: np.ndarray, arrived: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Among `rows`, those whose id came earlier (by arrival, then row), and the row where it came first."""
    ordered = np.sort(hashes[rows])
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    rows = rows[np.isin(hashes[rows], twice)] if len(twice) else rows[:0]
    codes = ids.take(pa.array(rows)).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((rows, arrived[rows], codes))
    rows, codes = rows[order], codes[order]
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    first = np.repeat(rows[begins], np.diff(begins, append=len(rows)))
    again = rows != first
    return rows[again], first[again]


def _rejected(fate: np.ndarray) -> pa.Table:
    rows = np.flatnonzero(fate > _COPY)
    rules = [_RULES[what] for what in fate[rows].tolist()]
    columns = [rows, [rule for rule, _ in rules], [reason for _, reason in rules]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED_SCHEMA, strict=True)]
    return pa.table(arrays, schema=REJECTED_SCHEMA)
