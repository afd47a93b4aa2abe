"""What a data engineer writes of features made when they are asked for, checked, as plain data.

They are made of the request itself and of what is stored. `clicktrail.request_features` computes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import pyarrow as pa

Kind = Literal[
    "count_with",
    "total_with",
    "mean_with",
    "largest_with",
    "times_mean",
    "share",
    "due",
    "difference",
    "quotient",
    "hour_of_day",
    "day_of_week",
    "is_weekend",
    "is_night",
]


@dataclass(frozen=True, kw_only=True)
class RequestFeature:
    """One feature. `of`: what it is made of, fields of the request or stored features; `type` an Arrow type's name."""

    name: str
    kind: Kind
    of: tuple[str, ...] = ()
    type: str = "int64"
    none: float | None = None
    before: int = 0


@dataclass(frozen=True, kw_only=True)
class RequestView:
    """Features of one request; `inputs` are the stored features that they read, by view."""

    name: str
    request: tuple[str, ...]
    inputs: tuple[tuple[str, tuple[str, ...]], ...]
    features: tuple[RequestFeature, ...]


# ---- what a data engineer writes


def count_with(feature: str, *, name: str = "") -> RequestFeature:
    """A stored count, the request's own event included."""
    return RequestFeature(name=name or f"{_short(feature)}_with_request", kind="count_with", of=(feature,))


def total_with(feature: str, field: str, *, name: str = "") -> RequestFeature:
    """A stored sum, the request's own value of `field` included; null where the request has none."""
    return RequestFeature(name=name or f"{_short(feature)}_with_request", kind="total_with", of=(feature, field))


def mean_with(*, total: str, count: str, field: str, name: str) -> RequestFeature:
    """Mean of the stored events and the request's own: exact sums, divided once; null where the request has none."""
    return RequestFeature(name=name, kind="mean_with", of=(total, count, field), type="float64")


def largest_with(feature: str, field: str, *, name: str = "") -> RequestFeature:
    """The larger of a stored value and the request's; the request's where nothing is stored, null where it has none."""
    return RequestFeature(name=name or f"{_short(feature)}_with_request", kind="largest_with", of=(feature, field))


def times_mean(field: str, *, total: str, count: str, name: str) -> RequestFeature:
    """How many times the stored mean the request's value is; null where there is no mean, or it is 0."""
    return RequestFeature(name=name, kind="times_mean", of=(field, total, count), type="float64")


def share(label_rate: str, *, none: float | None = None, name: str = "") -> RequestFeature:
    """A label rate as one number: labelled / all; `none` where there is nothing to divide by."""
    return RequestFeature(
        name=name or f"{_short(label_rate)}_share", kind="share", of=(label_rate,), type="float64", none=none
    )


def due(label_rate: str, *, name: str = "") -> RequestFeature:
    """Of how many events a label rate speaks."""
    return RequestFeature(name=name or f"{_short(label_rate)}_due", kind="due", of=(label_rate,))


def difference(left: str, right: str, *, name: str) -> RequestFeature:
    """The left number less the right, of numbers stored or in the request; null where either is."""
    return RequestFeature(name=name, kind="difference", of=(left, right))


def quotient_of(left: str, right: str, *, name: str) -> RequestFeature:
    """The left number by the right, of numbers stored or in the request; null where either is, or the right is 0."""
    return RequestFeature(name=name, kind="quotient", of=(left, right), type="float64")


def hour_of_day(*, name: str = "hour_of_day") -> RequestFeature:
    """Hour of the request's time, 0 to 23, UTC."""
    return RequestFeature(name=name, kind="hour_of_day")


def day_of_week(*, name: str = "day_of_week") -> RequestFeature:
    """Day of the request's time, Monday 0 to Sunday 6, UTC."""
    return RequestFeature(name=name, kind="day_of_week")


def is_weekend(*, name: str = "is_weekend") -> RequestFeature:
    """1 on a Saturday or Sunday, else 0; UTC."""
    return RequestFeature(name=name, kind="is_weekend")


def is_night(*, before: int, name: str = "is_night") -> RequestFeature:
    """1 where the hour is less than `before`, else 0; UTC."""
    return RequestFeature(name=name, kind="is_night", before=before)


def _short(feature: str) -> str:
    """A feature's name without its view."""
    return feature.rpartition("__")[2]


# ---- checked against what there is

