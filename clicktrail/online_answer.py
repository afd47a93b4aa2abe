"""An online read by its plan: entity rows in, columns of the answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from feast import metrics
from feast.protos.feast.types.Value_pb2 import RepeatedValue
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.type_map import feast_value_type_to_python_type

from clicktrail.entity_ids import entity_id
from clicktrail.online_plan import Plan, PlannedView
from clicktrail.online_response import Column, feast_column
from clicktrail.online_state import OnlineReader, ReadResult
from clicktrail.request_features import apply, request_fields

Rows = dict[str, list[Any]]


def columns_of(plan: Plan, entity_rows: list[dict[str, Any]] | Mapping[str, Any]) -> Rows | None:
    """Entity rows as lists by column; None where they are not as the plan needs them, which is Feast's to tell."""
    if isinstance(entity_rows, list):
        if not entity_rows or any(len(row) != len(entity_rows[0]) for row in entity_rows):
            return None
        try:
            rows = {name: [row[name] for row in entity_rows] for name in entity_rows[0]}
        except KeyError:
            return None
    else:
        rows = {name: _values(column) for name, column in entity_rows.items()}
    keys = {column for view in plan.views for column in view.key_columns}
    if len({len(column) for column in rows.values()}) != 1 or not keys | plan.request_fields <= rows.keys():
        return None
    if any(not isinstance(one, str | None) for key in keys for one in rows[key]):
        return None
    return rows


def answer(plan: Plan, rows: Rows, t: int, reader: OnlineReader) -> list[Column]:
    """The columns of the answer at t (microseconds UTC): join keys, features of views, features of request views."""
    out = [
        Column(name=name, values=pa.array(column), type=plan.join_keys[name])
        for name, column in rows.items()
        if name in plan.join_keys
    ]
    length = len(next(iter(rows.values())))
    stored: dict[str, pa.Array] = {}
    for view, read in zip(plan.views, _read(plan, rows, t, reader), strict=True):
        stored |= {f"{view.name}__{name}": column for name, column in read.columns.items()}
        out += [
            Column(
                name=shown,
                values=feast_column(read.columns[name]),
                type=type_,
                found=read.known,
                watermark=read.watermark,
            )
            for name, shown, type_ in view.features
        ]
    for request in plan.requests:
        times = np.full(length, t)
        made = apply([one for one, _, _ in request.features], {**stored, **request_fields(request.view, rows)}, times)
        out += [Column(name=shown, values=made[one.name], type=type_) for one, shown, type_ in request.features]
    return out


def _read(plan: Plan, rows: Rows, t: int, reader: OnlineReader) -> list[ReadResult]:
    """What is stored, view by view, of one moment of the store; one view under several names is read for each."""
    if not plan.views:
        return []
    length = len(next(iter(rows.values())))
    asked = [(view.declaration.name, _ids(view, rows, length)) for view in plan.views]
    if len(dict(asked)) < len(asked):
        return [reader.read(view, ids, t) for view, ids in asked]
    read = reader.read_many(asked, t)
    return [read[view] for view, _ in asked]


def track(seconds: float) -> None:
    """Count the read in Feast's metrics, where its server has them on."""
    if metrics._config.online_features:  # noqa: SLF001 - as Feast's own stores ask
        metrics.track_online_store_read(seconds)


def _ids(view: PlannedView, rows: Rows, length: int) -> Sequence[str | None]:
    if len(view.key_columns) == 1:
        return rows[view.key_columns[0]]
    return [entity_id({key: rows[key][row] for key in view.key_columns}, view.key_columns) for row in range(length)]


def _values(column: Any) -> list[Any]:  # noqa: ANN401 - Feast lets columns be lists or protobufs
    values = list(column.val) if isinstance(column, RepeatedValue) else list(column)
    if values and isinstance(values[0], ValueProto):
        return [feast_value_type_to_python_type(one) for one in values]
    return values
