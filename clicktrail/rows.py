"""Features of queries before encoding: from a training set's arrays or from a server's lists, in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.input_spec import InputSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.windows import jagged_of_lists

_FEW = 64


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features of R rows before encoding.

    `sequences`: by view; `scalars`: float64 [R], nan for null, rates float64 [R, 2] (labelled, all), by
    `view__feature`; `request`: the request's fields, [R] each; `t`: int64 [R], microseconds UTC.
    """

    sequences: Mapping[str, JaggedSequence]
    scalars: Mapping[str, np.ndarray]
    request: Mapping[str, Sequence[Any]]
    t: np.ndarray


def only(rows: Rows, keep: np.ndarray) -> Rows:
    """Some of the rows; histories stay shared."""
    return Rows(
        sequences={
            view: JaggedSequence(
                values=one.values,
                dictionaries=one.dictionaries,
                nulls=one.nulls,
                starts=one.starts[keep],
                ends=one.ends[keep],
            )
            for view, one in rows.sequences.items()
        },
        scalars={name: values[keep] for name, values in rows.scalars.items()},
        request={name: [values[place] for place in keep] for name, values in rows.request.items()},
        t=rows.t[keep],
    )


def rows_of_lists(
    spec: InputSpec, features: Mapping[str, Mapping[str, Any]], request: Mapping[str, Sequence[Any]], t: np.ndarray
) -> Rows:
    """Features as a server has them, as `Rows`; see `Encoding.encode_lists`."""
    sequences = {
        one.view: jagged_of_lists({name: _feature(features, one.view, name) for name in one.fields})
        for one in spec.sequences
    }
    scalars = {name: as_floats(_feature(features, *name.split("__", 1))) for name in spec.scalars}
    scalars |= {name: as_pairs(_feature(features, *name.split("__", 1))) for name in spec.rates}
    for field in spec.request_fields:
        if field not in request:
            message = f"request field {field!r} is missing: send {', '.join(spec.request_fields)}"
            raise ValueError(message)
    return Rows(sequences=sequences, scalars=scalars, request=request, t=np.asarray(t, np.int64))


def as_floats(column: Any) -> np.ndarray:  # noqa: ANN401 - a list or an Arrow array
    """Numbers with nulls as float64 [R], nan for null."""
    values = column.to_pylist() if isinstance(column, pa.Array) and len(column) < _FEW else column
    if isinstance(values, pa.Array):
        return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def as_pairs(column: Any) -> np.ndarray:  # noqa: ANN401 - a list or an Arrow array
    """Label rates as float64 [R, 2] (labelled, all), nan for null."""
    values = column.to_pylist() if isinstance(column, pa.Array) and len(column) < _FEW else column
    if not isinstance(values, pa.Array):
        return np.array([(np.nan, np.nan) if pair is None else pair for pair in values], np.float64).reshape(-1, 2)
    out = np.full((len(values), 2), np.nan)
    known = values.is_valid().to_numpy(zero_copy_only=False)
    out[known] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    return out


def _feature(features: Mapping[str, Mapping[str, Any]], view: str, name: str) -> Any:  # noqa: ANN401
    try:
        return features[view][name]
    except KeyError:
        message = f"feature {view}:{name} is missing: the model was trained with it, so read its feature service whole"
        raise ValueError(message) from None
