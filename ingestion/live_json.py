"""JSON events become a contract table: every value taken strictly, or named as unreadable. Never a silent null.

`"12"`, `true`, `12.0` and NaN are no integers, a time needs its offset, an unknown key is refused (it may be a
misspelt one), a key may stand once. The services take requests by the same rules (`serving/schema.py`).
A column is read at once; only where that fails the offenders are looked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.contract import AHEAD_LIMIT_SECONDS, EVENT_COLUMNS, MICROSECONDS, Column, arrow_schema
from validation.routing import Failure

MAX_TEXT = 256
"""Characters of a text: ids and codes, not documents."""

LARGEST_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader takes exactly."""

_TIME = pa.timestamp("us", tz="UTC")
_EARLIEST, _LATEST = 0, 7_258_118_400 * MICROSECONDS  # 1970 to 2200: others are a misread unit, not a time
_NULLABLE = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema()])
_NAMES = frozenset(_NULLABLE.names)
_ROW_REMEDY = "send one JSON object an event, in UTF-8, with the contract's columns as keys"


@dataclass(frozen=True)
class NotJson:
    """A message that is no JSON text: what it was and what is wrong with it."""

    text: str
    problem: str


class Doubled(dict[str, Any]):
    """An object in which a key stood twice; the last value won."""


def decode(text: str | bytes) -> Any:  # noqa: ANN401 - JSON data
    """One JSON text; objects in which a key stands twice become `Doubled`.

    Raises:
        ValueError: it is no JSON text in UTF-8 (a position is in the message).
    """
    try:
        return _DECODE(text.decode() if isinstance(text, bytes) else text)
    except RecursionError as error:
        message = "nested too deep"
        raise ValueError(message) from error


def decode_or_refuse(text: str | bytes) -> Any:  # noqa: ANN401 - JSON data
    """One JSON text, or a `NotJson` that the row rules refuse by name."""
    try:
        return decode(text)
    except ValueError as error:
        plain = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
        return NotJson(plain, str(error))


def read_events(
    events: Sequence[Any], *, positions: np.ndarray, arrived: np.ndarray
) -> tuple[pa.Table, tuple[Failure, ...]]:
    """Contract columns of JSON events, and what could not be read.

    Args:
        events: JSON values as `decode` or `decode_or_refuse` gave them.
        positions: place of each in its stream; its `source_seq` unless it brings its own. int64 [events].
        arrived: when the intake saw it; its `ingested_at` unless it brings its own. int64 [events], microseconds UTC.

    Returns:
        A table of all contract columns, nullable here; [events]. And the failures, for `validation.routing.route`.
    """
    objects = [event if isinstance(event, dict) else {} for event in events]
    failures = _shapes(events)
    columns = {}
    for column in EVENT_COLUMNS:
        name = column.name
        values: list[Any] = [one.get(name) for one in objects]
        columns[name], offenders = _read_column(column, values)
        if offenders:
            reason, remedy = _wanted(column)
            failures.append(_failure(name, f"{name}_readable", reason, remedy, offenders, len(events)))
    ahead = pc.subtract(columns["ingested_at"].cast(pa.int64()), pa.array(arrived)).fill_null(0).to_numpy()
    if (ahead > AHEAD_LIMIT_SECONDS * MICROSECONDS).any():
        failures.append(_arrival_ahead(columns["ingested_at"], ahead))
    columns["ingested_at"] = pc.coalesce(columns["ingested_at"], pa.array(arrived).cast(_TIME))
    columns["source_seq"] = pc.coalesce(columns["source_seq"], pa.array(positions))
    return pa.table(columns, schema=_NULLABLE), tuple(failures)


# ---- the shape of a row


def _shapes(events: Sequence[Any]) -> list[Failure]:
    broken: dict[int, str] = {}
    doubled: dict[int, str] = {}
    unknown: dict[int, str] = {}
    for index, event in enumerate(events):
        if isinstance(event, NotJson):
            broken[index] = f"{short(event.text, quote=False)} ({event.problem})"
        elif not isinstance(event, dict):
            broken[index] = short(event)
        elif isinstance(event, Doubled):
            doubled[index] = short(event)
        elif not event.keys() <= _NAMES:
            unknown[index] = ", ".join(short(key, quote=False) for key in sorted(event.keys() - _NAMES)[:5])
    rules = (
        ("event_readable", "the event is no JSON object", _ROW_REMEDY, broken),
        ("keys_once", "a key stands twice in the event", "send every key once", doubled),
        (
            "keys_known",
            "the event has keys that are no columns of the contract",
            f"leave them out, or mend their spelling; there are: {', '.join(_NULLABLE.names)}",
            unknown,
        ),
    )
    return [_failure("", rule, reason, remedy, at, len(events)) for rule, reason, remedy, at in rules if at]