_OPERANDS: dict[Kind, tuple[str, ...]] = {
    "count_with": ("stored",),
    "total_with": ("stored", "request"),
    "mean_with": ("stored", "stored", "request"),
    "largest_with": ("stored", "request"),
    "times_mean": ("request", "stored", "stored"),
    "share": ("pair",),
    "due": ("pair",),
    "difference": ("number", "number"),
    "quotient": ("number", "number"),
}
_ASKED = {
    "stored": "a stored whole number",
    "request": "a field of the request",
    "pair": "a stored label rate",
    "number": "a number, stored or in the request",
}


def request_declaration(
    *,
    name: str,
    request: Sequence[str],
    inputs: Mapping[str, Mapping[str, pa.DataType]],
    features: Sequence[RequestFeature],
) -> RequestView:
    """The view with every name resolved: what is stored is called view__feature.

    Args:
        name: of the view.
        request: fields that a request carries, whole numbers.
        inputs: by view, its features and their types.
        features: what `count_with` and its like gave.

    Raises:
        ValueError: a name is unknown, could mean two features, is of another kind than its place needs, or is doubled.
    """
    names = [feature.name for feature in features]
    doubled = sorted({one for one in names if names.count(one) > 1} | (set(names) & set(request)))
    if doubled or not names:
        message = f"view {name!r}: features must be there and have names of their own; doubled: {doubled}; give name="
        raise ValueError(message)
    if not request and not any(feature.of for feature in features):
        message = f"view {name!r} reads nothing: name a field of the request, if only to have its time"
        raise ValueError(message)
    types = {f"{view}__{feature}": type_ for view, known in inputs.items() for feature, type_ in known.items()}
    short: dict[str, list[str]] = {}
    for view, known in inputs.items():
        for one in known:
            short.setdefault(one, []).append(f"{view}__{one}")
    resolved = []
    for feature in features:
        places = _OPERANDS.get(feature.kind, ())
        of = tuple(
            _operand(name, feature.name, one, place, request, types, short)
            for one, place in zip(feature.of, places, strict=True)
        )
        floats = any(one in types and pa.types.is_floating(types[one]) for one in of)
        type_ = "float64" if feature.kind == "difference" and floats else feature.type
        resolved.append(replace(feature, of=of, type=type_))
    used = {one for feature in resolved for one in feature.of}
    read = ((view, tuple(one for one in known if f"{view}__{one}" in used)) for view, known in inputs.items())
    return RequestView(
        name=name,
        request=tuple(request),
        inputs=tuple((view, known) for view, known in read if known),
        features=tuple(resolved),
    )


def _operand(
    view: str,
    feature: str,
    operand: str,
    place: str,
    request: Sequence[str],
    types: Mapping[str, pa.DataType],
    short: Mapping[str, list[str]],
) -> str:
    """The full name of an operand."""
    if operand in request:
        if place in ("request", "number"):
            return operand
        known: list[str] = []
    else:
        known = [operand] if operand in types else short.get(operand, [])
    if len(known) > 1:
        message = f"view {view!r}: {feature} reads {operand!r}, which could be {' or '.join(known)}: say which"
        raise ValueError(message)
    suits = {
        "stored": pa.types.is_integer,
        "number": lambda type_: pa.types.is_integer(type_) or pa.types.is_floating(type_),
        "pair": lambda type_: pa.types.is_list(type_) and pa.types.is_integer(type_.value_type),
        "request": lambda _: False,
    }[place]
    if not known or not suits(types[known[0]]):
        there = [*request] if place == "request" else [one for one, type_ in types.items() if suits(type_)]
        there += [*request] if place == "number" else []
        message = f"view {view!r}: {feature} needs {_ASKED[place]}, {operand!r} is none; choose among: {there}"
        raise ValueError(message)
    return known[0]


# ---- as text


def to_text(view: RequestView) -> str:
    """The view as JSON; what a feature leaves as it is by default is left out."""
    features = [
        {field.name: value for field in fields(one) if (value := getattr(one, field.name)) != field.default}
        for one in view.features
    ]
    return json.dumps({**asdict(view), "features": features}, sort_keys=True)


@lru_cache(maxsize=256)
def from_text(text: str) -> RequestView:
    """The view that `to_text` wrote."""
    data = json.loads(text)
    return RequestView(
        name=data["name"],
        request=tuple(data["request"]),
        inputs=tuple((view, tuple(known)) for view, known in data["inputs"]),
        features=tuple(RequestFeature(**{**one, "of": tuple(one.get("of", ()))}) for one in data["features"]),
    )
