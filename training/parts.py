"""The parts of a model: a network and what joined it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

NETWORK, TOGETHER = "network", "together"

PART = "part_"
"""Begins the columns of what each part of the model answered alone: neither the model nor a baseline."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a model is made of: `weights` by part; `validation`: the metric of each part alone and of them together.

    `roots`: of a blend, by how many square roots the shares of each are flattened.
    """

    weights: dict[str, float]
    validation: dict[str, float]
    roots: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For metrics.json."""
        flat = {"roots": self.roots} if self.roots else {}
        return {"weights": self.weights, "validation": self.validation, **flat}


def part_names(predictions: pa.Table) -> list[str]:
    """The parts of the model whose own answers were kept; none where the model is one."""
    return [name.removeprefix(PART) for name in predictions.column_names if name.startswith(PART)]
