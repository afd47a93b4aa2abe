"""The report of a run: `report.html`, which opens offline, and `model_card.md`, both from the run's own files.

`python -m training.report RUN_DIR` writes them again. Reads metrics.json, config.json, predictions.parquet
(example_id, t, label and score, or rank; score_<method> or rank_<method>; optionally `group`, whose example it is,
and `history`, events known then; of classes, counts and times see training/head_predictions.py) and curves.csv (step,
epoch, train_loss, val_loss, val_metric).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clicktrail.publish import publish_bytes
from training import pictures, wording
from training.evaluation import calibration_curve, intervals, ranking_metrics
from training.head_predictions import HEADS
from training.head_report import head_figures
from training.page import render
from training.run_record import METRICS_FILE, MODEL, ORACLE, Run, paired, question, read_metrics, read_run, standing

REPORT_FILE, CARD_FILE, INDEX_FILE = "report.html", "model_card.md", "index.html"
_RARE = 0.05  # below this share of label 1, axes are logarithmic
_POINTS = 250  # of a curve: more than the eye or the file needs
_DRAWS = 20_000_000  # examples x resamples of the bars' intervals: a few seconds at most
_HISTORY = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, None))
_LEAST = 20  # examples of a bin: fewer say nothing

Floats = NDArray[np.float64]


def write_report(run_dir: Path) -> None:
    """Write `report.html` and `model_card.md` into a run's folder.

    Raises:
        ValueError: a file of the run is missing or lacks a key.
    """
    run = read_run(run_dir)
    facts = _facts(run)
    _publish(run_dir / REPORT_FILE, "report.html.j2", facts | {"figures": _figures(run)})
    _publish(run_dir / CARD_FILE, "model_card.md.j2", facts)


def write_index(runs_dir: Path) -> Path:
    """Write `index.html`, which links the newest report of each task and the earlier ones; its path."""
    tasks = []
    for folder in sorted(path for path in runs_dir.iterdir() if path.is_dir()):
        complete = [
            run
            for run in folder.iterdir()
            if (run / REPORT_FILE).is_file() and not run.is_symlink() and not run.name.startswith(".")  # unpublished
        ]
        runs = sorted(complete, key=lambda run: (run / METRICS_FILE).stat().st_mtime, reverse=True)
        if not runs:
            continue
        latest = folder / "latest"
        newest = latest.resolve() if (latest / REPORT_FILE).is_file() else runs[0]
        metrics = read_metrics(newest)
        stands = standing(metrics)
        tasks.append(
            {
                "task": metrics["task"],
                "question": question(metrics),
                "stands": stands,
                "run": newest.name,
                "link": f"{folder.name}/{newest.name}/{REPORT_FILE}",
                "earlier": [
                    {"run": run.name, "link": f"{folder.name}/{run.name}/{REPORT_FILE}"}
                    for run in runs
                    if run.name != newest.name
                ],
            }
        )
    _publish(runs_dir / INDEX_FILE, "index.html.j2", {"tasks": tasks})
    return runs_dir / INDEX_FILE


def main(arguments: list[str] | None = None) -> int:
    """`python -m training.report RUN_DIR`."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a complete run, as in var/runs/fraud/latest")
    given = parser.parse_args(arguments)
    try:
        write_report(given.run)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{given.run / REPORT_FILE}\n{given.run / CARD_FILE}\n")
    return 0


def _publish(target: Path, template: str, values: dict[str, Any]) -> None:
    """Render a template and put it in place."""
    publish_bytes(target, render(template, values), "report")


