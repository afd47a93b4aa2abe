"""The guide on tasks: its file is a task, and asks what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from tests import oracles
from tests.docs.guide import ROOT, blocks
from tests.training.test_examples import DAY, START, log_of
from tests.training.test_heads_in_tasks import shop
from training.task import Task


def test_the_guides_task_counts_carts(tmp_path: Path) -> None:
    """Every seven days back from the log's end, of everybody known by then, by the naive way."""
    (block,) = [one for one in blocks(ROOT / "docs" / "guides" / "add-a-task.md") if one.language == "python"]
    module: dict[str, Any] = {}
    exec(compile(block.text, block.order, "exec"), module)  # noqa: S102 - the guide's own text
    task: Task = module["TASK"]
    rows = shop(1, days=40, users=20, count=300)
    log = log_of(rows, tmp_path)
    table = task.examples(log.query, log.end_time())
    found = {
        (user, t): count
        for user, t, count in zip(
            table["user_id"].to_pylist(),
            table["t"].cast(pa.int64()).to_pylist(),
            table["count"].to_pylist(),
            strict=True,
        )
    }
    week, carts = 7 * DAY, [{**row, "event_type": "purchase"} for row in rows if row["event_type"] == "cart"]
    expected = {
        (row["user_id"], t): oracles.purchases(carts, row["user_id"], t, week)
        for row in rows
        for t in range(log.end_time() - week, START, -week)
        if oracles.known_at(row) < t
    }
    assert found == expected
    assert max(found.values()) > 1
