"""The answer to an online read: Arrow columns, and Feast's other forms of them made when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp

from clicktrail.contract import MICROSECONDS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the answer, [rows].

    `found`: of whom something is known, None: of all. `watermark`: up to when the state knew, microseconds UTC; 0
    for what came with the request or was made of it.
    """

    name: str
    values: pa.Array
    type: ValueType
    found: Sequence[bool] | None = None
    watermark: int = 0


class EventLogResponse(OnlineResponse):
    """What `get_online_features` returns; times inside keep their microseconds, which Feast's protobuf cuts off."""

    def __init__(
        self, columns: Sequence[Column], others: OnlineResponse | None = None, versions: dict[str, int] | None = None
    ) -> None:
        """`others` is Feast's answer for views of other sources; `versions` of views are shown in the protobuf."""
        self._columns = columns
        self._others = others
        self._versions = versions or {}

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:
        """Feast's protobuf: what its servers send.

        A value is PRESENT, or NOT_FOUND where nothing is known of the entity: its features are those of nothing.
        """
        out = GetOnlineFeaturesResponse()
        for column in self._columns:
            out.metadata.feature_names.val.append(column.name)
            rows = len(column.values)
            found = column.found or [True] * rows
            stamp = _timestamp(column.watermark)
            out.results.append(
                GetOnlineFeaturesResponse.FeatureVector(
                    values=python_values_to_proto_values(python_values(column.values), column.type),
                    statuses=[FieldStatus.PRESENT if one else FieldStatus.NOT_FOUND for one in found],
                    event_timestamps=[stamp] * rows,
                )
            )
        for name, version in self._versions.items():
            out.metadata.feature_view_metadata.add(name=name, version=version)
        if self._others is not None:
            mine = set(out.metadata.feature_names.val)
            theirs = self._others.proto
            for name, vector in zip(theirs.metadata.feature_names.val, theirs.results, strict=True):
                if name not in mine:
                    out.metadata.feature_names.val.append(name)
                    out.results.append(vector)
            out.metadata.feature_view_metadata.extend(theirs.metadata.feature_view_metadata)
        return out

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Feast's signature
        """Python lists by column name; with `include_event_timestamps` also whole seconds, as `<name>__ts`."""
        out: dict[str, Any] = {}
        for column in self._columns:
            out[column.name] = python_values(column.values)
            if include_event_timestamps:
                out[column.name + TIMESTAMP_POSTFIX] = [column.watermark // MICROSECONDS] * len(column.values)
        if self._others is not None:
            out = {**self._others.to_dict(include_event_timestamps), **out}
            mine = [name for column in self._columns for name in (column.name, column.name + TIMESTAMP_POSTFIX)]
            out = {**{name: out[name] for name in mine if name in out}, **out}
        return out

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:  # noqa: FBT001, FBT002 - Feast's signature
        """A table with a row for each entity row; nothing is copied."""
        names, arrays = [], []
        for column in self._columns:
            names.append(column.name)
            arrays.append(column.values)
            if include_event_timestamps:
                names.append(column.name + TIMESTAMP_POSTFIX)
                arrays.append(pa.array([column.watermark // MICROSECONDS] * len(column.values), pa.int64()))
        if self._others is not None:
            theirs = self._others.to_arrow(include_event_timestamps)
            more = [name for name in theirs.column_names if name not in names]
            names += more
            arrays += [theirs[name].combine_chunks() for name in more]
        return pa.Table.from_arrays(arrays, names)


def feast_column(column: pa.Array) -> pa.Array:
    """Values as Feast's users expect them: plain strings, and in lists "" and 0 for what is missing inside."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return column
    inner = column.type.value_type
    plain = inner.value_type if pa.types.is_dictionary(inner) else inner
    column = column.cast(pa.list_(plain))
    if not column.values.null_count:
        return column
    filled = pc.fill_null(column.values, "" if pa.types.is_string(plain) else 0)
    return pa.ListArray.from_arrays(column.offsets, filled, mask=column.is_null() if column.null_count else None)


def python_values(column: pa.Array) -> list[Any]:
    """As `to_pylist`, but lists of many values are made at once."""
    if not pa.types.is_list(column.type):
        return column.to_pylist()
    offsets = column.offsets.to_numpy()
    flat = _flat(column.values.slice(offsets[0], offsets[-1] - offsets[0]))
    ends = (offsets - offsets[0]).tolist()
    out: list[Any] = [flat[begin:end] for begin, end in pairwise(ends)]
    if column.null_count:
        return [one if valid else None for one, valid in zip(out, column.is_valid().to_pylist(), strict=True)]
    return out


def _flat(values: pa.Array) -> list[Any]:
    if values.null_count:
        return values.to_pylist()
    if pa.types.is_timestamp(values.type):
        since = values.view(pa.int64()).to_numpy().view("timedelta64[us]").tolist()
        return [_EPOCH + one for one in since]
    return values.to_numpy(zero_copy_only=False).tolist()


def _timestamp(t: int) -> Timestamp:
    seconds, rest = divmod(t, MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest * 1_000)
