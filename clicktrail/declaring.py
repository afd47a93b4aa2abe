"""What a data engineer writes, checked, as declarations: sequences, aggregations and the windows they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypedDict, Unpack

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES, ENTITY_KEYS, MICROSECONDS
from clicktrail.declarations import Aggregate, Declaration, Kind, field_type

_STEMS = {"sum": "total", "time_since": "seconds_since"}
_WITHOUT_WINDOW: tuple[Kind, ...] = ("time_since",)
_OF_INTEGERS: tuple[Kind, ...] = ("sum", "mean", "std", "min", "max")
_RATIO_OF: tuple[Kind, ...] = ("count", "sum")


def hours(number: float) -> timedelta:
    """A length of time."""
    return timedelta(hours=number)


def days(number: float) -> timedelta:
    """A length of time."""
    return timedelta(days=number)


def minutes(number: float) -> timedelta:
    """A length of time."""
    return timedelta(minutes=number)


def microseconds(length: timedelta) -> int:
    """A length of time in whole microseconds."""
    return length // timedelta(microseconds=1)


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
    part: str = ""
    over: timedelta | None = None
    sql: str = ""
    sql_type: str = ""
    uses: tuple[str, ...] = ()


class Windows(TypedDict, total=False):
    """The windows and hop that an aggregation has instead of its view's."""

    windows: Sequence[timedelta]
    hop: timedelta


class Options(Windows, total=False):
    """What every aggregation may say for itself: its windows and hop, and its name."""

    name: str


Events = str | Sequence[str] | None
"""One event type, several, or None for all behaviour."""


