"""The closing table: each task's newest run beside what it had to beat, where everything is, what to do next.

`python -m training.summary [--task TASK]...` prints it for a terminal of 100 columns, and writes the page that links
the reports.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clicktrail import settings
from training.head_predictions import HEADS
from training.report import INDEX_FILE, write_index
from training.run_record import METRICS_FILE, read_metrics, standing, total_seconds
from training.wording import title

_HEAD = ("task", "metric", "model", "best baseline", "oracle", "gap", "at least", "seconds")
_RIGHT = {2, 4, 5, 6, 7}


def summary(runs_dir: Path, tasks: Sequence[str] = ()) -> str:
    """The table of the newest complete runs, with the places of reports and bundles and the next command.

    Args:
        runs_dir: `var/runs`.
        tasks: which; none: all that have a run.

    Raises:
        ValueError: there is no complete run, or none of a task that was asked for.
    """
    there = sorted(path.parent.parent.name for path in runs_dir.glob(f"*/latest/{METRICS_FILE}"))
    missing = [task for task in tasks if task not in there]
    if missing or not there:
        command = f"make train TASK={missing[0]}" if missing else "make train"
        message = f"no complete run of {', '.join(missing) or 'any task'} in {runs_dir}: {command} makes it"
        raise ValueError(message)
    shown = list(tasks) or there
    found = {task: read_metrics(runs_dir / task / "latest") for task in shown}
    served = [task for task, metrics in found.items() if metrics.get("head", "binary") not in HEADS]
    return "\n".join([_table([_row(metrics) for metrics in found.values()]), "", *_places(runs_dir, served)])


def main(arguments: list[str] | None = None) -> int:
    """`python -m training.summary [--task TASK]...`."""
    parser = argparse.ArgumentParser(prog="python -m training.summary", description=__doc__.partition("\n")[0])
    parser.add_argument("--task", action="append", default=[], help="a task (repeat for more); default: all with a run")
    given = parser.parse_args(arguments)
    runs = settings.load().runs
    try:
        text = summary(runs, given.task)
        write_index(runs)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _row(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    stands = standing(metrics)
    return (
        str(metrics["task"]),
        title(stands.metric).replace("Average", "Avg."),
        f"{stands.model:.4f}",
        f"{stands.baseline:.4f} {stands.best_baseline.replace('_', ' ')}" if stands.best_baseline else "none",
        "" if math.isnan(stands.oracle) else f"{stands.oracle:.4f}",
        "" if math.isnan(stands.share) else f"{100 * stands.share:.0f} %",
        "" if stands.difference is None else f"{stands.difference['low']:+.4f}",
        f"{total_seconds(metrics):,.0f}",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell, figures to the right."""
    cells = [_HEAD, *rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if at in _RIGHT else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def _places(runs_dir: Path, tasks: Sequence[str]) -> list[str]:
    """Where to look and what to type; of `tasks` there are bundles."""
    example = "fraud" if "fraud" in tasks else "".join(tasks[:1])
    return [
        "gap: how much of the way from the best baseline to the oracle the model goes",
        "at least: lower 95 % bound of model minus best baseline; above 0, chance does not explain it",
        "",
        f"reports  {_short(runs_dir / INDEX_FILE)}",
        *(["bundles  bentoml list", f"next     make serve TASK={example}"] if example else []),
    ]


def _short(path: Path) -> str:
    """Relative to here where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    raise SystemExit(main())
