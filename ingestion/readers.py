"""Files as tables of their own columns: CSV, JSON lines and Parquet, compressed or not.

CSV and JSON lines give text, Parquet gives what it holds; the mapping turns both into the contract's types.
A row that cannot be read at all (a line of too few values, broken JSON) is handed back with its number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from validation.batch import BatchStoppedError, Stop

_CSV = (".csv", ".tsv", ".txt")
_ASIDE = (".txt",)  # more often notes than data: read only where a mapping or a person names them
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".bz2", ".zst")


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


def find_files(path: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Path]:
    """Data files at or below a path, in natural order (day-2 before day-10).

    Args:
        path: a file, or a folder that is searched through. Left out there: hidden files, `.txt`, and `.json` whose
            first line is no object (a document, not JSON lines), unless `include` names them.
        include: globs relative to the folder; every CSV, JSON lines and Parquet file by default.
        exclude: globs of files to leave out (side tables, say).

    Raises:
        ValueError: nothing there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        message = f"--events {path}: no such file or folder"
        raise ValueError(message)
    found = [file for glob in include or ("**/*",) for file in path.glob(glob)]
    files = {
        file
        for file in found
        if file.is_file()
        and (include or _holds_rows(file))
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and not any(file.relative_to(path).match(glob) for glob in exclude)
    }
    if not files:
        wanted = ", ".join(include) if include else ", ".join((*_CSV, *_JSON, *_PARQUET))
        message = (
            f"--events {path}: no data file in it (looked for {wanted}; text files may be {', '.join(_COMPRESSED)})"
        )
        raise ValueError(message)
    return sorted(files, key=lambda file: natural_key(file.relative_to(path).as_posix()))