def count(of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """How many events of these types (all behaviour where none is named); 0 of nothing."""
    return Aggregation(kind="count", of=_of(of), **options)


def total(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Sum of an integer field, exact; 0 of nothing."""
    return Aggregation(kind="sum", field=field, of=_of(of), **options)


def mean(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Mean of an integer field: an exact sum, divided once; null of nothing."""
    return Aggregation(kind="mean", field=field, of=_of(of), **options)


def std(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Sample standard deviation of an integer field; null of fewer than two values.

    Exact up to one division and one root, as long as the squared deviations sum to less than 2^63.
    """
    return Aggregation(kind="std", field=field, of=_of(of), **options)


def smallest(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Smallest value of an integer field; null of nothing."""
    return Aggregation(kind="min", field=field, of=_of(of), **options)


def largest(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Largest value of an integer field; null of nothing."""
    return Aggregation(kind="max", field=field, of=_of(of), **options)


def distinct(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """How many different values of a field; 0 of nothing."""
    return Aggregation(kind="distinct", field=field, of=_of(of), **options)


def first(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """The field of the first event in the window that has it, in the order of the contract; null of nothing."""
    return Aggregation(kind="first", field=field, of=_of(of), **options)


def last(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """The field of the last event in the window that has it, in the order of the contract; null of nothing."""
    return Aggregation(kind="last", field=field, of=_of(of), **options)


def most_frequent(field: str, *, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """The most frequent value of a field, null of nothing; of equals the one that `top` puts first."""
    return Aggregation(kind="most_frequent", field=field, k=1, of=_of(of), **options)


def top(field: str, *, k: int, of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """The k most frequent values of a field, most frequent first.

    Of equals the one whose newest event became known last (then: happened last), then the smaller value: not
    the rest of the contract's order, so that the online state need not carry event ids.
    """
    return Aggregation(kind="top", field=field, k=k, of=_of(of), **options)


def time_since(of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Whole seconds since the largest event time of what is known; null of nothing."""
    return Aggregation(kind="time_since", of=_of(of), **options)


def mean_gap(of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Mean time between neighbouring events by event time, seconds; null of fewer than two events."""
    return Aggregation(kind="mean_gap", of=_of(of), **options)


def std_gap(of: Events = None, **options: Unpack[Options]) -> Aggregation:
    """Sample standard deviation of the times between neighbouring events, seconds; null of fewer than three events.

    Gaps count between event times in whole seconds.
    """
    return Aggregation(kind="std_gap", of=_of(of), **options)


def label_rate(label: str, *, of: str | Sequence[str], delay: timedelta, **options: Unpack[Options]) -> Aggregation:
    """[labelled 1, all] over the window that ended `delay` ago; labels count once they are known."""
    return Aggregation(kind="label_rate", label=label, of=_of(of), delay=delay, **options)


def ratio(part: Aggregation, *, window: timedelta, over: timedelta, name: str = "") -> Aggregation:
    """A count or total of `window` divided by the same of the longer window `over`; null where that is 0.

    Raises:
        ValueError: the part is neither a count nor a total.
    """
    if part.kind not in _RATIO_OF:
        message = f"ratio of {part.kind!r}: give count(...) or total(...), other aggregations have no share"
        raise ValueError(message)
    return replace(part, kind="ratio", part=part.kind, windows=[window], over=over, name=name)


def sql(expression: str, *, name: str, of: Events = None, **options: Unpack[Windows]) -> Aggregation:
    """A DuckDB aggregate expression over the events of the window, for what the others cannot say.

    It sees the fields of the contract of those events alone that are visible and in the window, so the time rules
    hold whatever it says; offline and online it is run on the same rows in the same order. It must give one
    integer, number or string. About a millisecond online, where the others take microseconds.

    Raises:
        ValueError: it cannot be read, names an unknown field, or gives another answer each time (now, random).
    """
    from clicktrail.sql_expressions import check

    uses, sql_type = check(expression, name)
    return Aggregation(kind="sql", sql=expression, uses=uses, sql_type=sql_type, of=_of(of), name=name, **options)


def sequence(
    *,
    name: str,
    entity_key: str | Sequence[str],
    last: int,
    fields: Sequence[str],
    events: Sequence[str] = (),
    within: timedelta | None = None,
    session: bool | timedelta = False,
    drop_repeats: Sequence[str] = (),
) -> Declaration:
    """Declare a sequence view: see `clicktrail.views.sequence_view`."""
    keys = _entity_keys(name, entity_key)
    if last < 1:
        message = f"view {name!r}: last={last}, it must be at least 1"
        raise ValueError(message)
    if not fields or len(set(fields)) != len(fields):
        message = f"view {name!r}: fields={list(fields)}, name at least one, each once"
        raise ValueError(message)
    for field in (*fields, *drop_repeats):
        field_type(field)
    pauses = {"within": within, "session": session if isinstance(session, timedelta) else None}
    for what, length in pauses.items():
        if length is not None and length <= timedelta(0):
            message = f"view {name!r}: {what}={length}, it must be longer than nothing"
            raise ValueError(message)
    pause = microseconds(session) if isinstance(session, timedelta) else 0
    return Declaration(
        name=name,
        entity_keys=keys,
        events=_of(events) or tuple(sorted(BEHAVIOUR_TYPES)),
        last=last,
        within_us=None if within is None else microseconds(within),
        session_us=pause if session else None,
        drop_repeats=tuple(sorted(set(drop_repeats))),
        fields=tuple(fields),
    )


def aggregates(
    *,
    name: str,
    entity_key: str | Sequence[str],
    aggregations: Sequence[Aggregation],
    windows: Sequence[timedelta] = (),
    hop: timedelta | None = None,
) -> Declaration:
    """Declare an aggregate view: see `clicktrail.views.aggregate_view`."""
    keys = _entity_keys(name, entity_key)
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
    return Declaration(name=name, entity_keys=keys, events=events, aggregates=tuple(flat))


def _of(of: Events) -> tuple[str, ...]:
    names = () if of is None else (of,) if isinstance(of, str) else tuple(of)
    for name in names:
        if name not in BEHAVIOUR_TYPES:
            message = f"{name!r} is no event type of the contract; choose among: {', '.join(BEHAVIOUR_TYPES)}"
            raise ValueError(message)
    return tuple(sorted(set(names)))


def _entity_keys(view: str, entity_key: str | Sequence[str]) -> tuple[str, ...]:
    keys = (entity_key,) if isinstance(entity_key, str) else tuple(entity_key)
    if not keys or len(set(keys)) != len(keys) or not set(keys) <= set(ENTITY_KEYS):
        message = f"view {view!r}: {list(keys)} names no entity of the contract; choose one or more of {ENTITY_KEYS}"
        raise ValueError(message)
    return keys


def _flatten(view: str, aggregation: Aggregation, windows: tuple[timedelta, ...], hop: timedelta) -> list[Aggregate]:
    base = _base(view, aggregation)
    if base.kind in _WITHOUT_WINDOW:
        return [base]
    chosen = aggregation.windows or windows
    if not chosen or any(window <= timedelta(0) for window in chosen):
        message = f"view {view!r}: {base.name} needs windows=[...], each longer than nothing"
        raise ValueError(message)
    hop_us = microseconds(hop if aggregation.hop is None else aggregation.hop)
    if hop_us < 0 or base.delay_us < 0 or (base.kind == "top" and base.k < 1):
        message = (
            f"view {view!r}: {base.name} has hop {hop_us} us, delay {base.delay_us} us, k={base.k}: "
            "no time may be negative, and top needs k=1 or more"
        )
        raise ValueError(message)
    if aggregation.over is not None and aggregation.over <= chosen[0]:
        message = f"view {view!r}: {base.name} divides {chosen[0]} by {aggregation.over}: over= must be the longer one"
        raise ValueError(message)
    suffix = f"_{_length(aggregation.over)}" if aggregation.over is not None else ""
    return [
        replace(
            base,
            name=base.name if aggregation.name and len(chosen) == 1 else f"{base.name}_{_length(window)}{suffix}",
            window_us=microseconds(window),
            over_us=None if aggregation.over is None else microseconds(aggregation.over),
            hop_us=hop_us,
        )
        for window in chosen
    ]


def _base(view: str, aggregation: Aggregation) -> Aggregate:
    """The aggregation's feature before it has a window."""
    kind, field = aggregation.kind, aggregation.field
    if field:
        type_ = field_type(field)
        if (kind in _OF_INTEGERS or aggregation.part == "sum") and not pa.types.is_integer(type_):
            message = f"view {view!r}: {kind} needs an integer field, {field!r} is {type_}"
            raise ValueError(message)
    subject = "_".join(part for part in (aggregation.label, field, "_".join(aggregation.of)) if part)
    stem = f"ratio_{_STEMS.get(aggregation.part, aggregation.part)}" if kind == "ratio" else _STEMS.get(kind, kind)
    return Aggregate(
        name=aggregation.name or f"{stem}_{subject or 'any'}",
        kind=kind,
        field=field,
        events=aggregation.of or tuple(sorted(BEHAVIOUR_TYPES)),
        label=aggregation.label,
        delay_us=microseconds(aggregation.delay),
        k=aggregation.k,
        part=aggregation.part,
        sql=aggregation.sql,
        sql_type=aggregation.sql_type,
        uses=aggregation.uses,
    )


def _length(window: timedelta) -> str:
    seconds, rest = divmod(microseconds(window), MICROSECONDS)
    if rest:
        return f"{microseconds(window)}us"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
