"""The benchmark of training speed: what it trains on, what it counts, what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import nn

from benchmarks.sequential_data import Interactions, read
from benchmarks.sequential_set import VIEW
from benchmarks.training_speed import as_table, figures
from benchmarks.training_speed_products import Alone, Product, StepProducts
from benchmarks.training_speed_set import last_events, speed_set, train_range
from training.training_set import TRAIN, VALIDATION


def histories(path: Path, users: int = 40, items: int = 30, most: int = 12, length: int = 50) -> Interactions:
    rng = np.random.default_rng(0)
    rows = [
        {"user_id": user, "item_id": int(rng.integers(items)), "position": position}
        for user, size in enumerate(rng.integers(3, most + 1, users))
        for position in range(size)
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_parquet(path)
    return last_events(read(path, "position"), length)


def test_ours_and_rectools_train_on_the_same_events(tmp_path: Path) -> None:
    """An event that has a successor in the training range counts; a user's are the last 5, and one more as target."""
    data = histories(tmp_path / "rows.parquet", length=5)
    size = np.bincount(read(tmp_path / "rows.parquet", "position").user)
    counted = int((size - 3).clip(max=5).sum())
    ours = speed_set(data, length=5, validation=10)
    assert len(ours.of(TRAIN)) == counted
    assert len(ours.of(VALIDATION)) == 10
    tokens = ours.tokens[VIEW]
    first = tokens.starts[ours.of(TRAIN)]
    assert (first == data.first[data.user[first]]).all(), "one window holds all that a user has"
    given = train_range(data).groupby("user_id").size()
    assert int((given - 1).sum()) == counted


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

    data = histories(tmp_path / "rows.parquet", users=200, items=150)
    training = speed_set(data, length=50, validation=10)
    fitted, turn = epoch(training, config(packed=True))
    assert turn["events_per_s"] > 0
    said = predictions(fitted.model, training, pa.chunked_array([data.users])).to_pylist()
    assert sorted(one["user_id"] for one in said) == sorted(data.users.to_pylist())
    place = {name: user for user, name in enumerate(data.users.to_pylist())}
    for one in said:
        begin, end = data.first[place[one["user_id"]]], data.first[place[one["user_id"]] + 1]
        had = data.items.take(pa.array(data.item[begin : end - 1])).to_pylist()
        assert len(set(one["ranked"])) == 100
        assert not set(one["ranked"]) & set(had)
        assert one["target"] == data.items[int(data.item[end - 1])].as_py()
    products, flops = flops_per_event(training, config(packed=True))
    assert products
    assert 600e3 < flops < 1e6  # 2 x 3 x about 130,000 weights that an event meets
