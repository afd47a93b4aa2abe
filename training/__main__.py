"""Train a task: `python -m training --task fraud`. Builds the training set, fits, measures, exports, publishes the run.

What has the same inputs is not done again: a training set by log, task, sizes and code; a run by training set,
configuration and code. `--force` does it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clicktrail import settings
from training.config import FAMILIES, RunConfig
from training.config_file import read_config
from training.presets import PRESETS, preset
from training.task import load_task, task_names

if TYPE_CHECKING:
    from training.run import Place
    from training.task import Task


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when the run is published (or was there already), 1 when the input does not do."""
    given = parser().parse_args(arguments)
    # waiting threads that spin cost more than they win as soon as anything else runs (measured: 20 times slower)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _run(given)
    except ValueError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    task, where = load_task(given.task), settings.load()
    config = configuration(given)
    truth = given.truth / f"{task.name}.parquet" if given.truth else None
    if truth is not None and not truth.is_file():
        if not given.truth.is_dir():
            message = f"--truth {given.truth}: there is no such folder"
            raise ValueError(message)
        print(f"{task.name}: {given.truth} holds no truth of it, so there is no oracle", flush=True)
        truth = None
    from training.build_set import training_set
    from training.training_set import load

    began = time.monotonic()
    if given.data:
        folder = given.data
    else:
        folder, reused = training_set(task, config, where, force=given.force)
        print(f"{task.name}: training set {folder.name} {'reused' if reused else 'made'} ({_since(began)})", flush=True)
    data = load(folder)
    counts = ", ".join(f"{count:,} {name}" for name, count in data.manifest["examples"].items())
    print(f"{task.name}: {data.manifest['events']:,} events, examples: {counts}", flush=True)
    if given.build_only:
        print(folder)
        return 0
    from training.run import execute, place_of, publish, run_id

    place, there = place_of(where.runs, task, run_id(data, config, truth), force=given.force)
    if there:
        publish(place)
        print(f"{task.name}: run {place.target.name} with these inputs is complete: nothing to do (--force: again)")
    else:
        execute(
            task, data, config, place, truth=truth, accelerator=given.accelerator, progress=not given.quiet, say=_say
        )
    _closing(task, place, began)
    return 0


def configuration(given: argparse.Namespace) -> RunConfig:
    """The preset, or the configuration in a file, with what the command line changes."""
    if given.preset.endswith(".json"):
        config = read_config(Path(given.preset), given.task)
        config = replace(config, encoder=replace(config.encoder, family=given.encoder or config.encoder.family))
        config = replace(config, seed=config.seed if given.seed is None else given.seed)
    else:
        config = preset(given.preset, given.task, encoder=given.encoder, seed=given.seed or 0)
    fit = config.fit
    if given.max_seconds is not None:
        fit = replace(fit, seconds=given.max_seconds)
    if given.epochs is not None:
        fit = replace(fit, epochs=given.epochs)
    sizes = {
        name: value
        for name in ("train_examples", "validation_examples", "test_examples")
        if (value := getattr(given, name)) is not None
    }
    return replace(config, fit=fit, **sizes)


def _closing(task: Task, place: Place, began: float) -> None:
    from training.run_record import read_metrics, standing

    found = standing(read_metrics(place.target))
    difference = found.difference
    interval = (
        f" (difference {difference['difference']:+.4f}, 95 % from {difference['low']:+.4f})" if difference else ""
    )
    oracle = f", oracle {found.oracle:.4f}, {found.share:.0%} of the gap closed" if found.oracle == found.oracle else ""
    print(
        f"{task.name}: {found.metric} {found.model:.4f}, best baseline {found.best_baseline} {found.baseline:.4f}"
        f"{interval}{oracle}\n{task.name}: report {place.target / 'report.html'} ({_since(began)})"
    )


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"


def _say(line: str) -> None:
    print(line, flush=True)


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    out = argparse.ArgumentParser(prog="python -m training", description=(__doc__ or "").splitlines()[0])
    out.add_argument("--task", required=True, choices=task_names())
    out.add_argument(
        "--preset", "--config", default="small", help=f"{', '.join(PRESETS)}, or a file: best.json of make tune"
    )
    out.add_argument("--encoder", choices=FAMILIES, default=None, help="another encoder than the preset's")
    out.add_argument("--seed", type=int, default=None, help="other than the preset's")
    out.add_argument("--max-seconds", type=float, default=None, help="end with the epoch under way after so long")
    out.add_argument("--epochs", type=int, default=None)
    for split in ("train", "validation", "test"):
        out.add_argument(f"--{split}-examples", type=int, default=None, help="at most so many")
    out.add_argument("--truth", type=Path, default=None, help="folder of the demo shop's true probabilities")
    out.add_argument("--data", type=Path, default=None, help="folder of a finished training set, made elsewhere")
    out.add_argument("--build-only", action="store_true", help="make the training set, print its folder, stop")
    out.add_argument("--accelerator", default="auto", choices=["auto", "cpu", "gpu"])
    out.add_argument("--force", action="store_true", help="do again what has been done with the same inputs")
    out.add_argument("--quiet", action="store_true", help="no progress bars")
    return out


if __name__ == "__main__":
    sys.exit(main())
