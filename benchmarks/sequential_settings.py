"""Settings of the neural model by what the data is like; found on validation ranges (docs/measurements.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.sequential_data import Interactions
from training.config import EncoderConfig, Family, FitConfig, LossConfig, RunConfig

_DENSE = 50
"""Events an item from which on a set counts as dense."""
_FULL = 16_384
"""So many items at most are all negatives: a third of the speed of drawn ones, and worth it."""
_SHORT, _LONG = 50, 200
_REACH = 0.95


def length(data: Interactions) -> int:
    """Events of a history that the model reads: as many as all but the longest users have, from 50 to 200."""
    most = float(np.quantile(np.diff(data.first), _REACH))
    return int(np.clip(np.ceil(most / _SHORT) * _SHORT, _SHORT, _LONG))


def settings(data: Interactions, *, family: Family, seed: int, epochs: int | None = None) -> RunConfig:
    """A configuration for these interactions."""
    dense = len(data.user) >= _DENSE * len(data.items)
    encoder = EncoderConfig(family=family, width=64, layers=2, heads=2, dropout=0.2 if dense else 0.3)
    fit = FitConfig(
        epochs=24 if dense else 12,
        tokens=3_072 if dense else 1_024,
        rate=2e-3,
        average=0.999 if dense else 0.99,
        patience=0,
        loss=LossConfig(kind="full" if dense else "auto", full_up_to=_FULL, negatives=512),
    )
    config = RunConfig(preset="sequential", seed=seed, encoder=encoder, fit=fit, head_dropout=encoder.dropout)
    return config if epochs is None else replace(config, fit=replace(fit, epochs=epochs))
