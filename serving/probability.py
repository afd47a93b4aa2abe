"""Scores as probabilities, by the curve that the run fitted on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def curve_of(interface: Mapping[str, Any]) -> Callable[[float], float]:
    """Probability of a score; the score itself where the run found nothing to mend."""
    points = (interface.get("calibration") or {}).get("points")
    if points is None:
        return float
    score, probability = np.array(points["score"]), np.array(points["probability"])
    return lambda one: float(np.interp(one, score, probability))
