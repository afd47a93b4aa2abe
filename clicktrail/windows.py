"""Windows over flat events: cutting, gathering, padding, and comparing what stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.input_spec import SequenceSpec
from clicktrail.jagged import JaggedSequence


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Encoded events: `ids` int32 [N, C], `numbers` float32 [N, F]; row r is [starts[r]:ends[r]), int64 [R].

    `edge`: how many of the last number columns speak of the event before (`SequenceSpec.edge`).
    """

    ids: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    edge: int = 1


def last_of(spec: SequenceSpec, sequence: JaggedSequence) -> tuple[np.ndarray, np.ndarray]:
    """The windows of a sequence view cut to the last events that the model reads."""
    return np.maximum(sequence.starts, sequence.ends - spec.last), sequence.ends


def window_positions(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Flat positions of the windows [starts[r]:ends[r]), one window after the other, int64."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def pad(tokens: Tokens, starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows as int64 [R, L, C] and float32 [R, L, F], zeros to the right.

    What a window's first event says of the event before (the gap, last column of both) is null: that one is not here.
    """
    rows, used = len(starts), ends - starts
    ids = np.zeros((rows, length, tokens.ids.shape[1]), np.int64)
    numbers = np.zeros((rows, length, tokens.numbers.shape[1]), np.float32)
    positions = window_positions(starts, ends)
    row = np.repeat(np.arange(rows), used)
    column = positions - np.repeat(starts, used)
    ids[row, column] = tokens.ids[positions]
    numbers[row, column] = tokens.numbers[positions]
    ids[:, :1, -1] = 0
    numbers[:, :1, -tokens.edge :] = 0
    return ids, numbers


def jagged_of_lists(columns: Mapping[str, Any]) -> JaggedSequence:
    """A sequence view as a caller has it, field -> one list a row (Python lists or Arrow lists), as flat arrays.

    Strings become codes of a dictionary made here; timestamps become microseconds; a null list is empty.

    Raises:
        ValueError: the fields of a row have lists of different lengths.
    """
    values: dict[str, np.ndarray] = {}
    dictionaries: dict[str, list[str]] = {}
    nulls: dict[str, np.ndarray] = {}
    lengths: np.ndarray | None = None
    for field, column in columns.items():
        array = column if isinstance(column, pa.Array) else pa.array(column)
        array = array if pa.types.is_list(array.type) else array.cast(pa.list_(pa.null()))
        these = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        if lengths is not None and not np.array_equal(these, lengths):
            message = f"field {field!r} has lists of {these.tolist()} values, the fields before it {lengths.tolist()}"
            raise ValueError(message)
        lengths, flat = these, array.flatten()
        if pa.types.is_timestamp(flat.type):
            flat = flat.cast(pa.timestamp("us", flat.type.tz)).cast(pa.int64())
        if pa.types.is_null(flat.type):  # nothing but nulls: works as a string field and as a number field
            values[field], dictionaries[field] = np.full(len(flat), -1, np.int64), []
            nulls[field] = np.ones(len(flat), bool)
            continue
        if pa.types.is_string(flat.type):
            flat = flat.dictionary_encode()
            values[field] = flat.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            dictionaries[field] = flat.dictionary.to_pylist()
            continue
        if flat.null_count:
            nulls[field] = flat.is_null().to_numpy(zero_copy_only=False)
            flat = flat.fill_null(0)
        values[field] = flat.to_numpy(zero_copy_only=False).astype(np.int64)
    assert lengths is not None  # noqa: S101 - a sequence view has fields
    ends = np.cumsum(lengths).astype(np.int64)
    return JaggedSequence(values=values, dictionaries=dictionaries, nulls=nulls, starts=ends - lengths, ends=ends)


def number(sequence: JaggedSequence, name: str, positions: slice | np.ndarray) -> np.ndarray:
    """A number field at these positions, float64, nan for null."""
    raw = sequence.values[name][positions].astype(np.float64)
    null = sequence.nulls.get(name)
    return raw if null is None else np.where(null[positions], np.nan, raw)


def covered(starts: np.ndarray, ends: np.ndarray, events: int) -> np.ndarray:
    """Which events stand in any of the windows, bool [N]."""
    steps = np.zeros(events + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:-1]) > 0
