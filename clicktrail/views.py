"""What a data engineer writes in a Feast repo: `sequence_view` and `aggregate_view`; both give Feast feature views."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa
from feast import Entity, FeatureView, Field
from feast.types import Array, FeastType, Int64, String, UnixTimestamp

from clicktrail import declarations
from clicktrail.data_source import EventLogSource
from clicktrail.declarations import (
    Aggregation,
    Declaration,
    count,
    days,
    distinct,
    hours,
    label_rate,
    largest,
    minutes,
    time_since,
    top,
    total,
)

__all__ = [
    "aggregate_view",
    "count",
    "days",
    "distinct",
    "hours",
    "label_rate",
    "largest",
    "minutes",
    "sequence_view",
    "time_since",
    "top",
    "total",
]


def sequence_view(
    *,
    name: str,
    entity: Entity,
    last: int,
    fields: Sequence[str],
    owner: str,
    description: str,
    events: Sequence[str] = (),
    within: timedelta | None = None,
    tags: dict[str, str] | None = None,
) -> FeatureView:
    """The last events of an entity as lists, oldest first, one list a field.

    The last `last` events of the listed types (all behaviour where none is listed) in the order in which
    they became known, then of these those whose event time is at most `within` ago.

    Raises:
        ValueError: an unknown event type or field, or no field.
    """
    declaration = declarations.sequence(
        name=name, entity_key=entity.join_key, last=last, fields=fields, events=events, within=within
    )
    return _feature_view(declaration, entity, owner=owner, description=description, tags=tags)


def aggregate_view(
    *,
    name: str,
    entity: Entity,
    aggregations: Sequence[Aggregation],
    owner: str,
    description: str,
    windows: Sequence[timedelta] = (),
    hop: timedelta | None = None,
    tags: dict[str, str] | None = None,
) -> FeatureView:
    """Aggregates of an entity's events over windows that slide with the clock.

    Each aggregation gives one feature a window (`count_purchase_7d`). A window's right edge is the read
    time; its left edge is exact, or rounded down to a multiple of `hop`.

    Raises:
        ValueError: an unknown event type or field, a window that is missing, or a doubled name.
    """
    declaration = declarations.aggregates(
        name=name, entity_key=entity.join_key, aggregations=aggregations, windows=windows, hop=hop
    )
    return _feature_view(declaration, entity, owner=owner, description=description, tags=tags)


def _feature_view(
    declaration: Declaration, entity: Entity, *, owner: str, description: str, tags: dict[str, str] | None
) -> FeatureView:
    return FeatureView(
        name=declaration.name,
        entities=[entity],
        ttl=timedelta(0),
        schema=[
            Field(name=entity.join_key, dtype=String),
            *(Field(name=name, dtype=_feast_type(type_)) for name, type_ in declaration.outputs.items()),
        ],
        source=EventLogSource(declaration=declaration, description=description, owner=owner),
        online=True,
        owner=owner,
        description=description,
        tags=tags or {},
    )


def _feast_type(type_: pa.DataType) -> FeastType:
    if pa.types.is_list(type_):
        return Array(_feast_type(type_.value_type))
    if pa.types.is_timestamp(type_):
        return UnixTimestamp
    return String if pa.types.is_string(type_) else Int64
