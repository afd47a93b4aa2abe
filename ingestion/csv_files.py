"""CSV: text, row by row; what cannot be split or is no text is told with its row number."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ingestion.source import FileOptions, Source, Unreadable, demand_columns, open_stream
from validation.batch import BatchStoppedError, Stop


def read_csv(path: Path, required: list[str], optional: list[str], options: FileOptions) -> Source:
    """Read a CSV file: `ingestion.readers.read_source` for this format."""
    delimiter = options.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
    with open_stream(path) as stream:
        first = io.TextIOWrapper(
            io.BufferedReader(_Seekless(stream)), encoding=_bom_free(options.encoding), errors="replace", newline=""
        ).readline()
    header = next(csv.reader([first], delimiter=delimiter), [])
    headless = bool(options.names) and not set(required) & set(header)
    names = list(options.names) if headless else header
    demand_columns(path, names, required)
    doubled = sorted({name for name in [*required, *optional] if names.count(name) > 1})
    if doubled:
        stop = Stop(
            rule="column_missing",
            subject=doubled[0],
            reason=f"{path.name} has more than one column of this name: {', '.join(doubled)}",
            remedy="ask for a file whose columns have names of their own",
        )
        raise BatchStoppedError([stop])
    wanted = [name for name in dict.fromkeys([*required, *optional]) if name in names]
    bad: list[pacsv.InvalidRow] = []

    def skip(row: pacsv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    with open_stream(path) as stream:
        table = pacsv.read_csv(
            stream,
            # one thread: only then are the rows that are skipped numbered
            read_options=pacsv.ReadOptions(
                use_threads=False, encoding=options.encoding, column_names=names if headless else None
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pacsv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(names, pa.binary()),  # text is checked row by row below
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    unreadable, taken = _broken_rows(bad, 0 if headless else 1)
    numbers = np.setdiff1d(np.arange(1, table.num_rows + taken + 1, dtype=np.int64), [one.row for one in unreadable])
    return _decoded(Source(table=table, rows=numbers, unreadable=tuple(unreadable)))


def _broken_rows(bad: Sequence[pacsv.InvalidRow], above: int) -> tuple[list[Unreadable], int]:
    """Rows that Arrow skipped, and how many they are: an unclosed quote swallows lines, each of which is a row."""
    unreadable: list[Unreadable] = []
    for row in bad:
        reason = f"{row.actual_columns} values where the header names {row.expected_columns}"
        swallowed = len(unreadable) - sum(1 for one in bad if one.number < row.number)
        unreadable.extend(
            Unreadable(row=row.number - above + swallowed + at, text=line, reason=reason)
            for at, line in enumerate(row.text.rstrip("\n").split("\n"))
        )
    return unreadable, len(unreadable)


def _decoded(source: Source) -> Source:
    """Bytes become text; rows that are no UTF-8 are unreadable."""
    broken: dict[int, str] = {}
    columns = {}
    for name in source.table.column_names:
        try:
            columns[name] = source.table[name].cast(pa.string())
        except pa.ArrowInvalid:
            values = source.table[name].to_pylist()
            texts = [None if value is None else value.decode(errors="replace") for value in values]
            for at, (value, text) in enumerate(zip(values, texts, strict=True)):
                if text is not None and text.encode() != value:
                    broken.setdefault(at, text)
            columns[name] = pa.chunked_array([pa.array(texts, pa.string())])
    table = pa.table(columns) if columns else source.table
    if not broken:
        return Source(table=table, rows=source.rows, unreadable=source.unreadable)
    kept = np.setdiff1d(np.arange(table.num_rows), list(broken))
    more = [Unreadable(row=int(source.rows[at]), text=text, reason="not UTF-8") for at, text in broken.items()]
    return Source(
        table=table.take(pa.array(kept)),
        rows=source.rows[kept],
        unreadable=tuple(sorted([*source.unreadable, *more], key=lambda one: one.row)),
    )


class _Seekless(io.RawIOBase):
    """An Arrow stream as Python's text layer wants it."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no name before 3.12
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _bom_free(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding
