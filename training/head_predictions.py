"""`predictions.parquet` of classes, counts and times.

`label`: position among `classes` of metrics.json (-1: training had not seen it), or the count; of times `seconds`,
`seen` and `watched` (seconds). `score`, the model's, and `score_<method>`: lists as in training/head_metrics.py, whose
parts `score_columns` of metrics.json names. Of times also `median`, the model's seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HEADS = ("multiclass", "count", "time")
SCORE = "score"

Floats = NDArray[np.float64]


def labels_in(head: str, predictions: pa.Table) -> NDArray[Any]:
    """Labels [n], of times [n, 2]."""
    if head == "time":
        return np.stack([predictions["seconds"].to_numpy(), predictions["seen"].to_numpy().astype(np.float64)], 1)
    labels: NDArray[Any] = predictions["label"].to_numpy()
    return labels


def answers_in(predictions: pa.Table) -> dict[str, Floats]:
    """Answers [n, P] by method; the model's under the empty name."""
    names = [name for name in predictions.column_names if name == SCORE or name.startswith(f"{SCORE}_")]
    return {name.removeprefix(SCORE).removeprefix("_"): _matrix(predictions[name]) for name in names}


def lists(answers: Floats) -> pa.Array:
    """[n, P] as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(answers.ravel()), answers.shape[1]).cast(pa.list_(pa.float64()))


def _matrix(column: pa.ChunkedArray) -> Floats:
    flat = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1)
