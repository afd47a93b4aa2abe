"""Two columns of one feature, row by row: equal or not, and how the rest differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.layout import lay_out
from clicktrail.read_log import plain

MEASURED = 200
"""Edit distances are measured of so many differing rows of a column; all of them are counted."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How a column read online differs from the one read offline; bool [rows] each.

    `missing`: null, empty or of nobody known online, there offline; `extra`: null or empty offline, there online;
    both are among `differs`. Of the first `MEASURED` differing lists, int64: `edits`, elements to insert, remove or
    replace, and `first`, the position of the first one that is not the same.
    """

    differs: np.ndarray
    missing: np.ndarray
    extra: np.ndarray
    edits: np.ndarray
    first: np.ndarray


def compare(
    online: pa.Array | pa.ChunkedArray, offline: pa.Array | pa.ChunkedArray, *, absent: np.ndarray | None = None
) -> Differences:
    """Hold a column read online against the same column read offline; exact, floats too; nan equals nan.

    `absent`: of whom there was no state online, bool [rows]: what they were answered is missing, a count of 0 too.
    """
    here, there = _plain(online), _plain(offline)
    if here.type != there.type:
        here = here.cast(there.type)
    differs = ~(_equal_lists(here, there) if pa.types.is_large_list(there.type) else _equal(here, there))
    nothing_here, nothing_there = _nothing(here), _nothing(there)
    missing = nothing_here if absent is None else nothing_here | absent
    edits, first = [], []
    if pa.types.is_large_list(there.type):
        for row in np.flatnonzero(differs)[:MEASURED].tolist():
            a, b = here[row].as_py() or [], there[row].as_py() or []
            edits.append(edit_distance(a, b))
            first.append(first_difference(a, b))
    return Differences(
        differs=differs,
        missing=differs & missing & ~nothing_there,
        extra=differs & nothing_there & ~nothing_here,
        edits=np.array(edits, np.int64),
        first=np.array(first, np.int64),
    )


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Levenshtein's: the fewest elements to insert, remove or replace that make `b` of `a`."""
    begin = first_difference(a, b)
    a, b = a[begin:], b[begin:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def first_difference(a: Sequence[object], b: Sequence[object]) -> int:
    """Position of the first element that is not the same; the shorter one's length where it begins the other."""
    return next((at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return plain(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def _nothing(column: pa.Array) -> np.ndarray:
    """Null, or an empty list; bool [rows]."""
    if pa.types.is_large_list(column.type):
        return pc.fill_null(pc.equal(pc.list_value_length(column), 0), True).to_numpy(zero_copy_only=False)  # noqa: FBT003
    return column.is_null().to_numpy(zero_copy_only=False)


def _equal(a: pa.Array, b: pa.Array) -> np.ndarray:
    """Whether equal, bool [rows]; a null equals a null."""
    same = pc.equal(a, b)
    if pa.types.is_floating(a.type):
        same = pc.or_(same, pc.and_(pc.is_nan(a), pc.is_nan(b)))
    both_null = pc.and_(a.is_null(), b.is_null())
    return pc.fill_null(pc.or_kleene(same, both_null), False).to_numpy(zero_copy_only=False)  # noqa: FBT003


def _equal_lists(a: pa.Array, b: pa.Array) -> np.ndarray:
    """Whether equal, bool [rows]; elements are compared where both lists are as long."""
    lengths = [pc.fill_null(pc.list_value_length(one), -1).to_numpy().astype(np.int64) for one in (a, b)]
    same = lengths[0] == lengths[1]
    starts = [np.concatenate([[0], np.cumsum(np.maximum(one, 0))])[:-1] for one in lengths]
    length = np.where(same, np.maximum(lengths[0], 0), 0)
    rows, here = lay_out(starts[0], starts[0] + length)
    _, there = lay_out(starts[1], starts[1] + length)
    same[rows[~_equal(a.flatten().take(pa.array(here)), b.flatten().take(pa.array(there)))]] = False
    return same
