"""Decisions as rows of a table, one a row of a request; and back, so that a request can be decided again.

What a decision rests on stands beside it: fields of the request under `request__<name>`, features as they were served
under `<view>__<feature>`, and of each view whether anything was known (`known__<view>`), as of when it was read
(`read_at__<view>`) and at which log offset (`offset__<view>`): what it takes to compute the same again. Lists and
objects of a request are JSON text and stand with its first row alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clicktrail.decision_files import described
from clicktrail.declarations import Declaration
from clicktrail.read_log import plain
from clicktrail.state_reader import ReadResult, together
from serving.decision import Decision
from serving.features import ViewRead
from serving.schema import Field

USERS = "users"
"""Field of a request about many: it is not kept, since each row has its user."""

REQUEST = "request__"
"""Before a field of the request among the columns."""

KNOWN, READ_AT, OFFSET = "known__", "read_at__", "offset__"
"""Before a view's name among the columns."""

TIME = pa.timestamp("us", tz="UTC")

OUTCOMES: dict[str, pa.DataType] = {
    "score": pa.float64(),
    "probability": pa.float64(),
    "threshold": pa.float64(),
    "flagged": pa.bool_(),
    "action": pa.string(),
    "expected_cost": pa.float64(),
    "expected_value_minor": pa.float64(),
    "items": pa.list_(pa.string()),
    "scores": pa.list_(pa.float64()),
    "candidates": pa.int64(),
    "propensity": pa.float64(),
}
"""What tasks decide, by the names that they use; what is not among them is kept as JSON text in `more`."""

_PIECE = 256
"""Requests at a time: every column looks at all of them, which takes a third less while they fit into a cache."""

_HAVE_COLUMNS = {*OUTCOMES, "answered_by"}

