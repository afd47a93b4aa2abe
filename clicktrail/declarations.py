"""What a feature is: plain data, free of Feast, from which everything else about it is derived.

A declaration lists flattened features: one output each, with its own events, window and hop. The
fingerprint covers what decides a value, and nothing else, so a new description changes no state.
`clicktrail.declaring` makes declarations from what a data engineer writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES, EVENT_COLUMNS, ITEM_COLUMNS

SEMANTICS = 1
"""Version of the rules by which a declaration becomes values; raised when the same declaration would give others."""

Kind = Literal[
    "count",
    "sum",
    "mean",
    "std",
    "min",
    "max",
    "distinct",
    "first",
    "last",
    "most_frequent",
    "top",
    "time_since",
    "mean_gap",
    "std_gap",
    "label_rate",
    "ratio",
    "sql",
]

CATALOGUE_FIELDS: dict[str, str] = {
    f"item_{column.name}": column.name for column in ITEM_COLUMNS if column.name != "item_id"
}
"""Fields of an event that the catalogue knew of its item when the event became known: `item_title` is its `title`."""

DERIVED_FIELDS: tuple[str, ...] = ("event_day", *CATALOGUE_FIELDS)
"""Fields that are not in the log: `event_day` counts days since 1970-01-01 UTC, the others come from the catalogue."""

_TYPES = {column.name: column.type for column in EVENT_COLUMNS} | {
    "event_day": pa.int64(),
    **{name: next(one.type for one in ITEM_COLUMNS if one.name == column) for name, column in CATALOGUE_FIELDS.items()},
}
_HELD_BACK = ("event_id", "ingested_at", "source_seq", "label_of", "label", "label_value")
_SQL_TYPES = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
_WHOLE = ("count", "sum", "distinct", "min", "max", "time_since")
_VALUES = ("first", "last", "most_frequent")


def field_type(field: str) -> pa.DataType:
    """Arrow type of a field of an event.

    Raises:
        ValueError: no feature can be made of this field.
    """
    if field not in _TYPES or field in _HELD_BACK:
        usable = ", ".join(name for name in _TYPES if name not in _HELD_BACK)
        message = f"{field!r} is no field that a feature can use; choose one of: {usable}"
        raise ValueError(message)
    return _TYPES[field]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One output of an aggregate view.

    `events` is sorted, times are microseconds. `window_us` None: over everything known (time_since).
    `hop_us` 0: the window's left edge is exact; else it is rounded down to a multiple of it. A ratio divides
    the `part` (count, sum) of the window by that of the longer window `over_us`. `sql` is a DuckDB aggregate
    expression over the window's events that reads the fields `uses` and gives `sql_type`.
    """

    name: str
    kind: Kind
    field: str = ""
    events: tuple[str, ...] = BEHAVIOUR_TYPES
    window_us: int | None = None
    hop_us: int = 0
    label: str = ""
    delay_us: int = 0
    k: int = 0
    part: str = ""
    over_us: int | None = None
    sql: str = ""
    sql_type: str = ""
    uses: tuple[str, ...] = ()

    @property
    def type(self) -> pa.DataType:
        """Arrow type of the value."""
        if self.kind == "top":
            return pa.list_(field_type(self.field))
        if self.kind == "label_rate":
            return pa.list_(pa.int64())
        if self.kind == "sql":
            return _SQL_TYPES[self.sql_type]
        if self.kind in _VALUES:
            return field_type(self.field)
        return pa.int64() if self.kind in _WHOLE else pa.float64()

    @property
    def reach_us(self) -> int | None:
        """How far before t its window begins, the hop aside; None where it has no window."""
        return None if self.window_us is None else self.delay_us + max(self.window_us, self.over_us or 0)

    def left(self, t: Any) -> Any:  # noqa: ANN401 - an int or an array of them
        """The earliest event time that a read at t looks at; microseconds."""
        assert self.reach_us is not None  # noqa: S101 - asked of windowed kinds alone
        left = t - self.reach_us
        return left if not self.hop_us else left // self.hop_us * self.hop_us


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A view: `aggregates`, or a sequence of `fields`: the last `last` events, of these those within `within_us`.

    `entity_keys`: the contract columns that name the entity, two or more for a pair. `session_us`: only the
    events since the session began; 0 where `session_id` says so, else a session ends with a pause longer than
    this. `drop_repeats`: an event that has these fields in common with the one before it is left out.
    """

    name: str
    entity_keys: tuple[str, ...]
    events: tuple[str, ...]
    last: int = 0
    within_us: int | None = None
    session_us: int | None = None
    drop_repeats: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()

    def __hash__(self) -> int:
        """Kept: what is derived of a declaration is looked up by it many times a read."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, one.name) for one in fields(self)))

    @property
    def entity_key(self) -> str:
        """The entity in one word: the key column, those of a pair with a + between."""
        return "+".join(self.entity_keys)

    @property
    def is_sequence(self) -> bool:
        """Whether this view is a sequence."""
        return self.last > 0

    @property
    def is_ordered(self) -> bool:
        """Whether a value depends on the order of events that happened and became known at the same moments."""
        return self.is_sequence or any(one.kind in ("first", "last") for one in self.aggregates)

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        """Arrow type by feature name."""
        if self.is_sequence:
            return {name: pa.list_(field_type(name)) for name in self.fields}
        return {feature.name: feature.type for feature in self.aggregates}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every field that a value is made of, derived ones included, sorted."""
        used = {*self.fields, *self.drop_repeats}
        used |= {field for one in self.aggregates for field in (one.field, *one.uses) if field}
        if self.session_us == 0:
            used.add("session_id")
        return tuple(sorted(used))

    @property
    def columns(self) -> tuple[str, ...]:
        """Contract columns that the values are made of, event_type and times aside."""
        used = set(self.inputs)
        if used & set(CATALOGUE_FIELDS):
            used.add("item_id")
        return tuple(sorted(used - {"event_timestamp", "event_type", *DERIVED_FIELDS}))

    def only(self, features: Collection[str]) -> Declaration:
        """The same view with these features alone: computing fewer gives the same values for them."""
        return replace(
            self,
            fields=tuple(field for field in self.fields if field in features),
            aggregates=tuple(one for one in self.aggregates if one.name in features),
        )

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides a value; options that a view leaves as they are by default are not part of it."""
        decided = {**_decided(self), "aggregates": [_decided(one) for one in self.aggregates]}
        text = json.dumps({"semantics": SEMANTICS, **decided}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _decided(one: Aggregate | Declaration) -> dict[str, Any]:
    """The fields of a dataclass that are not as they are by default."""
    return {field.name: value for field in fields(one) if (value := getattr(one, field.name)) != field.default}


def to_json(declaration: Declaration) -> dict[str, Any]:
    """The declaration as plain JSON data, its fingerprint included."""
    return {**asdict(declaration), "fingerprint": declaration.fingerprint}


def from_json(data: dict[str, Any]) -> Declaration:
    """The declaration that `to_json` wrote.

    Raises:
        ValueError: it was written under other rules, so this library would give other values.
    """
    values = {name: _tuple(value) for name, value in data.items() if name not in ("fingerprint", "aggregates")}
    parts = tuple(Aggregate(**{name: _tuple(value) for name, value in one.items()}) for one in data["aggregates"])
    declaration = Declaration(**values, aggregates=parts)
    if data.get("fingerprint", declaration.fingerprint) != declaration.fingerprint:
        message = (
            f"view {declaration.name!r} was declared under other rules than this library's (fingerprint "
            f"{data['fingerprint'][:12]}, here {declaration.fingerprint[:12]}): use the version it was built with"
        )
        raise ValueError(message)
    return declaration


def _tuple(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    return tuple(value) if isinstance(value, list) else value
