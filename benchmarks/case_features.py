"""The features of a file of time cases as Feast entities and views, and what one of them expects of a value."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from feast import Entity, FeatureView, ValueType

from clicktrail.declaring import Aggregation
from clicktrail.views import (
    aggregate_view,
    count,
    distinct,
    first,
    label_rate,
    largest,
    last,
    mean,
    mean_gap,
    most_frequent,
    ratio,
    sequence_view,
    smallest,
    std,
    std_gap,
    time_since,
    top,
    total,
)

OWNER = "benchmarks@example.com"
ABOUT = "features of the time cases"

_OF_FIELD: dict[str, Callable[..., Aggregation]] = {
    "sum": total,
    "mean": mean,
    "std": std,
    "min": smallest,
    "max": largest,
    "distinct": distinct,
    "first": first,
    "last": last,
    "most_frequent": most_frequent,
}
_OF_EVENTS: dict[str, Callable[..., Aggregation]] = {
    "count": count,
    "seconds_since_last": time_since,
    "mean_gap": mean_gap,
    "std_gap": std_gap,
}


def entity_keys(feature: dict[str, Any]) -> tuple[str, ...]:
    """Whose feature it is: a user's where nothing is said; `a+b` and a list of two are a pair."""
    entity = feature.get("entity") or "user_id"
    return tuple(entity.split("+") if isinstance(entity, str) else entity)


def all_keys(features: list[dict[str, Any]]) -> list[str]:
    """Every key column that a read of these features may name."""
    return sorted({"user_id", *(key for one in features for key in entity_keys(one))})


def feature_views(features: list[dict[str, Any]]) -> tuple[list[Entity | FeatureView], dict[str, str]]:
    """Entities and views for the features of a file, and for each feature its Feast reference."""
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in all_keys(features)
    }
    views, references = [], {}
    grouped: dict[tuple[str, ...], list[tuple[str, Aggregation]]] = defaultdict(list)
    for one in features:
        name, keys = one["name"], entity_keys(one)
        if one["kind"] == "sequence":
            views.append(_sequence(one, [entities[key] for key in keys]))
            references[name] = f"{name}_v1:{one['field']}"
        else:
            grouped[keys].append((name, _aggregation(one)))
            references[name] = f"{'_'.join(keys)}_aggregates_v1:{name}"
    for keys, aggregations in grouped.items():
        views.append(
            aggregate_view(
                name=f"{'_'.join(keys)}_aggregates_v1",
                entity=[entities[key] for key in keys],
                aggregations=[aggregation for _, aggregation in aggregations],
                owner=OWNER,
                description=ABOUT,
            )
        )
    return [*entities.values(), *views], references


def _sequence(one: dict[str, Any], entity: list[Entity]) -> FeatureView:
    session = one.get("session_s")  # 0: that of session_id, else the pause that ends one
    return sequence_view(
        name=f"{one['name']}_v1",
        entity=entity,
        last=one["last"],
        fields=[one["field"]],
        events=one.get("events") or (),
        within=_seconds(one["within_s"]) if one.get("within_s") else None,
        session=_seconds(session) if session else session is not None,
        drop_repeats=one.get("drop_repeats") or (),
        owner=OWNER,
        description=ABOUT,
    )


def _aggregation(one: dict[str, Any]) -> Aggregation:
    kind, of = one["kind"], one.get("events") or None
    options: dict[str, Any] = {"name": one["name"]}
    if "window_s" in one:
        options |= {"windows": [_seconds(one["window_s"])], "hop": _seconds(one.get("hop_s") or 0)}
    if kind in _OF_FIELD:
        return _OF_FIELD[kind](one["field"], of=of, **options)
    if kind in _OF_EVENTS:
        return _OF_EVENTS[kind](of, **options)
    match kind:
        case "top":
            return top(one["field"], k=one["k"], of=of, **options)
        case "label_rate":
            return label_rate(one["label"], of=of or [], delay=_seconds(one.get("delay_s") or 0), **options)
        case "ratio":
            hop = options["hop"]
            part = count(of, hop=hop) if one["part"] == "count" else total(one["field"], of=of, hop=hop)
            return ratio(part, window=_seconds(one["window_s"]), over=_seconds(one["over_s"]), name=one["name"])
    message = f"feature {one['name']!r}: kind {kind!r} is none of the time contract's"
    raise ValueError(message)


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def plain(value: Any, case: str) -> Any:  # noqa: ANN401 - a value of any feature
    """A value as a file of cases writes it: its own ids, times in whole seconds."""
    if isinstance(value, list):
        return [plain(one, case) for one in value]
    if isinstance(value, datetime):
        return int(value.timestamp())
    return value.removeprefix(f"{case}|") if isinstance(value, str) else value


def same(expected: Any, got: Any) -> bool:  # noqa: ANN401 - values of any feature
    """Whether a value is the expected one; floats to within 1e-12, since a file may have divided in another order.

    Inside a list, Feast's doors write "" and 0 for what an event lacks (decision 0007).
    """
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(
            same(one, other) or (one is None and other in ("", 0)) for one, other in zip(expected, got, strict=True)
        )
    if isinstance(expected, float) and isinstance(got, int | float):
        return math.isclose(expected, got, rel_tol=1e-12, abs_tol=0)
    return bool(expected == got)
