"""The closing table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training import summary

FRAUD = {
    "task": "fraud",
    "primary_metric": "average_precision",
    "model": {"average_precision": 0.42},
    "baselines": {"gradient_boosting": {"average_precision": 0.30}, "recency_frequency": {"average_precision": 0.2}},
    "oracle": {"average_precision": 0.50},
    "intervals": {
        "gradient_boosting": {"difference": 0.12, "low": 0.0712, "high": 0.15},
        "recency_frequency": {"difference": 0.22, "low": 0.2, "high": 0.3},
    },
    "seconds": {"read": 25.0, "fit": 100.0},
}


def put(runs: Path, metrics: dict[str, Any]) -> None:
    """A complete run of one file, and the link to it."""
    folder = runs / metrics["task"] / "run1"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder.parent / "latest").symlink_to("run1")


def test_the_table_says_who_wins_by_how_much(tmp_path: Path) -> None:
    """Model, best baseline, oracle, share of the gap, lower bound and time of a task stand in its line."""
    put(tmp_path, FRAUD)
    line = next(line for line in summary.summary(tmp_path).splitlines() if line.startswith("fraud"))
    share = round(100 * (0.42 - 0.30) / (0.50 - 0.30))
    expected = ["0.4200", "0.3000 gradient boosting", "0.5000", f"{share} %", "+0.0712", f"{25 + 100}"]
    assert [one for one in expected if one not in line] == []
    assert line.index("0.4200") < line.index("0.3000") < line.index("0.5000")


def test_no_oracle_no_share(tmp_path: Path) -> None:
    """On real data, which has no oracle, both cells stay empty; a lower bound below 0 shows its sign."""
    intervals = {"popularity": {"difference": 0.01, "low": -0.002, "high": 0.02}}
    values = {"task": "recommendation", "primary_metric": "ndcg@10", "model": {"ndcg@10": 0.11}, "seconds": 5.0}
    put(tmp_path, values | {"baselines": {"popularity": {"ndcg@10": 0.1}}, "oracle": None, "intervals": intervals})
    line = next(line for line in summary.summary(tmp_path).splitlines() if line.startswith("recommendation"))
    assert line.split() == ["recommendation", "NDCG@10", "0.1100", "0.1000", "popularity", "-0.0020", "5"]


def test_it_fits_a_terminal_and_ends_with_the_next_command(tmp_path: Path) -> None:
    """Three tasks with long names fit 100 columns; columns are aligned; the last line can be typed."""
    put(tmp_path, FRAUD)
    put(tmp_path, FRAUD | {"task": "retention", "primary_metric": "average_precision"})
    put(tmp_path, FRAUD | {"task": "recommendation"})
    lines = summary.summary(tmp_path).splitlines()
    assert max(len(line) for line in lines[:-3]) <= 100
    assert len({line.index("0.3000") for line in lines if "0.3000" in line}) == 1
    assert f"reports  {tmp_path / 'index.html'}" in lines
    assert lines[-1] == "next     make serve TASK=fraud"


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    """--task limits the table, in the order given."""
    put(tmp_path, FRAUD)
    put(tmp_path, FRAUD | {"task": "retention"})
    assert "fraud" not in summary.summary(tmp_path, ["retention"])
    assert "TASK=retention" in summary.summary(tmp_path, ["retention"])


def test_a_task_without_a_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no run is complete, the command says which to train and exits with 2."""
    with pytest.raises(ValueError, match=r"any task .*: make train makes it"):
        summary.summary(tmp_path)
    put(tmp_path / "runs", FRAUD)
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path))
    assert summary.main(["--task", "retention"]) == 2
    assert "make train TASK=retention makes it" in capsys.readouterr().err
    assert summary.main([]) == 0
    assert (tmp_path / "runs" / "index.html").is_file()
    assert "gradient boosting" in capsys.readouterr().out
