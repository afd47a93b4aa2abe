"""What training reads: flat arrays over a shared history and a range for each row; nothing is copied per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.declarations import Declaration
from clicktrail.engine import Slices


@dataclass(frozen=True, kw_only=True)
class JaggedSequence:
    """One sequence view: row r's field f is `values[f][starts[r]:ends[r]]`, oldest first.

    `values`: int64 [events] for numbers and times (microseconds), int32 codes for strings (-1 null).
    `dictionaries`: the string of each code. `nulls`: bool [events], for number fields that have nulls
    (their value is 0 there). `starts`, `ends`: int64 [rows].
    """

    values: dict[str, np.ndarray]
    dictionaries: dict[str, list[str]]
    nulls: dict[str, np.ndarray]
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, kw_only=True)
class JaggedFeatures:
    """Features of entity rows: `rows` as they were given, sequences by view, scalars by `view__feature` ([rows])."""

    rows: pa.Table
    sequences: dict[str, JaggedSequence]
    scalars: dict[str, pa.Array]


def jagged_sequence(declaration: Declaration, fields: list[str], slices: Slices) -> JaggedSequence:
    """The wanted fields of a sequence view, without copying what the rows share."""
    assert set(fields) <= set(declaration.fields)  # noqa: S101 - Feast checked the references
    values, dictionaries, nulls = {}, {}, {}
    for field in fields:
        column = slices.history.column(field)
        if pa.types.is_string(column.type):
            column = column.dictionary_encode()
        if pa.types.is_dictionary(column.type):
            codes = pc.fill_null(column.indices, -1) if column.null_count else column.indices
            values[field] = codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
            dictionaries[field] = column.dictionary.to_pylist()
            continue
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        if column.null_count:
            nulls[field] = column.is_null().to_numpy(zero_copy_only=False)
            column = pc.fill_null(column, 0)
        values[field] = column.to_numpy(zero_copy_only=False)
    return JaggedSequence(values=values, dictionaries=dictionaries, nulls=nulls, starts=slices.start, ends=slices.end)
