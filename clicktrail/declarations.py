"""What a feature is: plain data, free of Feast, from which everything else about it is derived.

A declaration lists flattened features: one output each, with its own events, window and hop. The
fingerprint covers what decides a value, and nothing else, so a new description changes no state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES, ENTITY_KEYS, EVENT_COLUMNS, MICROSECONDS

SEMANTICS = 1
"""Version of the rules by which a declaration becomes values; raised when the same declaration would give others."""

Kind = Literal["count", "sum", "distinct", "max", "top", "time_since", "label_rate"]
WINDOWED: tuple[Kind, ...] = ("count", "sum", "distinct", "max", "top", "label_rate")

DERIVED_FIELDS: tuple[str, ...] = ("event_day",)
"""Fields computed from event_timestamp: `event_day` counts days since 1970-01-01 UTC."""

_TYPES = {column.name: column.type for column in EVENT_COLUMNS} | {"event_day": pa.int64()}
_HELD_BACK = ("event_id", "ingested_at", "source_seq", "label_of", "label", "label_value")


def hours(number: float) -> timedelta:
    """A length of time."""
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    """A length of time."""
    return timedelta(days=number)


def minutes(number: float) -> timedelta:
    """A length of time."""
    return timedelta(minutes=number)


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
    `hop_us` 0: the window's left edge is exact; else it is rounded down to a multiple of it.
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

    @property
    def type(self) -> pa.DataType:
        """Arrow type of the value."""
        if self.kind == "top":
            return pa.list_(field_type(self.field))
        return pa.list_(pa.int64()) if self.kind == "label_rate" else pa.int64()


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A view: `aggregates`, or a sequence of `fields`: the last `last` events, of these those within `within_us`."""

    name: str
    entity_key: str
    events: tuple[str, ...]
    last: int = 0
    within_us: int | None = None
    fields: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()

    @property
    def is_sequence(self) -> bool:
        """Whether this view is a sequence."""
        return self.last > 0

    @property
    def outputs(self) -> dict[str, pa.DataType]:
        """Arrow type by feature name."""
        if self.is_sequence:
            return {name: pa.list_(field_type(name)) for name in self.fields}
        return {feature.name: feature.type for feature in self.aggregates}

    @property
    def columns(self) -> tuple[str, ...]:
        """Contract columns and derived fields that the values are made of, event_type and times aside."""
        used = self.fields or [feature.field for feature in self.aggregates if feature.field]
        return tuple(sorted(set(used) - {"event_timestamp", "event_type"}))

    def only(self, features: Collection[str]) -> Declaration:
        """The same view with these features alone: computing fewer gives the same values for them."""
        return replace(
            self,
            fields=tuple(field for field in self.fields if field in features),
            aggregates=tuple(one for one in self.aggregates if one.name in features),
        )

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides a value."""
        text = json.dumps({"semantics": SEMANTICS, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def to_json(declaration: Declaration) -> dict[str, Any]:
    """The declaration as plain JSON data, its fingerprint included."""
    return {**asdict(declaration), "fingerprint": declaration.fingerprint}


def from_json(data: dict[str, Any]) -> Declaration:
    """The declaration that `to_json` wrote.

    Raises:
        ValueError: it was written under other rules, so this library would give other values.
    """
    values = {name: value for name, value in data.items() if name != "fingerprint"}
    values["aggregates"] = tuple(
        Aggregate(**{**aggregate, "events": tuple(aggregate["events"])}) for aggregate in data["aggregates"]
    )
    declaration = Declaration(**{**values, "events": tuple(data["events"]), "fields": tuple(data["fields"])})
    if data.get("fingerprint", declaration.fingerprint) != declaration.fingerprint:
        message = (
            f"view {declaration.name!r} was declared under other rules than this library's (fingerprint "
            f"{data['fingerprint'][:12]}, here {declaration.fingerprint[:12]}): use the version it was built with"
        )
        raise ValueError(message)
    return declaration


# ---- what a data engineer writes


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """An aggregation before it meets its windows; made by `count`, `total`, ... ."""

    kind: Kind
    field: str = ""
    of: tuple[str, ...] = ()
    windows: Sequence[timedelta] = ()
    hop: timedelta | None = None
    name: str = ""
    label: str = ""
    delay: timedelta = timedelta(0)
    k: int = 0


class Options(TypedDict, total=False):
    """What every aggregation may say for itself: its windows and hop instead of the view's, its name."""

    windows: Sequence[timedelta]
    hop: timedelta
    name: str


def _of(of: str | Sequence[str] | None) -> tuple[str, ...]:
    names = () if of is None else (of,) if isinstance(of, str) else tuple(of)
    for name in names:
        if name not in BEHAVIOUR_TYPES:
            message = f"{name!r} is no event type of the contract; choose among: {', '.join(BEHAVIOUR_TYPES)}"
            raise ValueError(message)
    return tuple(sorted(set(names)))


