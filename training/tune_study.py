"""The search itself: an Optuna study, what a trial is worth over the folds, when it is given up."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from clicktrail.publish import failpoint
from training.config import RunConfig
from training.config_file import at, changed
from training.evaluation import LOG_LIKELIHOOD
from training.fit import Accelerator, fit
from training.search_space import Space, drawn
from training.task import Task
from training.training_set import TrainingSet

COMPLETE, PRUNED, RUNNING = (
    optuna.trial.TrialState.COMPLETE,
    optuna.trial.TrialState.PRUNED,
    optuna.trial.TrialState.RUNNING,
)
_UNPRUNED = 5  # nothing is given up before so many trials came to their end
_AT_RANDOM = 8  # trials before draws follow what was found
_SEEDS = 1_000  # of draws: far from those of the next seed


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched: from `config` on through `space`, judged on `folds`; files go to `home`."""

    task: Task
    config: RunConfig
    folds: Sequence[TrainingSet]
    space: Space
    home: Path

    @property
    def name(self) -> str:
        """Names a study by all that its figures hang on: trials on other data or spaces must not be compared."""
        text = json.dumps([[fold.digest for fold in self.folds], self.config.to_json(), repr(self.space)])
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def own(self) -> dict[str, Any]:
        """The choices that the starting point itself makes."""
        return {one.path: at(self.config, one.path) for one in self.space}


def open_study(problem: Problem) -> optuna.Study:
    """The study of a problem. Its starting point is tried first; a trial that was cut short comes next, again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem.home.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{problem.home / 'study.db'}",
        study_name=problem.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=1),
    )
    # with the same seed again, a search that goes on would begin with the draws of its beginning
    seed = problem.config.seed * _SEEDS + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_AT_RANDOM)
    study.enqueue_trial(problem.own, skip_if_exists=True)
    for trial in study.get_trials(states=(RUNNING,)):  # there is one search at a time: these were killed
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def search(
    study: optuna.Study,
    problem: Problem,
    *,
    trials: int,
    seconds: float | None = None,
    accelerator: Accelerator = "auto",
    progress: bool = True,
) -> None:
    """Add trials until the study has so many, or `seconds` are over (the trial under way comes to its end)."""
    work = problem.home / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a search that was killed
    work.mkdir()
    done = len(study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED)))
    bar = tqdm(total=trials, initial=done, desc=f"{problem.task.name}: trials", unit="trial", disable=not progress)

    def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        del trial
        bar.update()
        if study.get_trials(deepcopy=False, states=(COMPLETE,)):
            bar.set_postfix_str(f"best {study.best_value:.4f}")

    with bar:
        study.optimize(
            lambda trial: value_of(trial, problem, work, accelerator),
            n_trials=max(0, trials - done),
            timeout=seconds,
            callbacks=[told],
        )


def value_of(trial: optuna.Trial, problem: Problem, work: Path, accelerator: Accelerator) -> float:
    """Mean over the folds of the best epoch's metric.

    What is reported at an epoch is the sum of what the folds have brought so far, divided by their number: it only
    grows, so that at the same epoch of the same fold trials can be compared. Of a mean log-likelihood, which may be
    negative, its exponential is summed.

    Raises:
        optuna.TrialPruned: this trial does worse than most did at the same epoch.
    """
    config = changed(problem.config, drawn(problem.space, trial, problem.config))
    began, folds = time.monotonic(), len(problem.folds)
    found: list[float] = []
    for number, fold in enumerate(problem.folds):
        metric = problem.task.primary_metric
        level = math.exp if metric == LOG_LIKELIHOOD else float
        report = _Report(trial, number * config.fit.epochs, sum(map(level, found)), folds, level)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            fitted = fit(
                fold, config, metric, Path(folder), accelerator=accelerator, progress=False, callbacks=[report]
            )
        found.append(fitted.best_metric)
        trial.set_user_attr("folds", found)
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
    return sum(found) / folds


class _Report(Callback):
    """Tells the trial what each epoch brought, and ends it where it is not worth going on."""

    def __init__(
        self,
        trial: optuna.Trial,
        first_step: int,
        before: float,
        folds: int,
        level: Callable[[float], float] = float,
    ) -> None:
        self.trial, self.step, self.before, self.folds = trial, first_step, before, folds
        self.level, self.best = level, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        self.best = max(self.best, self.level(float(trainer.callback_metrics["val_metric"])))
        self.trial.report((self.before + self.best) / self.folds, self.step)
        self.step += 1
        failpoint("tune.epoch")
        if self.trial.should_prune():
            raise optuna.TrialPruned
