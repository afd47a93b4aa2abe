"""Scales of numbers for models: logarithms about their mean, and quantile edges of those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clicktrail.kernels.encode_numbers import CLIP, signed_logs

PIECES = 8
"""Pieces of the piecewise-linear form of a request value."""

_QUANTILES = np.concatenate([np.linspace(0, 0.96, 25), [0.98, 0.99, 0.995, 1.0]])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A number becomes (signed log1p - mean) / std; `edges` are quantiles of that, rising, each once."""

    mean: float
    std: float
    edges: tuple[float, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scaled values, float64; nan stays nan."""
        return np.clip((_logs(values) - self.mean) / self.std, -CLIP, CLIP)

    def bucket(self, values: np.ndarray) -> np.ndarray:
        """1 + how many edges the scaled value reaches, int64; 0 for nan."""
        return np.where(np.isnan(values), 0, 1 + np.searchsorted(self.edges, self(values), side="right"))

    @classmethod
    def fit(cls, values: np.ndarray) -> Scale:
        """From the values of the training range; nan is left out."""
        logs = _logs(values[~np.isnan(values)])
        if not len(logs):
            return cls(mean=0.0, std=1.0, edges=(0.0,))
        mean, std = float(logs.mean()), float(logs.std())
        std = std if std > 1e-6 else 1.0  # noqa: PLR2004 - a constant number
        scaled = np.clip((logs - mean) / std, -CLIP, CLIP)
        return cls(mean=mean, std=std, edges=tuple(np.unique(np.quantile(scaled, _QUANTILES)).tolist()))


def _logs(values: np.ndarray) -> np.ndarray:
    """Signed logarithms, float64 [N]."""
    logs = np.array(values, np.float64)
    signed_logs(logs)
    return logs
