"""Rows of a file as requests, and answers as rows of a file: by the tables that the services go by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from serving.endpoints import ENDPOINTS
from serving.openapi import TOLD
from serving.schema import Field, Problem, parse

NOT_IN_FILES = ("users", "recent_events")
"""Fields that speak of other rows, or of events that a log has by the time that a file is scored."""

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("field", pa.string()), ("rule", pa.string()), ("reason", pa.string())]
)
"""One row a broken rule; `row` counts the file's rows from 1."""

_WHOLE = re.compile(r"-?\d{1,18}")
_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_TIME = pa.timestamp("us", tz="UTC")


def fields_of(task: str) -> tuple[Field, ...]:
    """What a row of a file may say."""
    return tuple(one for one in ENDPOINTS[task].fields if one.name not in NOT_IN_FILES)


def chunks(
    path: Path, fields: Sequence[Field], rows: int, ignore: Iterable[str] = ()
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a Parquet or CSV file, so many at a time, as JSON bodies of requests.

    Args:
        path: the file; `.csv` is read as CSV with a header, anything else as Parquet.
        fields: what a row may say.
        rows: so many at a time.
        ignore: columns to leave out.

    Raises:
        ValueError: it cannot be read, or has a column that is no field.
    """
    as_csv = path.suffix.lower() == ".csv"
    wanted = {one.name: one for one in fields}
    with _readable(path):
        names, batches = (_csv if as_csv else _parquet)(path, wanted, rows)
        strange = [name for name in names if name not in wanted and name not in ignore]
        if strange:
            message = (
                f"{path} has columns that are no fields of a request: {', '.join(strange)}; rename them, or leave them "
                f"out with --ignore {','.join(strange)}. There are: {', '.join(wanted)}"
            )
            raise ValueError(message)
        for batch in batches:
            table = pa.Table.from_batches([batch]).select([name for name in names if name in wanted])
            for begin in range(0, table.num_rows, rows):
                yield [_body(row, wanted, as_csv=as_csv) for row in table.slice(begin, rows).to_pylist()]


def row_count(path: Path) -> int | None:
    """How many rows a file has, where it says so itself.

    Raises:
        ValueError: it cannot be read.
    """
    with _readable(path):
        return None if path.suffix.lower() == ".csv" else pq.read_metadata(path).num_rows


def request_of(body: Mapping[str, Any], more: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """The request of a row with fields that all rows have in common.

    Raises:
        InvalidRequestError: with every problem that was found.
    """
    return parse(json.dumps({**more, **body}, default=str).encode(), fields)


def answer_schema(task: str) -> pa.Schema:
    """Columns of a file of answers: the row's number in the file, whom it is about, what a service answers."""
    answer = {name: one for name, one in ENDPOINTS[task].answer.items() if name != "answers"}
    about = {} if "event_id" in answer else {"user_id": {"type": "string"}}
    columns = {name: _arrow(one) for name, one in {**about, **answer, **TOLD}.items()}
    return pa.schema([("row", pa.int64()), *columns.items()])


def answer_table(rows: Sequence[tuple[int, Mapping[str, Any]]], schema: pa.Schema) -> pa.Table:
    """Answers with the numbers of their rows, as a table."""
    times = [name for name in schema.names if schema.field(name).type == _TIME]
    flat = [
        {"row": row, **answer, **{name: datetime.fromisoformat(answer[name]) for name in times}} for row, answer in rows
    ]
    return pa.Table.from_pylist(flat, schema=schema)


def rejected_table(rejected: Sequence[tuple[int, Problem]]) -> pa.Table:
    """Broken rules with the numbers of their rows."""
    return pa.Table.from_pylist(
        [{"row": row, "field": one.field, "rule": one.rule, "reason": one.message} for row, one in rejected],
        schema=REJECTED_SCHEMA,
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        message = f"{path} cannot be read: {error}"
        raise ValueError(message) from error


_Batches = tuple[list[str], Iterable[pa.RecordBatch]]


def _parquet(path: Path, wanted: Mapping[str, Field], rows: int) -> _Batches:
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    return names, file.iter_batches(rows, columns=[name for name in names if name in wanted])


def _csv(path: Path, wanted: Mapping[str, Field], _rows: int) -> _Batches:
    # everything is text: a value that is no number is to be refused by row, not to end the job
    text = pc.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    reader = pc.open_csv(path, convert_options=text)
    return reader.schema.names, reader


def _body(row: Mapping[str, Any], wanted: Mapping[str, Field], *, as_csv: bool) -> dict[str, Any]:
    """A row as a client would have sent it: what is null is left out, unless the field may or must be there."""
    return {
        name: _read(value, wanted[name].kind) if as_csv else _plain(value)
        for name, value in row.items()
        if value is not None or wanted[name].nullable or wanted[name].required
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a Parquet file holds
    return value.isoformat() if isinstance(value, datetime) else value


def _read(text: str | None, kind: str) -> Any:  # noqa: ANN401 - JSON data
    """A value of a CSV file; one that is not of its kind stays text, for the table of fields to refuse."""
    if text is None:
        return None
    if kind == "integer" and _WHOLE.fullmatch(text):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind == "number":
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _arrow(schema: Mapping[str, Any]) -> pa.DataType:
    """Arrow type of a JSON schema."""
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if schema.get("format") == "date-time":
        return _TIME
    if kind == "array":
        return pa.list_(_arrow(schema["items"]))
    if kind == "object":
        return pa.struct([(name, _arrow(one)) for name, one in schema["properties"].items()])
    return _TYPES[kind]
