"""A finished run, read back from its folder: all that the report, the model card and the closing table need."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.evaluation import is_ranking, share_of_gap

MODEL, ORACLE = "model", "oracle"
METRICS_FILE, CONFIG_FILE, PREDICTIONS_FILE, CURVES_FILE = (
    "metrics.json",
    "config.json",
    "predictions.parquet",
    "curves.csv",
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left.

    `metrics` and `config` are the JSON files; `predictions` one row a test example; `curves` float64 [steps] by
    column, NaN where a column has no entry at a step.
    """

    path: Path
    metrics: dict[str, Any]
    config: dict[str, Any] = field(repr=False)
    predictions: pa.Table = field(repr=False)
    curves: dict[str, NDArray[np.float64]] = field(repr=False)

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.metrics["task"])

    @property
    def name(self) -> str:
        """The run's id: its folder has another name until it is published."""
        return str(self.metrics.get("run_id") or self.path.resolve().name)

    @property
    def metric(self) -> str:
        """The primary metric."""
        return str(self.metrics["primary_metric"])

    @property
    def ranking(self) -> bool:
        """Whether items are ranked (otherwise: a probability is given)."""
        return is_ranking(self.metric)

    @property
    def head(self) -> str:
        """What is predicted: `next_item`, `binary`, `multiclass`, `count` or `time`."""
        return str(self.metrics.get("head") or ("next_item" if self.ranking else "binary"))

    @property
    def question(self) -> str:
        """What is predicted, as a question."""
        return question(self.metrics)

    @property
    def labels(self) -> NDArray[np.int64]:
        """[n], 0 or 1; binary tasks alone."""
        return np.asarray(self.predictions["label"].to_numpy(), dtype=np.int64)

    @property
    def groups(self) -> NDArray[Any] | None:
        """[n], whose example it is, or None when the run did not keep it."""
        return self.predictions["group"].to_numpy() if "group" in self.predictions.column_names else None

    def methods(self) -> dict[str, NDArray[np.float64]]:
        """Scores or ranks [n] by method: the model, then baselines, then the oracle; NaN where a truth is missing."""
        kind = "rank" if self.ranking else "score"
        prefix = f"{kind}_"
        names = [name for name in self.predictions.column_names if name.startswith(prefix)]
        baselines = sorted(name for name in names if name != prefix + ORACLE)
        columns = {MODEL: kind} | {name.removeprefix(prefix): name for name in baselines}
        if prefix + ORACLE in names:
            columns[ORACLE] = prefix + ORACLE
        return {
            method: np.asarray(self.predictions[column].cast(pa.float64()).to_numpy(), dtype=np.float64)
            for method, column in columns.items()
        }

    def seconds(self) -> float:
        """What the run took in all."""
        return total_seconds(self.metrics)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The model beside what it has to beat, in the primary metric; NaN where there is none."""

    metric: str
    model: float
    best_baseline: str
    baseline: float
    oracle: float
    share: float  # of the gap from the best baseline to the oracle
    difference: Mapping[str, float] | None  # from the best baseline: difference, low, high
    beats_all: bool | None  # every lower bound above 0; None when no interval was kept


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: a file is missing or is no JSON object: the run did not complete.
    """
    missing = [name for name in (METRICS_FILE, CONFIG_FILE, PREDICTIONS_FILE) if not (folder / name).is_file()]
    if missing:
        message = (
            f"{folder} has no {', '.join(missing)}: give the folder of a complete run, as in var/runs/fraud/latest"
        )
        raise ValueError(message)
    return Run(
        path=folder,
        metrics=read_metrics(folder),
        config=json.loads((folder / CONFIG_FILE).read_text()),
        predictions=pq.read_table(folder / PREDICTIONS_FILE),
        curves=_read_curves(folder / CURVES_FILE),
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """`metrics.json` of a run, with the keys that every run has.

    Raises:
        ValueError: a key is missing.
    """
    found: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text())
    missing = [key for key in ("task", "primary_metric", "model", "baselines") if key not in found]
    if missing:
        message = f"{folder / METRICS_FILE} lacks {', '.join(missing)}: train the task again"
        raise ValueError(message)
    return found


def standing(metrics: Mapping[str, Any]) -> Standing:
    """Where the model stands, from `metrics.json`."""
    metric = metrics["primary_metric"]
    baselines = {name: float(values[metric]) for name, values in metrics["baselines"].items() if metric in values}
    best = max(baselines, key=lambda name: baselines[name]) if baselines else ""
    model = float(metrics["model"][metric])
    oracle = float((metrics.get("oracle") or {}).get(metric) or math.nan)
    baseline = baselines.get(best, math.nan)
    differences = paired(metrics)
    return Standing(
        metric=metric,
        model=model,
        best_baseline=best,
        baseline=baseline,
        oracle=oracle,
        share=share_of_gap(model, baseline, oracle),
        difference=differences.get(best),
        beats_all=all(one["low"] > 0 for one in differences.values()) if differences else None,
    )


def paired(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Paired differences of the primary metric, model minus baseline, by baseline."""
    kept = metrics.get("intervals") or {}
    kept = kept.get(metrics["primary_metric"], kept)
    return {name: one for name, one in kept.items() if isinstance(one, Mapping) and "difference" in one}


def question(metrics: Mapping[str, Any]) -> str:
    """What a task predicts, from the run or from the task's file; its name where neither says."""
    if metrics.get("question"):
        return str(metrics["question"])
    from training.task import load_task

    try:
        return load_task(str(metrics["task"])).question
    except ValueError:
        return str(metrics["task"])


def total_seconds(metrics: Mapping[str, Any]) -> float:
    """Sum of a run's stages, or the one figure that it kept."""
    seconds = metrics.get("seconds") or 0.0
    if isinstance(seconds, Mapping):
        return float(seconds.get("total") or sum(float(one) for one in seconds.values()))
    return float(seconds)


def _read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of curves.csv; an empty cell is NaN; no file, no columns."""
    if not path.is_file():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return {}
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
