"""Answers of classes, counts and times on the test examples, and what they are worth: a run's part of these heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from training.evaluation import LOG_LIKELIHOOD, paired_bootstrap
from training.head_baselines import head_baseline
from training.head_metrics import log_likelihoods, metrics_of
from training.head_predictions import SCORE, answers_in, labels_in, lists
from training.measured import measured
from training.model import SequenceModel
from training.scoring import predict
from training.split import TimeSplit
from training.task import Task
from training.training_set import TEST, TrainingSet


def head_answers(task: Task, data: TrainingSet, model: SequenceModel, say: Callable[[str], None]) -> dict[str, Any]:
    """Columns of predictions.parquet, rows as the test examples: labels, and what model and baselines answered."""
    test = data.of(TEST)
    found, target = predict(model, data, test), data.target[test]
    columns: dict[str, Any] = {"label": target}
    if task.head == "time":
        cut = TimeSplit(**data.manifest["time_split"]).cuts[TEST]
        watched = (cut - task.label_delay.total_seconds() * 1e6 - data.t[test]) / 1e6
        columns = {"seconds": target[:, 0], "seen": target[:, 1] == 1, "watched": watched, "median": found["median"]}
    columns[SCORE] = lists(found["score"])
    for name in task.baselines:
        columns[f"{SCORE}_{name}"] = lists(head_baseline(name, data, test))
        say(f"{task.name}: baseline {name} done")
    return columns


def head_measures(task: Task, manifest: dict[str, Any], predictions: pa.Table) -> dict[str, Any]:
    """metrics.json without what was measured elsewhere; anybody can compute it again from the predictions."""
    described = {"head": task.head} | {name: manifest[name] for name in ("classes", "edges") if name in manifest}
    labels, found = labels_in(task.head, predictions), answers_in(predictions)
    watched = predictions["watched"].to_numpy() if task.head == "time" else None
    worth = {name: metrics_of(described, labels, one, watched) for name, one in found.items()}
    own = {name: log_likelihoods(described, labels, one) for name, one in found.items()}
    known = ~np.isnan(own[""])
    groups = predictions["group"].to_numpy()[known]
    intervals = {
        name: paired_bootstrap(LOG_LIKELIHOOD, own[""][known], own[name][known], groups=groups)
        for name in task.baselines
    }
    model = worth.pop("")
    told = {**described, "score_columns": score_columns(described), "threshold": None}
    return measured(task, model, worth, intervals) | told


def score_columns(described: dict[str, Any]) -> list[str]:
    """What stands in a list of scores."""
    if described["head"] == "multiclass":
        return [str(name) for name in described["classes"]]
    if described["head"] == "count":
        return ["expected", "at least one", "shape"]
    return [f"by {edge:g} s" for edge in described["edges"]]
