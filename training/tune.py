"""Search for a better configuration: `python -m training.tune --task fraud` (make tune TASK=fraud).

Every trial is fitted and judged on folds that follow one another in time, inside the training and validation ranges:
the test range is never looked at. Optuna's TPE draws what to try, and gives up in the middle on what does worse than
half of the trials before it did at the same epoch. All is kept in `CLICKTRAIL_HOME/tune/<task>/study.db`: started
again after a kill, the search goes on, the trial that was cut short first.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from clicktrail import settings
from clicktrail.settings import Settings
from training.config import RunConfig
from training.config_file import changed, read_config
from training.presets import PRESETS, preset
from training.search_space import space_of
from training.task import Task, load_task, task_names
from training.training_set import load


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when at least one trial of the study came to its end, 1 when the input does not do."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # trials are kept in the study: MLflow gets the runs that follow
    try:
        return _run(given)
    except ValueError as error:
        sys.stderr.write(f"tune: {error}\n")
        return 1


def _run(given: argparse.Namespace) -> int:
    task, where = load_task(given.task), settings.load()
    config = starting_point(given)
    home = where.home / "tune" / task.name
    with only_one(home):
        began = time.monotonic()
        folders = fold_sets(task, config, where, given.folds, home)
        folds = [load(folder) for folder in folders]
        _say(f"{task.name}: {len(folds)} folds at {home / 'folds'} ({time.monotonic() - began:.0f} s)")
        from training.tune_result import leave
        from training.tune_study import Problem, open_study, search

        problem = Problem(task=task, config=config, folds=folds, space=space_of(task.name), home=home)
        study = open_study(problem)
        search(study, problem, trials=given.trials, seconds=given.seconds, progress=not given.quiet)
        _say(leave(study, problem))
    return 0


def starting_point(given: argparse.Namespace) -> RunConfig:
    """The preset that the search starts from, with the sizes that the command line says."""
    name = given.preset
    config = read_config(Path(name), given.task) if name.endswith(".json") else preset(name, given.task)
    config = replace(config, seed=config.seed if given.seed is None else given.seed)
    if given.epochs is not None:
        config = changed(config, {"fit.epochs": given.epochs})
    if given.train_examples is not None:
        config = replace(config, train_examples=given.train_examples)
    return config


# ---- folds


def fold_sets(task: Task, config: RunConfig, where: Settings, folds: int, home: Path) -> list[Path]:
    """Folders of the folds' training sets; made where they are missing, each with an encoding fitted on its own past.

    Raises:
        ValueError: the log is empty or too short for so many folds.
    """
    from training import build_set
    from training.time_folds import time_folds

    source = build_set.source_of(task, where)
    code = Path(__file__).with_name("time_folds.py").read_text()
    key = sha256(f"{source.digest(config)} {code}".encode()).hexdigest()[:20]
    folders = [home / "folds" / f"{key}-{number}of{folds}" for number in range(1, folds + 1)]
    if not all(folder.is_dir() for folder in folders):
        table, whole = build_set.all_examples(task, source.log, source.stop)
        start = int(build_set.times(table).min())
        for folder, parts in zip(folders, time_folds(whole, start, folds=folds, wait=task.wait), strict=True):
            if not folder.is_dir():
                build_set.make_set(source, build_set.pick(task, config, table, parts), folder)
    for old in (home / "folds").iterdir():  # of logs and declarations that are no more
        if old not in folders:
            shutil.rmtree(old)
    return folders


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """One search of a task at a time: a trial that is under way without one was killed.

    Raises:
        ValueError: another is at it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another search is at work in {home}: wait for it or end it"
            raise ValueError(message) from None
        yield


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.tune", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", required=True, choices=task_names())
    parser.add_argument(
        "--preset", "--config", default="small", help=f"where to start: {', '.join(PRESETS)}, or a file (best.json)"
    )
    parser.add_argument("--trials", type=int, default=30, help="until the study has so many, earlier ones included")
    parser.add_argument("--seconds", type=float, default=None, help="begin no trial after so long")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=None, help="other than the preset's")
    parser.add_argument("--train-examples", type=int, default=None, help="at most so many a fold")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