def _facts(run: Run) -> dict[str, Any]:
    """What both documents say, apart from pictures."""
    stands = standing(run.metrics)
    metrics = run.metrics
    rows = {MODEL: metrics["model"], **metrics["baselines"]} | (
        {ORACLE: metrics["oracle"]} if metrics.get("oracle") else {}
    )
    # each method's threshold is its own: it stands beside the confusion table, not in a comparison
    names = [run.metric, *(name for name in metrics["model"] if name not in {run.metric, "threshold"})]
    seconds = metrics.get("seconds")
    return {
        "run": run,
        "stands": stands,
        "verdict": wording.verdict(run, stands),
        "rows": rows,
        "names": names,
        "paired": paired(metrics),
        "lower_is_better": wording.LOWER_IS_BETTER,
        "parts": wording.part_rows(run),
        "confusion": _confusion(run) if run.head == "binary" else None,
        "choices": _choices(run) if run.head == "binary" else [],
        "data": wording.flat(metrics.get("data") or {}),
        "config": wording.flat(run.config),
        "config_json": json.dumps(run.config, indent=1),
        "seconds": seconds if isinstance(seconds, dict) else {},
        "total": run.seconds(),
        "cost": wording.cost_rows(metrics["cost"]) if metrics.get("cost") else {},
        "first": _day(run, "min"),
        "last": _day(run, "max"),
    }


def _day(run: Run, end: str) -> str:
    """First or last day of the test examples, or nothing when the run kept no times."""
    import pyarrow.compute as pc

    if "t" not in run.predictions.column_names or not run.predictions.num_rows:
        return ""
    return str(pc.min_max(run.predictions["t"])[end].as_py())[:10]