def count(of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """How many events of these types (all behaviour where none is named); 0 of nothing."""
    return Aggregation(kind="count", of=_of(of), **options)


def total(field: str, *, of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """Sum of an integer field, exact; 0 of nothing."""
    return Aggregation(kind="sum", field=field, of=_of(of), **options)


def distinct(field: str, *, of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """How many different values of a field; 0 of nothing."""
    return Aggregation(kind="distinct", field=field, of=_of(of), **options)


def largest(field: str, *, of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """Largest value of an integer field; null of nothing."""
    return Aggregation(kind="max", field=field, of=_of(of), **options)


def top(field: str, *, k: int, of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """The k most frequent values of a field, most frequent first.

    Of equals the one whose newest event became known last (then: happened last), then the smaller value: not
    the rest of the contract's order, so that the online state need not carry event ids.
    """
    return Aggregation(kind="top", field=field, k=k, of=_of(of), **options)


def time_since(of: str | Sequence[str] | None = None, **options: Unpack[Options]) -> Aggregation:
    """Whole seconds since the largest event time of what is known; null of nothing."""
    return Aggregation(kind="time_since", of=_of(of), **options)


def label_rate(label: str, *, of: str | Sequence[str], delay: timedelta, **options: Unpack[Options]) -> Aggregation:
    """[labelled 1, all] over the window that ended `delay` ago; labels count once they are known."""
    return Aggregation(kind="label_rate", label=label, of=_of(of), delay=delay, **options)


def sequence(
    *,
    name: str,
    entity_key: str,
    last: int,
    fields: Sequence[str],
    events: Sequence[str] = (),
    within: timedelta | None = None,
) -> Declaration:
    """Declare a sequence view: see `clicktrail.views.sequence_view`."""
    _check_entity(name, entity_key)
    if last < 1:
        message = f"view {name!r}: last={last}, it must be at least 1"
        raise ValueError(message)
    if not fields or len(set(fields)) != len(fields):
        message = f"view {name!r}: fields={list(fields)}, name at least one, each once"
        raise ValueError(message)
    for field in fields:
        field_type(field)
    if within is not None and within <= timedelta(0):
        message = f"view {name!r}: within={within}, it must be longer than nothing"
        raise ValueError(message)
    return Declaration(
        name=name,
        entity_key=entity_key,
        events=_of(events) or tuple(sorted(BEHAVIOUR_TYPES)),
        last=last,
        within_us=None if within is None else microseconds(within),
        fields=tuple(fields),
    )


def aggregates(
    *,
    name: str,
    entity_key: str,
    aggregations: Sequence[Aggregation],
    windows: Sequence[timedelta] = (),
    hop: timedelta | None = None,
) -> Declaration:
    """Declare an aggregate view: see `clicktrail.views.aggregate_view`."""
    _check_entity(name, entity_key)
    flat = [
        feature
        for aggregation in aggregations
        for feature in _flatten(name, aggregation, tuple(windows), hop or timedelta(0))
    ]
    names = [feature.name for feature in flat]
    doubled = sorted({one for one in names if names.count(one) > 1})
    if doubled or not flat:
        message = f"view {name!r}: features must be there and have names of their own; doubled: {doubled}; give name="
        raise ValueError(message)
    events = tuple(sorted({event for feature in flat for event in feature.events}))
    return Declaration(name=name, entity_key=entity_key, events=events, aggregates=tuple(flat))


def microseconds(length: timedelta) -> int:
    """A length of time in whole microseconds."""
    return length // timedelta(microseconds=1)


def _check_entity(name: str, entity_key: str) -> None:
    if entity_key not in ENTITY_KEYS:
        message = f"view {name!r}: {entity_key!r} is no entity key of the contract; choose one of {ENTITY_KEYS}"
        raise ValueError(message)


def _flatten(view: str, aggregation: Aggregation, windows: tuple[timedelta, ...], hop: timedelta) -> list[Aggregate]:
    kind = aggregation.kind
    if aggregation.field:
        type_ = field_type(aggregation.field)
        if kind in ("sum", "max") and not pa.types.is_integer(type_):
            message = f"view {view!r}: {kind} needs an integer field, {aggregation.field!r} is {type_}"
            raise ValueError(message)
    subject = "_".join(part for part in (aggregation.label, aggregation.field, "_".join(aggregation.of)) if part)
    stem = {"sum": "total", "time_since": "seconds_since"}.get(kind, kind)
    base = Aggregate(
        name=aggregation.name or f"{stem}_{subject or 'any'}",
        kind=kind,
        field=aggregation.field,
        events=aggregation.of or tuple(sorted(BEHAVIOUR_TYPES)),
        label=aggregation.label,
        delay_us=microseconds(aggregation.delay),
        k=aggregation.k,
    )
    if kind not in WINDOWED:
        return [base]
    chosen = aggregation.windows or windows
    if not chosen or any(window <= timedelta(0) for window in chosen):
        message = f"view {view!r}: {base.name} needs windows=[...], each longer than nothing"
        raise ValueError(message)
    hop_us = microseconds(hop if aggregation.hop is None else aggregation.hop)
    if hop_us < 0 or base.delay_us < 0 or (kind == "top" and base.k < 1):
        message = (
            f"view {view!r}: {base.name} has hop {hop_us} us, delay {base.delay_us} us, k={base.k}: "
            "no time may be negative, and top needs k=1 or more"
        )
        raise ValueError(message)
    return [
        replace(
            base,
            name=base.name if aggregation.name and len(chosen) == 1 else f"{base.name}_{_length(window)}",
            window_us=microseconds(window),
            hop_us=hop_us,
        )
        for window in chosen
    ]


def _length(window: timedelta) -> str:
    seconds, rest = divmod(microseconds(window), MICROSECONDS)
    if rest:
        return f"{microseconds(window)}us"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
