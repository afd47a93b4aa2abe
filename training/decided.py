"""What validation decides beside the weights: the threshold, how scores become probabilities, what a return brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.value_table import ValueTable
from training.calibration import NONE, Curve, choose_curve, worth
from training.evaluation import binary_metrics, choose_threshold
from training.fit import Fitted
from training.scoring import predict
from training.task import Task
from training.training_set import TEST, VALIDATION, TrainingSet
from training.value import fit_value, value_metrics


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Nothing at all but for a binary task; `calibration` is what the export says of `curve`."""

    threshold: float | None = None
    curve: Curve = NONE
    calibration: dict[str, Any] | None = None
    value: ValueTable | None = None

    def worth(self, data: TrainingSet, predictions: pa.Table) -> dict[str, Any]:
        """For metrics.json: what curve and values are worth on the test examples, rows as in `predictions`."""
        if self.calibration is None:
            return {}
        score, label = predictions["score"].to_numpy(), predictions["label"].to_numpy()
        found: dict[str, Any] = {"calibration": worth(label, score, self.curve)}
        if self.value is not None:
            found["value"] = value_metrics(data, self.value, data.of(TEST), self.curve(score))
        return found


def decide_on_validation(task: Task, data: TrainingSet, fitted: Fitted) -> Decided:
    """The threshold of best F1, the curve and the values of a binary task."""
    if task.head != "binary":
        return Decided()
    places = data.of(VALIDATION)
    score = np.asarray(predict(fitted.model, data, places)["score"], np.float64)
    label = data.target[places]
    curve = choose_curve(label, score, data.t[places])
    return Decided(
        threshold=choose_threshold(label, score),
        curve=curve,
        calibration={
            "measured_on": "validation",
            "mean_score": float(score.mean()),
            "mean_label": float(label.mean()),
            "ece": binary_metrics(label, score, 0.5)["ece"],
            "method": curve.method,
            "points": curve.points,
        },
        value=fit_value(data, curve(score)),
    )
