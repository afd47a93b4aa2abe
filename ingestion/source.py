"""What a reader hands on: the wanted columns of a file, and the rows that it could not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from validation.batch import BatchStoppedError, Stop


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How to read text files. `names`: the columns of a CSV file that has no header line.

    `delimiter` is a tab for `.tsv` and a comma otherwise, unless it is given.
    """

    delimiter: str = ""
    encoding: str = "utf8"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A row that could not be split into values. `row` counts from 1."""

    row: int
    text: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The wanted columns of a file.

    Attributes:
        table: source columns, text or typed; wanted columns that the file may lack are absent.
        rows: number of each row in its file, counted from 1 (header lines do not count); int64 [rows].
        kinds: source column -> text, number, time, flag, null or other; empty for text files.
        unreadable: rows that are not in `table`.
    """

    table: pa.Table
    rows: np.ndarray
    kinds: dict[str, str] = field(default_factory=dict)
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def rows_in(self) -> int:
        """Rows of the file."""
        return self.table.num_rows + len(self.unreadable)


def kind_of(column: pa.ChunkedArray) -> str:
    """What a typed column holds: int, float and decimal are one kind, since nulls turn one into the other in pandas."""
    type_ = column.type
    if column.null_count == len(column):
        return "null"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "time"
    return "flag" if pa.types.is_boolean(type_) else "other"


def demand_columns(path: Path, present: Sequence[str], required: Sequence[str]) -> None:
    """Stop the batch where a required column is not there."""
    missing = [name for name in required if name not in present]
    if missing:
        raise BatchStoppedError(
            [
                Stop(
                    rule="column_missing",
                    subject=name,
                    reason=f"source column {name} is not in {path.name}; it has: {', '.join(present)}",
                    remedy="ask for the column, map another one, or give it `optional = true` in the mapping",
                )
                for name in missing
            ]
        )


def open_stream(path: Path) -> pa.NativeFile:
    """The bytes of a file, decompressed."""
    return pa.input_stream(str(path), compression="detect")
