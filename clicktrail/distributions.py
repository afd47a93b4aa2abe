"""How the values of a feature lie in a sample: what a plan prints and the catalogue's page draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from clicktrail.clock import microseconds
from clicktrail.declarations import Declaration

Measure = Literal["value", "time", "length", "share", "text"]

BINS = 20
_EXAMPLES = 3
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A feature's values in a sample.

    `measured` says what the numbers are of: the values, the lengths of lists, or the labelled share of a label rate.
    `low`, `mean`, `high` and `bins` leave out nulls, and are None or empty where there is nothing to measure;
    `bins` counts in equal steps from `low` to `high`. Times are measured in microseconds. `examples`: the
    most frequent values as texts, of lists the longest one.
    """

    rows: int
    nulls: int
    measured: Measure
    low: float | None
    mean: float | None
    high: float | None
    bins: tuple[int, ...]
    examples: tuple[str, ...]

    @property
    def null_share(self) -> float:
        """Nulls of all rows."""
        return self.nulls / self.rows if self.rows else 0.0


def distribution(declaration: Declaration, feature: str, column: pa.Array) -> Distribution:
    """How the values of a feature lie; `column` as the online and the offline door give it, [rows]."""
    rates = {one.name for one in declaration.aggregates if one.kind == "label_rate"}
    return distribution_of(column, rate=feature in rates)


def distribution_of(column: pa.Array, *, rate: bool = False) -> Distribution:
    """How the values of a column lie, [rows]; `rate`: its lists are [labelled, all]."""
    values = column.to_pylist()
    there = [value for value in values if value is not None]
    measured, numbers = _shares(there) if rate else _numbers(column.type, there)
    low, high = min(numbers, default=None), max(numbers, default=None)
    return Distribution(
        rows=len(values),
        nulls=len(values) - len(there),
        measured=measured,
        low=low,
        mean=sum(numbers) / len(numbers) if numbers else None,
        high=high,
        bins=_bins(numbers),
        examples=_examples(there, longest=measured == "length"),
    )


def _shares(values: Sequence[Any]) -> tuple[Measure, list[float]]:
    return "share", [labelled / every for labelled, every in values if every]


def _numbers(type_: pa.DataType, values: Sequence[Any]) -> tuple[Measure, list[float]]:
    """What is measured of the values that are not null, and the numbers."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return "length", [float(len(value)) for value in values]
    if pa.types.is_timestamp(type_):
        return "time", [float(microseconds(value)) for value in values]
    if pa.types.is_string(type_) or pa.types.is_dictionary(type_):
        return "text", []
    return "value", [float(value) for value in values]


def _bins(numbers: Sequence[float]) -> tuple[int, ...]:
    if not numbers:
        return ()
    low, high = min(numbers), max(numbers)
    if low == high:
        return (len(numbers),)
    counts = Counter(min(int((number - low) / (high - low) * BINS), BINS - 1) for number in numbers)
    return tuple(counts[place] for place in range(BINS))


def _examples(values: Sequence[Any], *, longest: bool) -> tuple[str, ...]:
    if longest:
        return (plain(max(values, key=len)),) if values else ()
    frequent = Counter(plain(value) for value in values).most_common(_EXAMPLES)
    return tuple(text for text, _ in frequent)


def plain(value: Any) -> str:  # noqa: ANN401 - a value of any feature
    """A value as a short text; of a long list its newest elements."""
    if isinstance(value, list):
        newest = ", ".join(plain(one) for one in value[-_SHOWN:])
        return f"[{'... ' if len(value) > _SHOWN else ''}{newest}]"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
