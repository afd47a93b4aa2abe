"""What a run learned from, looked up in the log: only of validated rows is a bundle built."""

from __future__ import annotations

from pathlib import Path

import pytest

from clicktrail.event_log import EventLog
from serving.build import failed_gates
from serving.origin import lineage
from tests.serving import shop


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """Four rows that passed a gate, then four that were appended directly."""
    log = EventLog(tmp_path / "log")
    log.append(shop.events().slice(0, 4), validated_by="gate:1")
    log.append(shop.events().slice(4))
    return log


def test_validated_rows_are_recorded(log: EventLog) -> None:
    """Rows after those that the run learned from do not matter."""
    data = {"log_offset": 4, "log_content": log.digest(4)}
    assert lineage(log, data) == {
        "log_offset": 4,
        "log_digest": log.digest(4),
        "validated": [{"start": 0, "stop": 4, "by": "gate:1"}],
    }


def test_rows_that_were_appended_directly_are_refused(log: EventLog) -> None:
    """Rows, segment and way out are named."""
    with pytest.raises(ValueError, match=r"rows 4 to 7 of the log .*segment 0+4\.parquet.*without passing the gate"):
        lineage(log, {"log_offset": 8, "log_content": log.digest(8)})


def test_the_log_must_be_that_of_the_run(log: EventLog) -> None:
    """A shorter log, one of other content, and a run that does not say what it learned from are refused."""
    with pytest.raises(ValueError, match=r"learned from 9 rows, the log in .* has 8"):
        lineage(log, {"log_offset": 9})
    with pytest.raises(ValueError, match="learned from another log"):
        lineage(log, {"log_offset": 4, "log_content": "e" * 64})
    with pytest.raises(ValueError, match="train again"):
        lineage(log, {})


def test_forgotten_users_do_not_make_it_another_log(log: EventLog) -> None:
    """A log's digest changes when users are forgotten; its offsets do not."""
    before = log.digest(4)
    log.forget(["bob"])
    assert log.digest(4) != before
    assert lineage(log, {"log_offset": 4, "log_content": before})["log_offset"] == 4


def test_gates_that_were_not_passed_are_named() -> None:
    """With the value and the least that is asked."""
    gates = {"auc": {"least": 0.55, "passed": False}, "recall": {"least": 0.1, "passed": True}}
    assert failed_gates({"model": {"auc": 0.5, "recall": 0.2}, "gates": gates}) == [
        "auc is 0.5, at least 0.55 is asked"
    ]
    assert failed_gates({}) == []
