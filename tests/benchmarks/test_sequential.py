"""Sequential recommendation on files of any names: splits, what is left out, what others can compute again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks import sequential
from benchmarks.sequential_data import OUTSIDE, by_time, leave_one_out, read
from benchmarks.sequential_models import Protocol
from benchmarks.sequential_set import training_set
from training.evaluation import ranking_metrics
from training.training_set import TEST, TRAIN, VALIDATION


def write(folder: Path, rows: list[tuple[str, str, int]], by: str = "position") -> Path:
    path = folder / "shop.parquet"
    pd.DataFrame(rows, columns=["user_id", "item_id", by]).to_parquet(path)
    return path


def test_the_last_two_events_of_a_user_are_held_out(tmp_path: Path) -> None:
    """Last: test; the one before: validation, or training where it is refitted; a user of two events trains."""
    rows = [("b", "y", 1), ("b", "x", 0), *(("a", item, place) for place, item in enumerate("xyzw"))]
    data = read(write(tmp_path, rows), "position")
    assert data.items.to_pylist() == ["w", "x", "y", "z"]
    assert data.item.tolist() == [1, 2, 3, 0, 1, 2]
    assert leave_one_out(data, refit=False).tolist() == [OUTSIDE, TRAIN, VALIDATION, TEST, OUTSIDE, TRAIN]
    assert leave_one_out(data, refit=True).tolist() == [OUTSIDE, TRAIN, TRAIN, TEST, OUTSIDE, TRAIN]


def test_two_moments_part_all_users(tmp_path: Path) -> None:
    """With times, nothing that happened after the first moment trains, whoever it was."""
    rows = [(user, item, 10 * day + place) for place, user in enumerate("ab") for day, item in enumerate("xyzwxyzwxy")]
    data = read(write(tmp_path, rows, "timestamp"), "timestamp")
    split = by_time(data, refit=False)
    assert data.time is not None
    latest = data.time[split == TRAIN].max()
    assert latest < data.time[split == VALIDATION].min() <= data.time[split == VALIDATION].max()
    assert data.time[split == VALIDATION].max() < data.time[split == TEST].min()
    assert (split[data.first[:-1]] == OUTSIDE).all()
    refitted = by_time(data, refit=True)
    assert (refitted[split == VALIDATION] == TRAIN).all()


def test_what_a_user_chose_is_left_out_however_far_back(tmp_path: Path) -> None:
    """The model reads two events, the ranking leaves out all that came before the target."""
    data = read(write(tmp_path, [("a", item, place) for place, item in enumerate("vwxyz")]), "position")
    training = training_set(data, leave_one_out(data, refit=False), last=2)
    protocol = Protocol(data=data, training=training, unseen=True)
    (test,) = training.of(TEST)
    found = protocol.banned(np.array([test]))
    assert found is not None
    assert training.items is not None
    names = training.items["item_id"].to_pylist()
    assert {names[item] for item in found[1]} == {"v", "w", "x", "y"}
    assert names[training.target[test]] == "z"


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    """The message says which column, and what the file has."""
    with pytest.raises(ValueError, match=r"no column position.*it has user_id, item_id, timestamp"):
        read(write(tmp_path, [("a", "x", 1)], "timestamp"), "position")


def test_histories_too_short_for_the_protocol_are_refused(tmp_path: Path) -> None:
    """Nobody could be tested."""
    data = read(write(tmp_path, [("a", "x", 0), ("a", "y", 1)]), "position")
    with pytest.raises(ValueError, match="no user has 3 events"):
        leave_one_out(data, refit=False)


@pytest.mark.slow
def test_others_can_compute_the_figures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A walk along a ring of items is learnt; the predictions give the figures of the last line."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(300):
        start = int(rng.integers(40))
        rows += [(f"u{user}", f"i{(start + step) % 40:02d}", step) for step in range(8)]
    path = write(tmp_path, rows)
    beside = pd.DataFrame({"item_id": [f"i{one:02d}" for one in range(40)]})
    beside["attributes"] = [[f"tens{one // 10}"] for one in range(40)]
    beside.to_parquet(tmp_path / "shop_item_attributes.parquet")
    command = ["sequential", "--data", str(path), "--order", "position", "--seeds", "1", "--epochs", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--refit", "--no-progress", "--out", str(tmp_path / "out")])
    sequential.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.num_rows == figures["examples"] == 300
    worth = ranking_metrics(table["rank_blend"].to_numpy())
    assert figures["hr10"] == pytest.approx(worth["hit_rate@10"], abs=1e-5)
    assert figures["ndcg10"] == pytest.approx(worth["ndcg@10"], abs=1e-5)
    assert figures["ndcg10"] > 0.9
    first = table.slice(0, 1).to_pylist()[0]
    assert first["ranked"].index(first["target"]) + 1 <= first["rank_blend"]
    assert sum(figures["weights"].values()) == pytest.approx(1, abs=0.01)
