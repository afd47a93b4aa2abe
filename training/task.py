"""What a task is: a prediction stated as data and one query over the log. One file of `training/tasks` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from clicktrail.input_spec import SequenceSpec

Head = Literal["next_item", "binary", "multiclass", "count", "time"]
Query = Callable[[str, int], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prediction task.

    `examples(sql, end)` runs over the log: `sql(text)` gives a table, `end` is the log's end (microseconds UTC). Its
    grain is one row an example, with columns: `example_id`; `t` (timestamp us UTC): when the answer is wanted; the
    join keys of the feature service; the answer; the `request` fields, if any; `value_minor` (int64), if what is asked
    has a value beside its probability: what came after t within the horizon, as far as it was known by its end.

    The answer, by head:
      next_item   `target`: item_id
      binary      `label_known_at`: when it became known that the label is 1, null if never
      multiclass  `class` (string) as known by the end of the wait; one of them may stand for "nothing so far"
      count       `count` (integer from 0 on) within the horizon, as known by the end of the wait
      time        `happened_at`: when what is waited for came, at t or later, null if never; `label_known_at`

    `horizon` + `label_delay`, the wait: how long after t the label is complete; examples that the log ends before are
    left out. A time task watches each example at least that long, and on to the cut of its split (training/labels.py).
    `edges`: time tasks: the answer is the probability that it happens by each, seconds after t.
    `skip_scalars`: read the sequences of the feature service alone. `group`: whose examples are resampled together.
    `validation`, `test`: shares of the time range.
    `gates`: metric -> least value for a model to be published as good. `costs`: what acting on a score costs, where a
    service decides by it (serving/costs.py says which there are); a deployment may have others.
    """

    name: str
    question: str
    entity_keys: tuple[str, ...]
    feature_service: str
    head: Head
    primary_metric: str
    examples: Callable[[Callable[[str], pa.Table], int], pa.Table]
    horizon: timedelta = timedelta(0)
    label_delay: timedelta = timedelta(0)
    edges: tuple[float, ...] = ()
    sequences: tuple[SequenceSpec, ...]
    skip_scalars: bool = False
    request_categories: tuple[str, ...] = ()
    request_numbers: tuple[str, ...] = ()
    baselines: tuple[str, ...]
    gates: dict[str, float]
    costs: dict[str, dict[str, float]] | None = None
    validation: float = 0.08
    test: float = 0.1
    group: str = "user_id"

    @property
    def wait(self) -> int:
        """Horizon plus label delay, microseconds."""
        return (self.horizon + self.label_delay) // timedelta(microseconds=1)


def task_names() -> list[str]:
    """The tasks that there are: one file each."""
    folder = Path(__file__).parent / "tasks"
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in task_names():
        message = f"task {name!r} does not exist; choose one of: {', '.join(task_names())}"
        raise ValueError(message)
    module: Any = import_module(f"training.tasks.{name}")
    task: Task = module.TASK
    return task
