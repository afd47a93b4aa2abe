"""The search: what it leaves, that a killed one goes on, that a worse trial is given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest

from training.config_file import changed, read_config
from training.presets import preset
from training.search_space import Around, Choice, Scaled
from training.task import load_task
from training.training_set import TrainingSet, load, save
from training.tune import only_one
from training.tune_pictures import figures
from training.tune_result import importances, leave
from training.tune_study import COMPLETE, PRUNED, Problem, _Report, open_study, search

Sets = Callable[[str], TrainingSet]
SPACE = (Around("fit.rate", 10), Scaled("encoder.width", (0.5, 1)), Choice("fit.average", (0.0, 0.9)))


def problem_of(data: TrainingSet, home: Path, folds: int = 2) -> Problem:
    """Folds that are one set, tiny models."""
    config = changed(
        preset("small", "retention"), {"fit.epochs": 1, "fit.seconds": 0.0, "fit.tokens": 8_192, "encoder.width": 8}
    )
    return Problem(task=load_task("retention"), config=config, folds=[data] * folds, space=SPACE, home=home)


@pytest.mark.slow
def test_a_search_leaves_a_configuration_a_table_and_a_page(synthetic: Sets, tmp_path: Path) -> None:
    """best.json is what `--config` takes; the starting point is among the trials; nothing of the fits is left."""
    problem = problem_of(synthetic("retention"), tmp_path)
    study = open_study(problem)
    search(study, problem, trials=3, progress=False)
    text = leave(study, problem)
    first = study.trials[0]
    assert first.params == problem.own == {"fit.rate": 2e-3, "encoder.width": 8, "fit.average": 0.99}
    assert first.value == pytest.approx(sum(first.user_attrs["folds"]) / 2)
    best = read_config(tmp_path / "best.json", "retention")
    assert best == changed(problem.config, study.best_params)
    assert json.loads((tmp_path / "best.json").read_text())["tuned"]["value"] == study.best_value
    assert f"{study.best_value:.4f}" in text
    assert "make train TASK=retention" in text
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 3
    page = (tmp_path / "tune.html").read_text()
    assert page.count("<svg") == len(figures(pd.read_csv(tmp_path / "trials.csv"), list(problem.own), {}, "AUC"))
    assert "http" not in page.replace("http://www.w3.org", "")
    assert list((tmp_path / "work").iterdir()) == []
    search(study, problem, trials=3, progress=False)
    assert len(study.trials) == 3, "a study that has its trials gets no more"


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trial_that_was_cut_short(synthetic: Sets, tmp_path: Path) -> None:
    """Killed in the first epoch, then started again: that trial is tried once more, and no other is done twice."""
    save(synthetic("retention"), tmp_path / "set")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_tune import problem_of\n"
        "from training.training_set import load\n"
        "from training.tune_study import open_study, search\n"
        "problem = problem_of(load(Path(sys.argv[2]) / 'set'), Path(sys.argv[2]) / 'home', folds=1)\n"
        "search(open_study(problem), problem, trials=2, progress=False)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    killed = subprocess.run(
        command, env=os.environ | {"CLICKTRAIL_FAILPOINT": "tune.epoch"}, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert list((tmp_path / "home" / "work").iterdir()), "killed in the middle of a fit"
    problem = problem_of(load(tmp_path / "set"), tmp_path / "home", folds=1)
    study = open_study(problem)
    search(study, problem, trials=2, progress=False)
    states = [trial.state for trial in study.trials]
    assert states == [optuna.trial.TrialState.FAIL, COMPLETE, COMPLETE]
    assert study.trials[1].params == study.trials[0].params == problem.own
    assert study.trials[2].params != problem.own


def test_a_trial_that_does_worse_than_most_at_the_same_epoch_is_given_up() -> None:
    """Five trials came to their end; a sixth, below all of them in its third epoch, does not."""
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(5, 1))
    for level in (0.5, 0.6, 0.7, 0.8, 0.9):
        trial = study.ask()
        for step in range(3):
            trial.report(level, step)
        study.tell(trial, level)
    report = _Report(study.ask(), first_step=0, before=0.0, folds=1)
    trainer = _Trainer([0.4, 0.45, 0.45])
    report.on_validation_end(trainer, None)  # type: ignore[arg-type] - only the metrics are looked at
    with pytest.raises(optuna.TrialPruned):
        report.on_validation_end(trainer, None)  # type: ignore[arg-type]


def test_what_is_reported_only_grows_from_fold_to_fold() -> None:
    """A second fold that is harder than the first does not hide behind it: 0.8, then (0.8 + 0.3) / 2."""
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    for number, (before, values) in enumerate([(0.0, [0.8, 0.6]), (0.8, [0.3, 0.2])]):
        report, trainer = _Report(trial, first_step=2 * number, before=before, folds=2), _Trainer(values)
        for _ in values:
            report.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert study.trials[0].intermediate_values == pytest.approx({0: 0.4, 1: 0.4, 2: 0.55, 3: 0.55})


def test_what_mattered_is_told_once_there_are_trials_enough() -> None:
    """Of two choices, the one that makes the value explains nearly all; three trials explain nothing."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

    def value(trial: optuna.Trial) -> float:
        trial.suggest_float("idle", 0, 1)
        return trial.suggest_float("telling", 0, 1)

    study.optimize(value, n_trials=3)
    assert importances(study) == {}
    study.optimize(value, n_trials=12)
    assert importances(study)["telling"] > 0.8
    assert study.get_trials(states=(PRUNED,)) == []


def test_two_searches_of_a_task_do_not_run_at_once(tmp_path: Path) -> None:
    """The second says so; when the first is over the folder is free."""
    with only_one(tmp_path), pytest.raises(ValueError, match="another search is at work"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


class _Trainer:
    """What an epoch brought, one epoch after the other."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    @property
    def callback_metrics(self) -> dict[str, float]:
        return {"val_metric": next(self.values)}