def _holds_rows(file: Path) -> bool:
    if format_of(file) != "json" or any(suffix in {".jsonl", ".ndjson"} for suffix in file.suffixes):
        return bool(format_of(file)) and not any(suffix in _ASIDE for suffix in file.suffixes)
    try:
        with _open(file) as stream:
            first = stream.read(1 << 16).decode(errors="replace").lstrip().split("\n")[0]
    except (OSError, EOFError):
        return True  # broken: the gate says so by name
    return first.startswith("{") and not re.fullmatch(r"\{\s*", first)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers in names count as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def format_of(path: Path) -> str:
    """`csv`, `json` or `parquet` by the name of the file; empty for anything else."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    for name, known in (("csv", _CSV), ("json", _JSON), ("parquet", _PARQUET)):
        if last in known:
            return name
    return ""


def digest_of(path: Path) -> str:
    """sha256 of the file's bytes: the same file under another name is the same batch."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_source(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = (), options: FileOptions | None = None
) -> Source:
    """Read the wanted columns of a file.

    Args:
        path: the file.
        required: columns that it must have.
        optional: columns that it may lack.
        options: of text files.

    Raises:
        BatchStoppedError: a required column is missing, or the file cannot be read.
    """
    options = options or FileOptions()
    read = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}[format_of(path) or "csv"]
    try:
        return read(path, list(required), list(optional), options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        stop = Stop(
            rule="unreadable_file",
            subject=path.name,
            reason=f"cannot be read as {format_of(path) or 'csv'}: {str(error).splitlines()[0]}",
            remedy="ask for the file again; for text files see delimiter, encoding and names in the mapping's [files]",
        )
        raise BatchStoppedError([stop]) from error


def _demand(path: Path, present: Sequence[str], required: Sequence[str]) -> None:
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


def _open(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression="detect")


# ---- CSV


def _read_csv(path: Path, required: list[str], optional: list[str], options: FileOptions) -> Source:
    delimiter = options.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
    with _open(path) as stream:
        first = io.TextIOWrapper(
            io.BufferedReader(_Seekless(stream)), encoding=_bom_free(options.encoding), newline=""
        ).readline()
    header = next(csv.reader([first], delimiter=delimiter), [])
    headless = bool(options.names) and not set(required) & set(header)
    names = list(options.names) if headless else header
    _demand(path, names, required)
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

    with _open(path) as stream:
        table = pacsv.read_csv(
            stream,
            # one thread: only then are the rows that are skipped numbered
            read_options=pacsv.ReadOptions(
                use_threads=False, encoding=options.encoding, column_names=names if headless else None
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pacsv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    above = 0 if headless else 1
    unreadable = tuple(
        Unreadable(
            row=row.number - above,
            text=row.text,
            reason=f"{row.actual_columns} values where the header names {row.expected_columns}",
        )
        for row in bad
    )
    every = np.arange(1, table.num_rows + len(bad) + 1, dtype=np.int64)
    return Source(
        table=table,
        rows=np.setdiff1d(every, np.array([one.row for one in unreadable], np.int64)),
        unreadable=unreadable,
    )


def _bom_free(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding


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


# ---- JSON lines


def _read_json(path: Path, required: list[str], optional: list[str], options: FileOptions) -> Source:
    with _open(path) as stream:
        lines = _decode(stream, options.encoding).split("\n")
    if lines and lines[0].lstrip().startswith("["):
        stop = Stop(
            rule="unreadable_file",
            subject=path.name,
            reason="holds one JSON array, not JSON lines",
            remedy="write one object a line, for example with `jq -c '.[]'`",
        )
        raise BatchStoppedError([stop])
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    raw = pa.table({"row": pa.array([number for number, _ in numbered], pa.int64()), "line": [x for _, x in numbered]})
    raw = raw.cast(pa.schema([("row", pa.int64()), ("line", pa.string())]))
    wanted = list(dict.fromkeys([*required, *optional]))
    pointers = ", ".join(_quote(_pointer(name)) for name in wanted)
    picked = ", ".join(f"vs[{index}] as c{index}" for index in range(1, len(wanted) + 1))
    with duckdb.connect() as con:
        con.register("raw", raw)
        con.execute(
            "create temp table sound as select row, line, "
            "json_valid(line) and coalesce(try(json_type(line)) = 'OBJECT', false) as ok from raw"
        )
        good = con.sql(
            f"select row, {picked} from (select row, json_extract_string(line, [{pointers}]) as vs "
            "from sound where ok) order by row"
        ).to_arrow_table()
        bad = con.sql("select row, line from sound where not ok order by row").fetchall()
    table = pa.table({name: good[f"c{index}"] for index, name in enumerate(wanted, 1)})
    empty = {name for name in wanted if table[name].null_count == table.num_rows and table.num_rows}
    if empty & set(required):
        present = [name for name in wanted if name not in empty]
        # a column of nothing but nulls is told from a missing one by whether any line names it
        named = _named(raw, empty)
        _demand(path, [*present, *named], required)
        empty -= set(named)
    return Source(
        table=table.drop_columns(sorted(empty & set(optional))),
        rows=good["row"].to_numpy(),
        unreadable=tuple(Unreadable(row=row, text=line, reason="not a JSON object") for row, line in bad),
    )


def _decode(stream: BinaryIO, encoding: str) -> str:
    return stream.read().decode(_bom_free(encoding)).replace("\r\n", "\n")


def _named(raw: pa.Table, names: set[str]) -> list[str]:
    with duckdb.connect() as con:
        con.register("raw", raw)
        sound = "select line from raw where json_valid(line)"
        return [
            name
            for name in sorted(names)
            if con.sql(
                f"select coalesce(bool_or(json_exists(line, {_quote(_pointer(name))})), false) from ({sound})"
            ).fetchall()[0][0]
        ]


def _pointer(name: str) -> str:
    """A JSON pointer: `/user/id` reaches into nested objects, any other name is a key."""
    return name if name.startswith("/") else "/" + name.replace("~", "~0").replace("/", "~1")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ---- Parquet


def _read_parquet(path: Path, required: list[str], optional: list[str], _: FileOptions) -> Source:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _demand(path, names, required)
        wanted = [name for name in dict.fromkeys([*required, *optional]) if name in names]
        table = file.read(columns=wanted) if wanted else pa.table({"": pa.nulls(file.metadata.num_rows)})
    columns = {name: _plain(table[name]) for name in wanted}
    table = pa.table(columns) if columns else table
    return Source(
        table=table,
        rows=np.arange(1, table.num_rows + 1, dtype=np.int64),
        kinds={name: kind_of(table[name]) for name in wanted},
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries and bytes as the values they stand for."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = column.cast(pa.string())  # older writers leave text unmarked
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return column


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