_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": TIME,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """A request that was answered: when it was whole (microseconds UTC), and how long the answer took."""

    request_id: str
    received: int
    latency_us: int
    decision: Decision


_Row = tuple[Noted, int, Mapping[str, Any], Mapping[str, Any]]
"""A row: its request, its number in it, its outcome, and what the answer says of it."""

_Values = Callable[[Sequence[_Row]], list[Any]]
"""A column of many rows at once: value by value it would take three times as long."""


class DecisionTable:
    """How the decisions of one bundle become a table."""

    def __init__(
        self, task: str, tag: str, fields: Sequence[Field], declarations: Sequence[Declaration], costs: str = ""
    ) -> None:
        """The columns: of a task, from its request fields and the declarations of its features.

        `costs` are those of the deployment, JSON text, where it has others than the bundle.
        """
        columns: dict[str, tuple[pa.DataType, _Values]] = {
            "request_id": (pa.string(), lambda rows: [noted.request_id for noted, *_ in rows]),
            "row": (pa.int32(), lambda rows: [number for _, number, *_ in rows]),
            "received": (TIME, lambda rows: [noted.received for noted, *_ in rows]),
            "latency_us": (pa.int64(), lambda rows: [noted.latency_us for noted, *_ in rows]),
            "task": (pa.string(), lambda rows: [task] * len(rows)),
            "model": (pa.string(), lambda rows: [tag] * len(rows)),
            **{key: (pa.string(), _read(key)) for key in _entity_keys(declarations)},
            "offset": (pa.int64(), lambda rows: [noted.decision.read.moment.offset for noted, *_ in rows]),
            "t": (TIME, lambda rows: [noted.decision.read.moment.t for noted, *_ in rows]),
            "as_of": (TIME, lambda rows: [noted.decision.read.features.as_of[number] for noted, number, *_ in rows]),
            "watermark": (TIME, lambda rows: [noted.decision.read.moment.watermark for noted, *_ in rows]),
            "answered_by": (pa.string(), lambda rows: [said.get("answered_by") for *_, said in rows]),
            "cold_start": (pa.bool_(), lambda rows: [said.get("cold_start") for *_, said in rows]),
            **{name: (type_, _outcome(name)) for name, type_ in OUTCOMES.items()},
            "more": (pa.string(), lambda rows: [_more(outcome) for *_, outcome, _ in rows]),
            **{REQUEST + field.name: _asked(field) for field in fields if field.name != USERS},
        }
        for view in (one.name for one in declarations):
            columns |= {
                f"{KNOWN}{view}": (pa.bool_(), _of_view("known", view)),
                f"{READ_AT}{view}": (TIME, _of_view("times", view)),
                f"{OFFSET}{view}": (pa.int64(), _of_view("offsets", view)),
            }
        self._columns = columns
        self._features = {one.name: one.outputs for one in declarations}
        named = [(f"{view}__{name}", type_) for view, of in self._features.items() for name, type_ in of.items()]
        types = [(name, type_) for name, (type_, _) in columns.items()]
        self.schema = described(pa.schema([*types, *named]), declarations, costs)

    def rows(self, batch: Sequence[Noted]) -> pa.Table:
        """The rows of some requests, at least one, in their order."""
        return pa.concat_tables(self._piece(batch[at : at + _PIECE]) for at in range(0, len(batch), _PIECE))

    def _piece(self, batch: Sequence[Noted]) -> pa.Table:
        rows = [row for noted in batch for row in _rows(noted)]
        arrays = [pa.array(values(rows), type_) for type_, values in self._columns.values()]
        for view, outputs in self._features.items():
            columns = _columns([noted.decision.read.features.results[view] for noted in batch])
            arrays += [_cast(columns[name], type_) for name, type_ in outputs.items()]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def request_of(rows: Sequence[Mapping[str, Any]], fields: Iterable[Field]) -> dict[str, Any]:
    """The request, as `serving.schema.parse` gave it, from all its rows in their order; times are microseconds.

    A field that was added since has its default.
    """
    first = rows[0]
    request: dict[str, Any] = {}
    for field in fields:
        value = first.get(REQUEST + field.name, field.default)
        request[field.name] = value if field.kind in _TYPES or value is None else json.loads(value)
        if field.name == USERS and first.get(f"{REQUEST}user_id") is None:
            request[USERS] = [row["user_id"] for row in rows]
    return request


def _columns(reads: Sequence[ViewRead]) -> Mapping[str, pa.Array]:
    """The columns of reads of one view; those of a state are put together before they become Arrow arrays."""
    of_states = [one for one in reads if isinstance(one, ReadResult)]
    if len(of_states) == len(reads):
        return together(of_states)
    return {name: pa.concat_arrays([one.columns[name] for one in reads]) for name in reads[0].columns}


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    column = plain(column)
    return column if column.type == type_ else column.cast(type_)


def _rows(noted: Noted) -> Iterable[_Row]:
    answer = noted.decision.answer
    answers = answer.get("answers")
    for number, outcome in enumerate(noted.decision.outcomes):
        yield noted, number, outcome, {**answer, **answers[number]} if answers else answer


def _entity_keys(declarations: Sequence[Declaration]) -> list[str]:
    return sorted({"user_id", *(key for one in declarations for key in one.entity_keys)})


def _read(key: str) -> _Values:
    def values(rows: Sequence[_Row]) -> list[Any]:
        found = [(noted.decision.read.fields.get(key), number) for noted, number, *_ in rows]
        return [None if ids is None else ids[number] for ids, number in found]

    return values


def _of_view(what: str, view: str) -> _Values:
    return lambda rows: [
        getattr(noted.decision.read.features.results[view], what)[number] for noted, number, *_ in rows
    ]


def _asked(field: Field) -> tuple[pa.DataType, _Values]:
    name = field.name
    if field.kind in _TYPES:
        return _TYPES[field.kind], lambda rows: [noted.decision.request.get(name) for noted, *_ in rows]
    return pa.string(), lambda rows: [
        None if number or (found := noted.decision.request.get(name)) is None else json.dumps(found)
        for noted, number, *_ in rows
    ]


def _outcome(name: str) -> _Values:
    return lambda rows: [outcome.get(name) for *_, outcome, _ in rows]


def _more(outcome: Mapping[str, Any]) -> str | None:
    if outcome.keys() <= _HAVE_COLUMNS:
        return None
    return json.dumps({name: value for name, value in outcome.items() if name not in _HAVE_COLUMNS}, default=str)
