"""Features made when they are asked for, of the request and of what is stored: one function for every door.

`apply` answers the offline store, the online store and Feast's own generic path. The request's own event is never
among what is stored: at its own time it is not visible yet. So `count_with` and its like add it exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clicktrail.clock import microseconds, read_time
from clicktrail.contract import MICROSECONDS
from clicktrail.engine import quotient
from clicktrail.request_declarations import Kind, RequestFeature, RequestView, from_text


def apply(
    features: Sequence[RequestFeature], columns: Mapping[str, pa.Array | pa.ChunkedArray], t: np.ndarray
) -> dict[str, pa.Array]:
    """The features of each request, [rows] each, offline and online alike.

    Args:
        features: of a request view.
        columns: fields of the request and stored features (view__feature), [rows] each.
        t: time of each request, int64 [rows], microseconds UTC.
    """
    out = {}
    for feature in features:
        values, null = _KINDS[feature.kind](feature, [_single(columns[name]) for name in feature.of], t)
        out[feature.name] = pa.array(values, feature.type, mask=null)
    return out


def request_fields(view: RequestView, columns: Mapping[str, Any] | pa.Table) -> dict[str, pa.Array]:
    """What a request carries, as int64 [rows]; `columns` are Arrow columns or lists.

    Raises:
        ValueError: a field is missing, or holds something else than whole numbers.
    """
    out = {}
    there = columns.column_names if isinstance(columns, pa.Table) else list(columns)
    for field in view.request:
        if field not in there:
            message = f"request view {view.name!r} reads {field!r} of every row; there is {there}"
            raise ValueError(message)
        try:
            out[field] = _whole(columns[field])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            message = f"request view {view.name!r}: {field!r} must hold whole numbers: {error}"
            raise ValueError(message) from error
    return out


def _whole(column: Any) -> pa.Array:  # noqa: ANN401 - Arrow or a list
    array = _single(column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column))
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
        message = f"these are {array.type}"
        raise pa.ArrowTypeError(message)
    return array.cast(pa.int64())


_Values = tuple[np.ndarray, np.ndarray | None]


def _count_with(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    count, null = _numbers(of[0])
    return count + 1, null


def _total_with(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (total, no_total), (value, no_value) = map(_numbers, of)
    return total + value, no_total | no_value


def _mean_with(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (total, no_total), (count, no_count), (value, no_value) = map(_numbers, of)
    mean, _ = quotient(total + value, count + 1)
    return mean, no_total | no_count | no_value


def _largest_with(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (largest, nothing), (value, no_value) = map(_numbers, of)
    return np.where(nothing, value, np.maximum(largest, value)), no_value


def _times_mean(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (value, no_value), (total, no_total), (count, no_count) = map(_numbers, of)
    times, no_mean = quotient(value * count, total)
    return times, no_mean | no_value | no_total | no_count


def _share(feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    labelled, every, null = _pairs(of[0])
    rate, nothing = quotient(labelled, every)
    if feature.none is None:
        return rate, null | nothing
    return np.where(nothing, feature.none, rate), null


def _due(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    _, every, null = _pairs(of[0])
    return every, null


def _difference(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (left, no_left), (right, no_right) = map(_numbers, of)
    return left - right, no_left | no_right


def _quotient(_feature: RequestFeature, of: list[pa.Array], _t: np.ndarray) -> _Values:
    (left, no_left), (right, no_right) = map(_numbers, of)
    ratio, nothing = quotient(left, right)
    return ratio, nothing | no_left | no_right


def _hour_of_day(_feature: RequestFeature, _of: list[pa.Array], t: np.ndarray) -> _Values:
    return t // (3_600 * MICROSECONDS) % 24, None


def _day_of_week(_feature: RequestFeature, _of: list[pa.Array], t: np.ndarray) -> _Values:
    return (t // (86_400 * MICROSECONDS) + 3) % 7, None  # 1970-01-01 was a Thursday


def _is_weekend(feature: RequestFeature, of: list[pa.Array], t: np.ndarray) -> _Values:
    return (_day_of_week(feature, of, t)[0] >= 5).astype(np.int64), None  # noqa: PLR2004 - Saturday


def _is_night(feature: RequestFeature, of: list[pa.Array], t: np.ndarray) -> _Values:
    return (_hour_of_day(feature, of, t)[0] < feature.before).astype(np.int64), None


_KINDS: dict[Kind, Callable[[RequestFeature, list[pa.Array], np.ndarray], _Values]] = {
    "count_with": _count_with,
    "total_with": _total_with,
    "mean_with": _mean_with,
    "largest_with": _largest_with,
    "times_mean": _times_mean,
    "share": _share,
    "due": _due,
    "difference": _difference,
    "quotient": _quotient,
    "hour_of_day": _hour_of_day,
    "day_of_week": _day_of_week,
    "is_weekend": _is_weekend,
    "is_night": _is_night,
}


def _single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, 0 for null, and where they are null."""
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False), np.zeros(len(column), np.bool_)
    null = column.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False), null


def _pairs(column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first and the last of each pair, and where there is no pair."""
    if not pa.types.is_list(column.type):
        column = column.cast(pa.list_(pa.int64()))
    offsets = column.offsets.to_numpy()
    null = (np.diff(offsets) == 0) | column.is_null().to_numpy(zero_copy_only=False)
    numbers = np.append(column.values.to_numpy(zero_copy_only=False), 0)  # there is something to point at
    return numbers[np.where(null, -1, offsets[:-1])], numbers[np.where(null, -1, offsets[1:] - 1)], null


def transform(text: str, inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """What the function in Feast's registry calls, where other stores than ours read: lists in, lists out.

    A request's time is its `event_timestamp` where the inputs have one (offline), else now.
    """
    view = from_text(text)
    columns = request_fields(view, inputs)
    for source, known in view.inputs:
        for feature in known:
            full = f"{source}__{feature}"
            columns[full] = pa.array(inputs[full if full in inputs else feature])
    rows = max((len(column) for column in columns.values()), default=1)
    if "event_timestamp" in inputs:
        t = np.array([microseconds(one) for one in inputs["event_timestamp"]], np.int64)
    else:
        t = np.full(rows, read_time("wall", 0))
    return {name: column.to_pylist() for name, column in apply(view.features, columns, t).items()}