def _figures(run: Run) -> dict[str, str]:
    """Pictures by name."""
    samples = int(np.clip(_DRAWS // max(1, run.predictions.num_rows), 100, 1000))
    learning = {"losses": pictures.losses(run.curves)} if run.curves else {}
    if run.head in HEADS:
        return head_figures(run, samples) | learning
    # an oracle may not speak of every example: each method is shown on those that it answered
    methods = {
        name: values for name, values in run.methods().items() if name == MODEL or np.isfinite(values).sum() >= _LEAST
    }
    spread: dict[str, dict[str, float]] = {}
    for name, values in methods.items():
        there = np.isfinite(values)
        labels = None if run.ranking else run.labels[there]
        groups = None if run.groups is None else run.groups[there]
        spread |= intervals(run.metric, {name: values[there]}, labels=labels, groups=groups, samples=samples)
    figures = {"bars": pictures.bars(spread, wording.title(run.metric))} | learning
    return figures | (_ranking_figures(run, methods) if run.ranking else _binary_figures(run, methods))


def _ranking_figures(run: Run, methods: dict[str, Floats]) -> dict[str, str]:
    known = {name: ranks[np.isfinite(ranks)] for name, ranks in methods.items()}
    cuts = np.arange(1.0, 21.0)
    edges = ((1, 1), (2, 3), (4, 10), (11, 20), (21, 100), (101, None))
    figures = {
        "hits": pictures.lines(
            {name: (cuts, np.array([(ranks <= cut).mean() for cut in cuts])) for name, ranks in known.items()},
            x="items shown",
            y="share of cases with the right item",
            unit=False,
            legend="upper left",
        ),
        "positions": pictures.grouped(
            [_range(low, high) for low, high in edges],
            {name: [float(_within(ranks, low, high).mean()) for low, high in edges] for name, ranks in known.items()},
            x="position of the right item",
            y="share of cases",
        ),
    }
    if "history" not in run.predictions.column_names:
        return figures
    history = run.predictions["history"].to_numpy()
    answered = np.isfinite(np.stack(list(methods.values()))).all(axis=0)
    rows = {_range(low, high): answered & _within(history, low, high) for low, high in _HISTORY}
    rows = {name: there for name, there in rows.items() if there.sum() >= _LEAST}
    cut = (int(run.metric.partition("@")[2] or 10),)
    figures["by_history"] = pictures.grouped(
        list(rows),
        {
            name: [ranking_metrics(ranks[there], cut)[run.metric] for there in rows.values()]
            for name, ranks in methods.items()
        },
        x="events known of the user",
        y=wording.title(run.metric),
    )
    return figures


def _binary_figures(run: Run, methods: dict[str, Floats]) -> dict[str, str]:
    labels, scores = run.labels, methods[MODEL]
    rate = float(labels.mean())
    rare = rate < _RARE
    known = {name: np.isfinite(values) for name, values in methods.items()}
    curves = {name: _curves(labels[known[name]], values[known[name]]) for name, values in methods.items()}
    return {
        "precision_recall": pictures.lines(
            {name: (curve["precision_recall"], curve["precision"]) for name, curve in curves.items()},
            x="recall: share of yes cases found",
            y="precision: share of alarms that are right",
            chance=([0, 1], [rate, rate]),
        ),
        "roc": pictures.lines(
            {name: (curve["false"], curve["recall"]) for name, curve in curves.items()},
            x="false alarms: share of no cases flagged",
            y="share of yes cases found",
            chance=([0, 1], [0, 1]),
            legend="lower right",
        ),
        "calibration": pictures.calibration(calibration_curve(labels, scores), rare=rare),
        "scores": _score_picture(labels, scores, run.metrics["model"]["threshold"], rare=rare),
    }


def _score_picture(labels: NDArray[np.int64], scores: Floats, threshold: float, *, rare: bool) -> str:
    low = max(float(scores.min()), 1e-5)
    edges = np.geomspace(low, max(float(scores.max()), 2 * low), 41) if rare else np.linspace(0, 1, 41)
    shares = {}
    for label, name in ((0, "No"), (1, "Yes")):
        counts, _ = np.histogram(np.clip(scores[labels == label], edges[0], edges[-1]), edges)
        shares[name] = counts / counts.sum()
    return pictures.histogram(edges, shares, x="score", threshold=threshold, rare=rare)


def _curves(labels: NDArray[np.int64], scores: Floats) -> dict[str, Floats]:
    """Precision, recall and false-alarm rate by threshold, at most `_POINTS` each; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    caught = np.cumsum(labels[order]).astype(np.float64)
    flagged = np.arange(1, len(order) + 1, dtype=np.float64)
    last = np.append(np.diff(scores[order]) != 0, True)
    caught, flagged = caught[last], flagged[last]
    recall, false = caught / caught[-1], (flagged - caught) / (flagged[-1] - caught[-1])
    along = recall + false  # rises strictly: even steps along the ROC curve keep both curves' shape
    kept = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], _POINTS)))
    # the left end of a precision-recall curve moves in few examples: keep it fine
    kept = np.unique(np.concatenate([kept, np.searchsorted(recall, np.linspace(recall[0], 1, _POINTS))]))
    kept = kept[kept < len(along)]
    telling = kept[flagged[kept] >= _LEAST]  # the precision of the first few alarms is noise
    return {
        "recall": np.concatenate([[0.0], recall[kept]]),
        "false": np.concatenate([[0.0], false[kept]]),
        "precision_recall": recall[telling],
        "precision": (caught / flagged)[telling],
    }


def _confusion(run: Run) -> dict[str, int]:
    """Test examples by truth and decision at the model's threshold."""
    labels = run.labels == 1
    flagged = run.methods()[MODEL] >= run.metrics["model"]["threshold"]
    return {
        "caught": int((labels & flagged).sum()),
        "missed": int((labels & ~flagged).sum()),
        "false": int((~labels & flagged).sum()),
        "passed": int((~labels & ~flagged).sum()),
    }


def _choices(run: Run) -> list[dict[str, float]]:
    """What other thresholds would do: flag the top 0.1, 0.5, 1, 5, 10, 25 % of the test examples."""
    labels, scores = run.labels, run.methods()[MODEL]
    order = np.sort(scores)[::-1]
    rows = []
    for share in (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5):
        count = round(share * len(order))
        if count < _LEAST:
            continue
        threshold = order[count - 1]
        flagged = scores >= threshold
        rows.append(
            {
                "flagged": float(flagged.mean()),
                "threshold": float(threshold),
                "precision": float(labels[flagged].mean()),
                "recall": float(labels[flagged].sum() / labels.sum()),
            }
        )
    return rows


def _within(values: NDArray[Any], low: int, high: int | None) -> NDArray[np.bool_]:
    return (values >= low) & (values <= (np.inf if high is None else high))


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"  # a hyphen: the font of a shop's screen has it


if __name__ == "__main__":
    raise SystemExit(main())
