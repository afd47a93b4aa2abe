"""Files as tables of their own columns: CSV, JSON lines and Parquet, compressed or not.

CSV and JSON lines give text, Parquet gives what it holds; the mapping turns both into the contract's types.
A row that cannot be read at all (a line of too few values, broken JSON) is handed back with its number.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.csv_files import read_csv
from ingestion.source import FileOptions, Source, Unreadable, demand_columns, kind_of, open_stream
from validation.batch import BatchStoppedError, Stop

_CSV = (".csv", ".tsv", ".txt")
_ASIDE = (".txt",)  # more often notes than data: read only where a mapping or a person names them
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".bz2", ".zst")


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
        with open_stream(file) as stream:
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
    read = {"csv": read_csv, "json": _read_json, "parquet": _read_parquet}[format_of(path) or "csv"]
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


# ---- JSON lines


def _read_json(path: Path, required: list[str], optional: list[str], options: FileOptions) -> Source:
    with open_stream(path) as stream:
        lines = [_line(line, options.encoding) for line in stream.read().split(b"\n")]
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
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
        demand_columns(path, [*present, *named], required)
        empty -= set(named)
    return Source(
        table=table.drop_columns(sorted(empty & set(optional))),
        rows=good["row"].to_numpy(),
        unreadable=tuple(Unreadable(row=row, text=line, reason="not a JSON object") for row, line in bad),
    )


def _line(line: bytes, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return "not " + encoding + ": " + line.decode(encoding, errors="replace")  # no JSON, so it is told as broken


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
        demand_columns(path, names, required)
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
