"""What metrics.json says of every run, whatever its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.task import Task

Figures = Mapping[str, float]


def measured(
    task: Task, model: Figures, baselines: Mapping[str, Figures], intervals: Mapping[str, Figures]
) -> dict[str, Any]:
    """The model beside its baselines and its gates.

    Args:
        task: what was asked.
        model: its metrics.
        baselines: theirs, by name.
        intervals: of the model's lead over each in the primary metric: `difference`, `low`, `high`.
    """
    return {
        "task": task.name,
        "question": task.question,
        "primary_metric": task.primary_metric,
        "model": model,
        "baselines": baselines,
        "oracle": {},
        "intervals": {task.primary_metric: intervals},
        "beats_all_baselines": all(one["low"] > 0 for one in intervals.values()),
        "gates": {name: {"least": least, "passed": model[name] >= least} for name, least in task.gates.items()},
    }
