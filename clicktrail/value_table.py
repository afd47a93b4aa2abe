"""What an entity is worth if the event comes: a table over bins of a few features, used by training and serving alike.

numpy in and out, plain JSON on the way; imports nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Values by bin.

    `features`: names (view__feature) of the axes; `edges`: of each, rising; `values`: float64, an axis a feature of
    len(edges) + 2 bins: null, below the first edge, ..., from the last edge on. `mean`: what is said of somebody of
    whom nothing is known. Without features `values` is that one number.
    """

    features: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    values: np.ndarray
    mean: float

    def __call__(self, columns: Sequence[np.ndarray], rows: int) -> np.ndarray:
        """Values float64 [rows]; `columns`: each feature as float64 [rows], nan for null."""
        places = tuple(bins(column, edges) for column, edges in zip(columns, self.edges, strict=True))
        return self.values[places] if places else np.full(rows, float(self.values))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "features": list(self.features),
            "edges": [list(one) for one in self.edges],
            "values": self.values.tolist(),
            "mean": self.mean,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ValueTable:
        """What `to_json` wrote."""
        return cls(
            features=tuple(data["features"]),
            edges=tuple(tuple(one) for one in data["edges"]),
            values=np.array(data["values"], np.float64),
            mean=float(data["mean"]),
        )


def bins(column: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """0 for nan, else 1 + how many edges the value reaches, int64 [rows]."""
    return np.where(np.isnan(column), 0, 1 + np.searchsorted(np.asarray(edges), column, side="right"))
