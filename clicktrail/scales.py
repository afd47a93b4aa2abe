"""Numbers for models: log scales, quantile edges, buckets of time, smoothed rates. Pure functions of numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TIME_BUCKETS = 50
RATE_STRENGTH = 5.0
"""The overall rate weighs as much as this many events in a smoothed label rate."""

PIECES = 8
"""Pieces of the piecewise-linear form of a request value."""

_MICROSECONDS = 1_000_000
_DAY, _HOUR = 86_400 * _MICROSECONDS, 3_600 * _MICROSECONDS
_CLIP = 6.0
_QUANTILES = np.concatenate([np.linspace(0, 0.96, 25), [0.98, 0.99, 0.995, 1.0]])


def signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|), float64; nan stays nan."""
    return np.sign(values) * np.log1p(np.abs(np.asarray(values, np.float64)))


def smoothed_rate(labelled: np.ndarray, total: np.ndarray, prior: float) -> np.ndarray:
    """Labelled / total, drawn towards `prior` where it rests on little: the one division of label rates."""
    return (labelled + RATE_STRENGTH * prior) / (total + RATE_STRENGTH)


def time_bucket(seconds: np.ndarray) -> np.ndarray:
    """1 + floor(2 log2(1 + seconds)), at most TIME_BUCKETS - 1, int64; negative counts as 0, nan is 0."""
    known = np.nan_to_num(np.maximum(seconds, 0))
    raw = 1 + np.minimum(np.floor(2 * np.log2(1 + known)), TIME_BUCKETS - 2)
    return np.where(np.isnan(seconds), 0, raw).astype(np.int64)


def time_number(seconds: np.ndarray) -> np.ndarray:
    """Length of time between -1 (nothing) and about 1 (half a year), float64."""
    return np.log1p(np.maximum(seconds, 0)) / 8 - 1


def hour_and_weekday(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day (1..24) and day of the week (1 Monday .. 7 Sunday) of microseconds UTC."""
    return 1 + t % _DAY // _HOUR, 1 + (t // _DAY + 3) % 7  # 1970-01-01 was a Thursday


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A number becomes (signed log1p - mean) / std; `edges` are quantiles of that, rising, each once."""

    mean: float
    std: float
    edges: tuple[float, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scaled values, float64; nan stays nan."""
        return np.clip((signed_log(values) - self.mean) / self.std, -_CLIP, _CLIP)

    def bucket(self, values: np.ndarray) -> np.ndarray:
        """1 + how many edges the scaled value reaches, int64; 0 for nan."""
        return np.where(np.isnan(values), 0, 1 + np.searchsorted(self.edges, self(values), side="right"))

    @classmethod
    def fit(cls, values: np.ndarray) -> Scale:
        """From the values of the training range; nan is left out."""
        logs = signed_log(values[~np.isnan(values)])
        if not len(logs):
            return cls(mean=0.0, std=1.0, edges=(0.0,))
        mean, std = float(logs.mean()), float(logs.std())
        std = std if std > 1e-6 else 1.0  # noqa: PLR2004 - a constant number
        scaled = np.clip((logs - mean) / std, -_CLIP, _CLIP)
        return cls(mean=mean, std=std, edges=tuple(np.unique(np.quantile(scaled, _QUANTILES)).tolist()))
