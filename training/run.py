"""A run from training set to published folder: fit, baselines, oracle, metrics, export, report.

The run is written aside in `runs/<task>/.<run_id>.tmp`, where a killed one leaves its checkpoints: started again with
the same inputs it has the same id and goes on from them. Published folders are never written again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.publish import failpoint, point, publish_folder
from training.config import RunConfig
from training.decided import decide_on_validation
from training.evaluation import binary_metrics, paired_bootstrap, ranking_metrics, share_of_gap
from training.fit import Accelerator, Fitted, fit
from training.head_answers import head_answers, head_measures
from training.head_predictions import HEADS
from training.joined import Joined, join
from training.loggers import log_result
from training.measured import measured
from training.parts import PART, part_names
from training.run_cost import cost_of, meter_of
from training.task import Task
from training.training_set import TEST, TrainingSet

Say = Callable[[str], None]
_ABANDONED_SECONDS = 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is published and where it is written until then."""

    target: Path
    aside: Path

    @property
    def latest(self) -> Path:
        """The link to the newest complete run."""
        return self.target.with_name("latest")


def run_id(data: TrainingSet, config: RunConfig, truth: Path | None) -> str:
    """Names a run by its inputs: content of the training set, configuration, our code, the truth it is held against."""
    code = [path.read_text() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    held = None if truth is None else sha256(truth.read_bytes()).hexdigest()
    text = json.dumps([data.digest, config.to_json(), code, held], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def place_of(runs: Path, task: Task, name: str, *, force: bool) -> tuple[Place, bool]:
    """Where a run of this name goes, and whether it is there already; `force` finds a free name beside it."""
    folder, free = runs / task.name, name
    while force and (folder / free).exists():
        number = int(free.partition("-")[2] or 1) + 1
        free = f"{name}-{number}"
    place = Place(target=folder / free, aside=folder / f".{free}.tmp")
    return place, place.target.is_dir()


def execute(
    task: Task,
    data: TrainingSet,
    config: RunConfig,
    place: Place,
    *,
    truth: Path | None = None,
    accelerator: Accelerator = "auto",
    progress: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Carry out a run and publish it; gives its metrics.

    Args:
        task: what is predicted.
        data: its training set.
        config: what is learnt from how much, how.
        place: from `place_of`.
        truth: Parquet file with what an oracle would have answered (demo shop), by example_id.
        accelerator: `auto` takes a GPU where there is one.
        progress: show progress bars.
        say: takes one line at a time of what goes on.
    """
    place.aside.mkdir(parents=True, exist_ok=True)
    clock, meter = _Clock(), meter_of(accelerator)
    (place.aside / "config.json").write_text(json.dumps(run_config(task, data, config), indent=1))
    fitted = fit(data, config, task.primary_metric, place.aside, accelerator=accelerator, progress=progress)
    clock.lap("fit")
    say(f"{task.name}: {fitted.epochs} epochs, best validation {task.primary_metric} {fitted.best_metric:.4f}")
    failpoint("run.after_fit")

    joined = join(task, data, config, fitted.model, say, progress=progress)
    clock.lap("parts")
    decided = decide_on_validation(task, data, fitted)
    predictions = answers(task, data, fitted, joined, truth, say)
    clock.lap("baselines")
    pq.write_table(predictions, place.aside / "predictions.parquet")
    if task.head in HEADS:
        metrics = head_measures(task, data.manifest, predictions)
    else:
        metrics = measure(task, predictions, decided.threshold) | decided.worth(data, predictions)
    if joined.parts is not None:
        metrics["parts"] |= joined.parts.to_json()
    clock.lap("metrics")

    from training.export import export

    export(
        fitted.model,
        data,
        place.aside / "export",
        threshold=decided.threshold,
        calibration=decided.calibration,
        value=decided.value,
        costs=task.costs,
        blended=joined.blended,
    )
    clock.lap("export")
    metrics |= {
        "config": {"preset": config.preset, "encoder": config.encoder.family, "seed": config.seed},
        "data": {
            "shop": data.manifest.get("shop", ""),
            "log_offset": data.manifest["log_offset"],
            "log_content": data.manifest.get("log_digest", ""),
            "digest": data.digest,
            "events": data.manifest["events"],
            "examples": data.manifest["examples"],
            "positives": data.manifest["positives"],
            "labels": data.manifest.get("labels", {}),
        },
        "throughput": {"tokens_per_second": round(fitted.tokens_per_second), "epochs": fitted.epochs},
        "cost": cost_of(fitted, data, config, meter, seconds=clock.total, accelerator=accelerator),
        "seconds": {**clock.laps, "total": clock.total},
        "revision": revision(),
        "dirty": dirty(),
        "run_id": place.target.name,
    }
    (place.aside / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False))
    log_result(place.aside, {name: metrics[name] for name in ("model", "baselines", "cost")})

    from training.report import write_report

    write_report(place.aside)
    publish(place)
    return metrics


def publish(place: Place) -> None:
    """Put a finished run in its place and point `latest` at it."""
    if not place.target.is_dir():
        publish_folder(place.target, place.aside, "run")
    point(place.latest, place.target, "run.latest")
    for left in place.target.parent.glob(".*.tmp"):  # of runs that were killed and never gone on with
        abandoned = time.time() - left.lstat().st_mtime > _ABANDONED_SECONDS  # a younger one may be at work right now
        if abandoned and left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)


def run_config(task: Task, data: TrainingSet, config: RunConfig) -> dict[str, Any]:
    """What config.json holds: every choice, and the task as it was."""
    return {
        **config.to_json(),
        "task": task.name,
        "question": task.question,
        "feature_service": task.feature_service,
        "head": task.head,
        "primary_metric": task.primary_metric,
        "horizon_days": task.horizon.total_seconds() / 86_400,
        "label_delay_days": task.label_delay.total_seconds() / 86_400,
        "baselines": list(task.baselines),
        "gates": task.gates,
        "time_split": data.manifest["time_split"],
        "training_set": data.digest,
    }


# ---- answers and what they are worth


def answers(task: Task, data: TrainingSet, fitted: Fitted, joined: Joined, truth: Path | None, say: Say) -> pa.Table:
    """One row a test example: what the model, its parts alone, baselines and oracle answered."""
    test = data.of(TEST)
    columns: dict[str, Any] = {
        "example_id": data.example_id.take(pa.array(test)),
        "t": pa.array(data.t[test], pa.timestamp("us", tz="UTC")),
        "group": data.scalars["group"].to_numpy()[test],
    }
    ids = columns["example_id"].to_pylist()
    if task.head in HEADS:
        return pa.table(columns | head_answers(task, data, fitted.model, say))
    found = joined.predict(fitted.model, data, test)
    if task.head == "next_item":
        assert data.items is not None  # noqa: S101 - next-item sets have items
        names = data.items["item_id"].combine_chunks()
        flat = names.take(pa.array(found["ranked"].ravel()))
        width = found["ranked"].shape[1]
        target = data.target[test]
        columns["target"] = names.take(pa.array(target, mask=target < 0))
        columns["ranked"] = pa.ListArray.from_arrays(np.arange(len(test) + 1, dtype=np.int32) * width, flat)
        columns["rank"] = found["rank"]
        kind = "rank"
    else:
        columns["label"], columns["score"], kind = data.target[test], found["score"], "score"
    columns |= {name: values for name, values in found.items() if name.startswith(PART)}
    for name in task.baselines:
        columns[f"{kind}_{name}"] = joined.baseline(name, data, test)
        say(f"{task.name}: baseline {name} done")
    if truth is not None:
        columns[f"{kind}_oracle"] = oracle(truth, ids, "rank" if kind == "rank" else "p")
    return pa.table(columns)


def oracle(truth: Path, example_ids: list[str], column: str) -> pa.Array:
    """The oracle's answer to each example, null where it gives none.

    Raises:
        ValueError: the truth speaks of none of these examples.
    """
    table = pq.read_table(truth, columns=["example_id", column])
    at = pa.compute.index_in(pa.array(example_ids), value_set=table["example_id"].combine_chunks())
    if at.null_count == len(at):
        message = f"{truth} speaks of none of the examples: it is the truth of another shop, or of another seed"
        raise ValueError(message)
    return table[column].combine_chunks().take(at)


def measure(task: Task, predictions: pa.Table, threshold: float | None) -> dict[str, Any]:
    """metrics.json without what was measured elsewhere; anybody can compute it again from the predictions."""
    kind = "rank" if task.head == "next_item" else "score"
    labels = None if kind == "rank" else predictions["label"].to_numpy()
    groups = predictions["group"].to_numpy()

    def worth(column: str) -> dict[str, float]:
        known = predictions[column].is_valid().to_numpy()
        values = predictions[column].to_pandas().to_numpy(np.float64)[known]
        if labels is None:
            return ranking_metrics(values.astype(np.int64))
        return binary_metrics(labels[known], np.clip(values, 0, 1), threshold if threshold is not None else 0.5)

    metric = task.primary_metric
    model, own = worth(kind), predictions[kind].to_numpy()
    baselines = {name: worth(f"{kind}_{name}") for name in task.baselines}
    intervals = {
        name: paired_bootstrap(metric, own, predictions[f"{kind}_{name}"].to_numpy(), labels=labels, groups=groups)
        for name in task.baselines
    }
    out = measured(task, model, baselines, intervals) | {
        "threshold": threshold,
        "parts": {"test": {name: worth(PART + name) for name in part_names(predictions)}},
    }
    if f"{kind}_oracle" in predictions.column_names:
        out["oracle"] = worth(f"{kind}_oracle")
        best = max(one[metric] for one in baselines.values())
        share = share_of_gap(model[metric], best, out["oracle"][metric])
        out["share_of_gap_closed"] = share if np.isfinite(share) else None
    return out


def revision() -> str:
    """The commit that is checked out, or the version of the package."""
    return _git("rev-parse", "HEAD") or version("clicktrail")


def dirty() -> bool | None:
    """Whether the library or what trains differs from that commit; None outside a checkout."""
    changes = _git("status", "--porcelain", "--", ".", "../clicktrail", "../feature_repo")
    return None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.begun = self.last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self.last = round(now - self.last, 2), now

    @property
    def total(self) -> float:
        return round(time.monotonic() - self.begun, 2)