def _failure(column: str, rule: str, reason: str, remedy: str, at: dict[int, str], rows: int) -> Failure:
    values = pa.array([at.get(index) for index in range(rows)], pa.string())
    return Failure(column=column, rule=rule, reason=reason, remedy=remedy, values=values)


def _arrival_ahead(ingested: pa.Array, ahead: np.ndarray) -> Failure:
    late = pa.array(ahead > AHEAD_LIMIT_SECONDS * MICROSECONDS)
    return Failure(
        column="ingested_at",
        rule="ingested_at_ahead",
        reason=f"says that it arrived more than {AHEAD_LIMIT_SECONDS} s after it did",
        remedy="leave ingested_at to the intake, or mend the clock that it is taken from",
        values=pc.if_else(late, ingested.cast(pa.string()), pa.scalar(None, pa.string())),
    )


# ---- one column


def _read_column(column: Column, values: list[Any]) -> tuple[pa.Array, dict[int, str]]:
    """The column, offenders null, and the offenders' text by index."""
    read = _reader(column.type)
    offenders = {index: short(values[index]) for index in _offending(read, values, 0)}
    for index in offenders:
        values[index] = None
    return read(values), offenders


def _offending(read: Callable[[list[Any]], pa.Array], values: list[Any], start: int) -> list[int]:
    """Where the values are that cannot be read: halves that can be read at once need no look at each."""
    try:
        read(values)
    except (TypeError, ValueError, OverflowError):
        if len(values) == 1:
            return [start]
        half = len(values) // 2
        return _offending(read, values[:half], start) + _offending(read, values[half:], start + half)
    return []


def _reader(type_: pa.DataType) -> Callable[[list[Any]], pa.Array]:
    if pa.types.is_string(type_):
        return _texts
    return _times if pa.types.is_timestamp(type_) else _integers


def _demand(values: list[Any], type_: type) -> None:
    if not set(map(type, values)) <= {type_, type(None)}:  # not isinstance: true is an int to Python
        raise TypeError


def _texts(values: list[Any]) -> pa.Array:
    _demand(values, str)
    array = pa.array(values, pa.string())  # half a surrogate pair raises here
    lengths = pc.min_max(pc.utf8_length(array)).as_py()
    if lengths["min"] is not None and not 1 <= lengths["min"] <= lengths["max"] <= MAX_TEXT:
        raise ValueError
    if pc.any(pc.match_substring(array, "\0")).as_py():
        raise ValueError
    return array


def _integers(values: list[Any]) -> pa.Array:
    _demand(values, int)
    array = pa.array(values, pa.int64())
    ends = pc.min_max(array).as_py()
    if ends["min"] is not None and not -LARGEST_INTEGER <= ends["min"] <= ends["max"] <= LARGEST_INTEGER:
        raise ValueError
    return array


def _times(values: list[Any]) -> pa.Array:
    _demand(values, str)
    moments = [None if value is None else datetime.fromisoformat(value) for value in values]
    if any(moment is not None and moment.tzinfo is None for moment in moments):
        raise ValueError
    array = pa.array(moments, _TIME)
    ends = pc.min_max(array.cast(pa.int64())).as_py()
    if ends["min"] is not None and not _EARLIEST <= ends["min"] <= ends["max"] < _LATEST:
        raise ValueError
    return array


def _wanted(column: Column) -> tuple[str, str]:
    """Reason and remedy of a value that cannot be read as this column."""
    name = column.name
    if pa.types.is_string(column.type):
        return f"{name} is no text of 1 to {MAX_TEXT} characters", f"send a JSON string, or null: {column.meaning}"
    if pa.types.is_timestamp(column.type):
        return (
            f"{name} is no ISO 8601 time with its offset, from 1970 to 2200",
            "send it as in 2026-03-31T12:00:00Z",
        )
    return f"{name} is no integer up to {LARGEST_INTEGER}", f"send a JSON integer of {column.unit or 'whole units'}"


# ---- JSON


def short(value: Any, *, quote: bool = True) -> str:  # noqa: ANN401 - JSON data
    """A value as a person may read it, cut and safe to encode."""
    try:
        text = json.dumps(value) if quote else str(value).encode("ascii", "backslashreplace").decode()
    except RecursionError:
        text = f"a {type(value).__name__} too deep to show"
    limit = 60
    return text if len(text) <= limit else text[:limit] + "..."


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    return data if len(data) == len(pairs) else Doubled(data)


def _whole(digits: str) -> int | float:
    """An integer, or beyond any that is allowed a float, so that the refusal can name its column."""
    return int(digits) if len(digits) <= len(str(LARGEST_INTEGER)) + 1 else float(digits)


_DECODE = json.JSONDecoder(object_pairs_hook=_each_once, parse_int=_whole).decode
