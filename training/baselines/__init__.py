"""Baselines that a model has to beat: what a careful engineer would deploy without a neural network.

They see what the model sees, no more and no less: the same examples, histories and scalar features, fitted on the
training range, their few settings chosen on the validation range alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RankingExamples:
    """Next-item examples over a shared flat history.

    Row r's history is items[starts[r]:ends[r]], oldest first; histories of the same user overlap.

    Attributes:
        items: int [m], item codes 0 .. items - 1; -1 for an item that is unknown or an event without one.
        starts: int64 [n].
        ends: int64 [n].
        targets: int64 [n], code of the item that came next, -1 when it is unknown.
        times: int64 [n], microseconds UTC at which the example asks.
    """

    items: NDArray[np.integer]
    starts: Ints
    ends: Ints
    targets: Ints
    times: Ints

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        lengths = {name: len(getattr(self, name)) for name in ("starts", "ends", "targets", "times")}
        if len(set(lengths.values())) != 1:
            message = f"one entry per example is needed, got {lengths}"
            raise ValueError(message)
        if len(self.starts) and (self.starts.min() < 0 or self.ends.max() > len(self.items)):
            message = (
                f"starts and ends reach from {self.starts.min()} to {self.ends.max()}, items hold {len(self.items)}"
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Examples."""
        return len(self.starts)

    def take(self, rows: Ints) -> RankingExamples:
        """The examples at `rows`, over the same flat history."""
        return RankingExamples(
            items=self.items,
            starts=self.starts[rows],
            ends=self.ends[rows],
            targets=self.targets[rows],
            times=self.times[rows],
        )


@dataclass(frozen=True, kw_only=True)
class ScalarExamples:
    """Binary examples over scalar features.

    Attributes:
        values: float64 [n, f], NaN for null.
        names: f feature names, as in `user_activity_v1__count_view_7d`.
        labels: int [n], 0 or 1.
    """

    values: Floats
    names: Sequence[str]
    labels: Ints

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if self.values.ndim != 2 or self.values.shape != (len(self.labels), len(self.names)):  # noqa: PLR2004
            message = (
                f"values have shape {self.values.shape} for {len(self.labels)} labels and {len(self.names)} names: "
                "pass one row a label and one column a name"
            )
            raise ValueError(message)
        if np.isinf(self.values).any():
            row, column = np.argwhere(np.isinf(self.values))[0]
            message = f"feature {self.names[column]} is infinite in row {row}: pass NaN for null"
            raise ValueError(message)

    def __len__(self) -> int:
        """Examples."""
        return len(self.labels)

    def take(self, rows: Ints) -> ScalarExamples:
        """The examples at `rows`."""
        return ScalarExamples(values=self.values[rows], names=self.names, labels=self.labels[rows])


def subsample(n: int, most: int, seed: int) -> Ints:
    """At most `most` of the rows 0 .. n - 1, in order, chosen without replacement."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, size=most, replace=False))
