"""What a returning user will spend: learned from those of the training range who returned, chosen on validation.

Expected value = probability x spend given that he returns, the latter a table of means over bins of one or two
aggregates (clicktrail.value_table).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clicktrail.value_table import ValueTable, bins
from training.training_set import TRAIN, VALIDATION, TrainingSet

_BINS = 8
_WEIGHT = 20.0
"""The overall mean weighs as much as this many users in a bin's."""


def fit_value(data: TrainingSet, probability: np.ndarray) -> ValueTable | None:
    """The table of least squared error of the expected value on validation, level with the sum spent there.

    Of all aggregates the best one is an axis, and a second one if that is better still.

    Args:
        data: a binary training set; `value` holds what came after each example.
        probability: of the validation examples, float64 [validation].

    Returns:
        None where the set has no values, or nobody who returned spent anything.
    """
    places, validation = data.of(TRAIN), data.of(VALIDATION)
    if data.value is None:
        return None
    came = places[data.target[places] == 1]
    if not data.value[came].sum():
        return None

    def judged(names: tuple[str, ...]) -> tuple[float, tuple[str, ...], ValueTable]:
        table = _table(data, names, came)
        return _rmse(expected(data, table, validation, probability), true), names, table

    true, scalars = data.value[validation], data.encoding.spec.scalars
    found = [judged(()), *(judged((one,)) for one in scalars)]
    error, names, best = min(found, key=lambda one: one[:2])
    if names:
        found = [judged((*names, one)) for one in scalars if one not in names]
        better = min(found, key=lambda one: one[:2], default=(np.inf, (), best))
        best = better[2] if better[0] < error else best
    said = expected(data, best, validation, probability).sum()
    level = true.sum() / said if said else 1.0
    return replace(best, values=best.values * level, mean=best.mean * level)


def expected(data: TrainingSet, table: ValueTable, places: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Expected value of examples, minor units, float64 [places]."""
    return probability * table(_columns(data, table.features, places), len(places))


def value_metrics(
    data: TrainingSet, table: ValueTable, places: np.ndarray, probability: np.ndarray
) -> dict[str, object]:
    """Errors of the expected value on examples, beside those of one mean for all (that of validation); minor units."""
    assert data.value is not None  # noqa: S101 - there is a table
    said, true = expected(data, table, places, probability), data.value[places].astype(np.float64)
    mean = np.full(len(true), data.value[data.of(VALIDATION)].mean())
    return {
        "features": list(table.features),
        "mae": float(np.abs(said - true).mean()),
        "mae_of_mean": float(np.abs(mean - true).mean()),
        "rmse": _rmse(said, true),
        "rmse_of_mean": _rmse(mean, true),
        "expected_total": float(said.sum()),
        "true_total": float(true.sum()),
    }


def _table(data: TrainingSet, names: Sequence[str], came: np.ndarray) -> ValueTable:
    assert data.value is not None  # noqa: S101 - asked for where there are values
    value = data.value[came].astype(np.float64)
    mean = float(value.mean())
    columns = _columns(data, names, came)
    edges = tuple(_edges(column) for column in columns)
    shape = tuple(len(one) + 2 for one in edges)
    cell = np.zeros(len(came), np.int64)
    if names:
        cell = np.ravel_multi_index([bins(one, edge) for one, edge in zip(columns, edges, strict=True)], shape)
    size = int(np.prod(shape))
    total = np.bincount(cell, weights=value, minlength=size)
    count = np.bincount(cell, minlength=size)
    values = (total + _WEIGHT * mean) / (count + _WEIGHT)
    return ValueTable(features=tuple(names), edges=edges, values=values.reshape(shape), mean=mean)


def _edges(column: np.ndarray) -> tuple[float, ...]:
    known = column[~np.isnan(column)]
    if not len(known):
        return ()
    return tuple(np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)).tolist())


def _columns(data: TrainingSet, names: Sequence[str], places: np.ndarray) -> list[np.ndarray]:
    return [data.scalars[name].to_numpy()[places].astype(np.float64) for name in names]


def _rmse(said: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((said - true) ** 2)))
