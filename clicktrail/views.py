"""What a data engineer writes in a Feast repo: sequence, aggregate and request views; all are views of Feast's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa
from feast import Entity, FeatureView, Field
from feast.types import Array, FeastType, Float64, Int64, String, UnixTimestamp

from clicktrail import declaring
from clicktrail.data_source import EventLogSource
from clicktrail.declarations import Declaration
from clicktrail.declaring import (
    Aggregation,
    count,
    days,
    distinct,
    first,
    hours,
    label_rate,
    largest,
    last,
    mean,
    mean_gap,
    minutes,
    most_frequent,
    ratio,
    smallest,
    sql,
    std,
    std_gap,
    time_since,
    top,
    total,
)
from clicktrail.request_declarations import (
    count_with,
    day_of_week,
    difference,
    due,
    hour_of_day,
    is_night,
    is_weekend,
    largest_with,
    mean_with,
    quotient_of,
    share,
    times_mean,
    total_with,
)
from clicktrail.request_views import request_view

__all__ = [
    "aggregate_view",
    "count",
    "count_with",
    "day_of_week",
    "days",
    "difference",
    "distinct",
    "due",
    "first",
    "hour_of_day",
    "hours",
    "is_night",
    "is_weekend",
    "label_rate",
    "largest",
    "largest_with",
    "last",
    "mean",
    "mean_gap",
    "mean_with",
    "minutes",
    "most_frequent",
    "quotient_of",
    "ratio",
    "request_view",
    "sequence_view",
    "share",
    "smallest",
    "sql",
    "std",
    "std_gap",
    "time_since",
    "times_mean",
    "top",
    "total",
    "total_with",
]


def sequence_view(  # noqa: PLR0913 - one word an option
    *,
    name: str,
    entity: Entity | Sequence[Entity],
    last: int,
    fields: Sequence[str],
    owner: str,
    description: str,
    events: Sequence[str] = (),
    within: timedelta | None = None,
    session: bool | timedelta = False,
    drop_repeats: Sequence[str] = (),
    tags: dict[str, str] | None = None,
    parity_budget: float = 0.0,
) -> FeatureView:
    """The last events of an entity as lists, oldest first, one list a field.

    Of the events of the listed types (all behaviour where none is listed), in the order in which they became
    known: without those that repeat the one before them, of the session that is going on, the last `last`, and of
    these the ones whose event time is at most `within` ago.

    Args:
        name: ends in `_v1`, `_v2`, ...: a published view is never changed in place.
        entity: whose events; two entities are a pair (a user in a category).
        last: how many events at most.
        fields: of the contract, `event_day`, or what the catalogue knew of the item then (`item_title`).
        owner: e-mail address of who answers for it.
        description: what it means, for a person.
        events: event types.
        within: longest age at the read time.
        session: True: only events since `session_id` last changed; a length of time: since the last longer pause.
        drop_repeats: fields that make an event a repeat when all of them are as in the event before (a null equals
            a null).
        tags: Feast's.
        parity_budget: share of online reads that may differ from the offline value before promotion is refused.

    Raises:
        ValueError: an unknown event type or field, or no field.
    """
    declaration = declaring.sequence(
        name=name,
        entity_key=_join_keys(entity),
        last=last,
        fields=fields,
        events=events,
        within=within,
        session=session,
        drop_repeats=drop_repeats,
    )
    return _feature_view(declaration, entity, owner, description, tags, parity_budget)


def aggregate_view(
    *,
    name: str,
    entity: Entity | Sequence[Entity],
    aggregations: Sequence[Aggregation],
    owner: str,
    description: str,
    windows: Sequence[timedelta] = (),
    hop: timedelta | None = None,
    tags: dict[str, str] | None = None,
    parity_budget: float = 0.0,
) -> FeatureView:
    """Aggregates of an entity's events over windows that slide with the clock.

    Each aggregation gives one feature a window (`count_purchase_7d`). A window's right edge is the read
    time; its left edge is exact, or rounded down to a multiple of `hop`. `entity`: two entities are a pair. The other
    arguments are those of `sequence_view`.

    Raises:
        ValueError: an unknown event type or field, a window that is missing, or a doubled name.
    """
    declaration = declaring.aggregates(
        name=name, entity_key=_join_keys(entity), aggregations=aggregations, windows=windows, hop=hop
    )
    return _feature_view(declaration, entity, owner, description, tags, parity_budget)


def _entities(entity: Entity | Sequence[Entity]) -> list[Entity]:
    return [entity] if isinstance(entity, Entity) else list(entity)


def _join_keys(entity: Entity | Sequence[Entity]) -> list[str]:
    return [one.join_key for one in _entities(entity)]


def _feature_view(
    declaration: Declaration,
    entity: Entity | Sequence[Entity],
    owner: str,
    description: str,
    tags: dict[str, str] | None,
    parity_budget: float,
) -> FeatureView:
    return FeatureView(
        name=declaration.name,
        entities=_entities(entity),
        ttl=timedelta(0),
        schema=[
            *(Field(name=key, dtype=String) for key in declaration.entity_keys),
            *(Field(name=name, dtype=_feast_type(type_)) for name, type_ in declaration.outputs.items()),
        ],
        source=EventLogSource(declaration=declaration, description=description, owner=owner),
        online=True,
        owner=owner,
        description=description,
        tags={**(tags or {}), **({"parity_budget": f"{parity_budget:g}"} if parity_budget else {})},
    )


def _feast_type(type_: pa.DataType) -> FeastType:
    if pa.types.is_list(type_):
        return Array(_feast_type(type_.value_type))
    if pa.types.is_timestamp(type_):
        return UnixTimestamp
    if pa.types.is_floating(type_):
        return Float64
    return String if pa.types.is_string(type_) else Int64
