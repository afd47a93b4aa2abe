"""What a search leaves: `best.json`, `trials.csv`, a page with pictures, and a table for the terminal."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from clicktrail.publish import publish_bytes
from training import tune_pictures
from training.config_file import changed
from training.page import render
from training.task import Task
from training.training_set import TrainingSet
from training.tune_study import COMPLETE, PRUNED, Problem
from training.wording import number, title

BEST_FILE, TRIALS_FILE, PAGE_FILE = "best.json", "trials.csv", "tune.html"
_SHOWN = 8  # trials in the terminal's table
_TELLING = 6  # with fewer complete trials, nothing can be said of what mattered


def leave(study: optuna.Study, problem: Problem) -> str:
    """Write the files of a study into its home; gives the closing table.

    Raises:
        ValueError: no trial came to its end yet.
    """
    task, home = problem.task, problem.home
    if not study.get_trials(deepcopy=False, states=(COMPLETE,)):
        message = f"no trial of {task.name} came to its end yet: give the search longer (--seconds, --trials)"
        raise ValueError(message)
    trials = table_of(study)
    names = sorted(study.best_params)
    kept = changed(problem.config, study.best_params).to_json() | {"task": task.name, "tuned": _origin(study, problem)}
    text, own = json.dumps(kept, indent=1), _own_value(study, problem)
    page = {
        "task": task,
        "metric": title(task.primary_metric),
        "trials": trials.sort_values("value", ascending=False).to_dict("records"),
        "names": names,
        "own": own,
        "best": float(study.best_value),
        "spans": [_span(fold) for fold in problem.folds],
        "figures": tune_pictures.figures(trials, names, importances(study), title(task.primary_metric)),
        "best_json": text,
        "seconds": float(trials["seconds"].sum()),
    }
    publish_bytes(home / PAGE_FILE, render("tune.html.j2", page), "tune")
    publish_bytes(home / TRIALS_FILE, trials.to_csv(index=False).encode(), "tune")
    publish_bytes(home / BEST_FILE, text.encode(), "tune")
    return closing(trials, names, own, task, home)


def table_of(study: optuna.Study) -> pd.DataFrame:
    """One row a trial that ended: `trial`, `value` (NaN: given up), `spread` between folds, `seconds`, its choices."""
    rows = []
    for one in study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED)):
        folds = one.user_attrs.get("folds", [])
        rows.append(
            {
                "trial": one.number,
                "value": one.value if one.state == COMPLETE and one.value is not None else math.nan,
                "spread": float(np.std(folds)) if one.state == COMPLETE else math.nan,
                "seconds": one.user_attrs.get("seconds", math.nan),
                **one.params,
            }
        )
    return pd.DataFrame(rows)


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of the variance between trials by choice (fANOVA); empty where too few trials say nothing."""
    if len(study.get_trials(deepcopy=False, states=(COMPLETE,))) < _TELLING:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trees on few trials
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return {
            name: float(value)
            for name, value in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
        }


def closing(trials: pd.DataFrame, names: Sequence[str], own: float, task: Task, home: Path) -> str:
    """The best trials as a table for a terminal, where everything is, and the next command."""
    best = trials.sort_values("value", ascending=False).dropna(subset=["value"]).head(_SHOWN)
    telling = [name for name in names if len(trials[name].unique()) > 1]
    head = ["trial", task.primary_metric, "spread", "seconds", *(name.rpartition(".")[2] for name in telling)]
    rows = [
        [str(row["trial"]), f"{row['value']:.4f}", f"{row['spread']:.4f}", f"{row['seconds']:.0f}"]
        + [number(_plain(row[name])) for name in telling]
        for row in best.to_dict("records")
    ]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    given_up = int(trials["value"].isna().sum())
    return "\n".join(
        [
            lines[0],
            "-" * len(lines[0]),
            *lines[1:],
            "",
            f"{len(trials)} trials, {given_up} of them given up; what the search started from: {own:.4f}",
            "spread: standard deviation between folds",
            f"page  {home / PAGE_FILE}",
            f'next  make train TASK={task.name} ARGS="--config {home / BEST_FILE}"',
        ]
    )


def _own_value(study: optuna.Study, problem: Problem) -> float:
    """What the starting point brought on the same folds; NaN where its trial did not come to its end."""
    same = [one.value for one in study.get_trials(deepcopy=False, states=(COMPLETE,)) if one.params == problem.own]
    return float(same[0]) if same and same[0] is not None else math.nan


def _origin(study: optuna.Study, problem: Problem) -> dict[str, Any]:
    """What best.json says of how it was found."""
    return {
        "study": study.study_name,
        "trial": study.best_trial.number,
        "trials": len(study.trials),
        "metric": problem.task.primary_metric,
        "value": study.best_value,
        "folds": study.best_trial.user_attrs["folds"],
        "training_sets": [fold.digest for fold in problem.folds],
    }


def _span(fold: TrainingSet) -> list[str]:
    """First and last day of what a fold is judged on."""
    parts = fold.manifest["time_split"]
    return [f"{datetime.fromtimestamp(parts[f'validation_{end}'] / 1e6, UTC):%Y-%m-%d}" for end in ("start", "end")]


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell of a data frame
    return value.item() if isinstance(value, np.generic) else value
