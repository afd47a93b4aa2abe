"""The benchmark of training speed: what it trains on, what it counts, what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.training_speed import as_table, figures
from benchmarks.training_speed_products import Alone, Product, StepProducts
from benchmarks.training_speed_set import VIEW, read_histories, train_range, training_set
from training.training_set import TEST, TRAIN, VALIDATION


def histories(path: Path, users: int = 40, items: int = 30, most: int = 12, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, most + 1, users)
    rows = [
        {"user_id": user, "item_id": int(rng.integers(items)), "position": position}
        for user, length in enumerate(lengths)
        for position in range(length)
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=seed).to_parquet(path)
    return path


def test_the_last_item_is_the_test_and_the_one_before_the_validation(tmp_path: Path) -> None:
    """Of a user with items 10, 11, 12, 13, 14 the examples are 11 and 12 (training), 13 (validation), 14 (test)."""
    rows = pd.DataFrame({"user_id": 7, "item_id": [14, 10, 13, 11, 12], "position": [4, 0, 3, 1, 2]})
    # another user, so that training knows the items
    more = pd.DataFrame({"user_id": 8, "item_id": [10, 14, 13, 12, 11, 10, 10], "position": range(7)})
    pd.concat([rows, more]).to_parquet(tmp_path / "rows.parquet")
    data = training_set(read_histories(tmp_path / "rows.parquet"), length=50, validation=2)
    assert data.items is not None
    names = np.array(data.items["item_id"].to_pylist())
    of_7 = np.array(data.example_id.to_pylist()) == "7"
    assert names[data.target[of_7]].tolist() == ["11", "12", "13", "14"]
    assert data.split[of_7].tolist() == [TRAIN, TRAIN, VALIDATION, TEST]
    tokens = data.tokens[VIEW]
    assert (tokens.ends - tokens.starts)[of_7].tolist() == [1, 2, 3, 4]


def test_ours_and_rectools_train_on_the_same_events(tmp_path: Path) -> None:
    """An event that has a successor in the training range counts; a user's are the last 5, and one more as target."""
    table = read_histories(histories(tmp_path / "rows.parquet"))
    size = table.groupby("user_id").size()
    counted = int((size - 3).clip(upper=5).sum())
    assert len(training_set(table, length=5, validation=10).of(TRAIN)) == counted
    given = train_range(table, length=5).groupby("user_id").size()
    assert int((given - 1).sum()) == counted


def test_a_file_without_its_columns_is_refused(tmp_path: Path) -> None:
    """The message names the column."""
    pd.DataFrame({"user_id": [1], "item_id": [2]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="has no column position"):
        read_histories(tmp_path / "rows.parquet")


def test_the_products_of_a_step_are_those_forward_and_backward() -> None:
    """A map of 5 x 3 to 2 columns whose input learns too: 5 x 3 x 2 forward, and as much for each of both gradients."""
    x, layer = torch.randn(5, 3, requires_grad=True), nn.Linear(3, 2)
    watch = StepProducts()
    watch.on_train_batch_start(None, None, {"history__ids": torch.zeros(1, 5, 1)}, 0)
    layer(x).sum().backward()
    watch.on_train_batch_end(None, None, None, None, 0)
    assert sorted(one.flops for one in watch.products) == [2 * 5 * 3 * 2] * 3
    assert watch.products[0] == Product(rows=5, inner=3, columns=2, left=False, right=True)
    assert watch.places == 5
    assert Alone(watch.products).rate(0.0) > 0


def test_figures_are_medians_and_theirs_is_taken_at_its_best() -> None:
    """1,200 events/s against 800 padded and 40 and 30 of RecTools; 1,200 x 500 operations of a million that fit."""
    turns = {
        "packed": [{"events_per_s": one, "peak_mb": 900.0} for one in (1_000.0, 1_200.0, 5_000.0)],
        "padded": [{"events_per_s": 800.0, "peak_mb": 700.0}],
        "products": [{"gemm_flops_per_s": 1e6, "flops_per_event": 500.0}],
        "rectools softmax": [{"events_per_s": 40.0, "peak_mb": 4_000.0}],
        "rectools sampled_softmax": [{"events_per_s": 30.0, "peak_mb": 3_000.0}],
    }
    found = figures(turns)
    assert found["events_per_s"] == 1_200
    assert found["share_of_gemm_rate"] == 1_200 * 500 / 1e6
    assert found["speedup_over_padded"] == 1_200 / 800
    assert found["speedup_over_rectools"] == 1_200 / 40
    assert found["memory_ratio"] == 900 / 3_000
    assert "speedup_over_rectools" not in figures({who: turns[who] for who in ("packed", "padded", "products")})
    assert "rectools softmax" in as_table(turns)


@pytest.mark.slow
def test_a_turn_trains_an_epoch_and_predicts(tmp_path: Path) -> None:
    """Events a second are counted, and each test user gets items that he has not had."""
    from benchmarks.training_speed_turns import config, epoch, flops_per_event, predictions

    table = read_histories(histories(tmp_path / "rows.parquet", users=200, items=150))
    data = training_set(table, length=50, validation=10)
    fitted, turn = epoch(data, config(packed=True))
    assert turn["events_per_s"] > 0
    said = predictions(fitted.model, data).to_pylist()
    assert len(said) == table["user_id"].nunique()
    had = table[table.groupby("user_id").cumcount(ascending=False) > 0].groupby("user_id")["item_id"].agg(set)
    for one in said:
        assert len(set(one["ranked"])) == 100
        assert not {int(item) for item in one["ranked"]} & had[int(one["user_id"])]
    products, flops = flops_per_event(data, config(packed=True))
    assert products
    assert 600e3 < flops < 1e6  # 2 x 3 x about 130,000 weights that an event meets
