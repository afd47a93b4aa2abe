"""What follows from a declaration for a person: the unit of each feature and the class of personal data in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS, Column, PersonalData
from clicktrail.declarations import CATALOGUE_FIELDS, Aggregate, Declaration, field_type
from clicktrail.request_declarations import RequestView

CLASSES: tuple[PersonalData, ...] = ("none", "behaviour", "pseudonym", "payment")
"""Classes of personal data, each more telling than the one before it."""

_EVENTS: dict[str, Column] = {column.name: column for column in EVENT_COLUMNS}
_ITEMS: dict[str, Column] = {column.name: column for column in ITEM_COLUMNS}
_OF_AGGREGATE = {
    "count": "events",
    "distinct": "different values of {field}",
    "time_since": "seconds",
    "mean_gap": "seconds",
    "std_gap": "seconds",
    "label_rate": "events: [labelled {label}, all]",
    "ratio": "ratio",
    "sql": "",
}
_OF_REQUEST = {
    "count_with": "events",
    "due": "events",
    "times_mean": "ratio",
    "share": "ratio",
    "quotient": "ratio",
    "hour_of_day": "hours, UTC",
    "day_of_week": "days since Monday, UTC",
    "is_weekend": "1 or 0",
    "is_night": "1 or 0",
}


def unit_of(declaration: Declaration, feature: str, tags: Mapping[str, str] | None = None) -> str:
    """In what a feature is counted: that of its contract column, or what its aggregation makes of it.

    Args:
        declaration: the view's.
        feature: one of its outputs.
        tags: the view's; `unit.<feature>` says what cannot be derived (of a SQL expression, say).

    Returns:
        The unit; "" where nothing tells it.

    Raises:
        KeyError: the view has no such feature.
    """
    if feature not in declaration.outputs:
        raise KeyError(feature)
    if tags and (said := tags.get(f"unit.{feature}")):
        return said
    if declaration.is_sequence:
        return _unit_of_field(feature)
    return _unit_of_aggregate(next(one for one in declaration.aggregates if one.name == feature))


def personal_data_of(declaration: Declaration) -> PersonalData:
    """The most telling class among the contract columns that a view is made of, its keys and event types included.

    `declaration.only({feature})` gives that of one feature.
    """
    used = {*declaration.columns, *declaration.entity_keys, "event_type", "event_timestamp"}
    return highest(_EVENTS[name].personal_data for name in used)


def request_unit_of(
    view: RequestView, feature: str, stored: Mapping[str, Declaration], tags: Mapping[str, str] | None = None
) -> str:
    """In what a feature of a request view is counted; `stored` are the declarations of its inputs by name."""
    one = next(known for known in view.features if known.name == feature)
    if tags and (said := tags.get(f"unit.{feature}")):
        return said
    return _OF_REQUEST.get(one.kind) or _unit_of_operand(one.of[0], stored)


def request_personal_data_of(view: RequestView, stored: Mapping[str, Declaration]) -> PersonalData:
    """The most telling class among what a request view reads, stored or sent along."""
    sent = (_EVENTS[name].personal_data for name in view.request if name in _EVENTS)
    read = (personal_data_of(stored[name].only(known)) for name, known in view.inputs if name in stored)
    return highest((*sent, *read))


def highest(classes: Iterable[PersonalData]) -> PersonalData:
    """The most telling of some classes; none of nothing."""
    return max(classes, key=CLASSES.index, default="none")


def _unit_of_aggregate(one: Aggregate) -> str:
    unit = _OF_AGGREGATE.get(one.kind)
    return _unit_of_field(one.field) if unit is None else unit.format(field=one.field, label=one.label)


def _unit_of_field(field: str) -> str:
    if field == "event_day":
        return "days since 1970-01-01, UTC"
    column = _ITEMS[CATALOGUE_FIELDS[field]] if field in CATALOGUE_FIELDS else _EVENTS.get(field)
    if column is not None and column.unit:
        return column.unit
    if not pa.types.is_string(field_type(field)):
        return ""
    return "id" if field.endswith("_id") else "text"


def _unit_of_operand(operand: str, stored: Mapping[str, Declaration]) -> str:
    """That of a stored feature or of a field of the request: a sum, mean or difference is in its first operand's."""
    view, _, feature = operand.partition("__")
    if feature:
        return unit_of(stored[view], feature) if view in stored else ""
    return _EVENTS[operand].unit if operand in _EVENTS else ""
