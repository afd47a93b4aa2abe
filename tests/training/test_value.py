"""What a returning user is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.value_table import ValueTable
from training.tasks.retention import examples
from training.training_set import TEST, TRAIN, VALIDATION, TrainingSet, load, save
from training.value import fit_value, value_metrics

Sets = Callable[[str], TrainingSet]
DAY = 86_400_000_000
BOUGHT = "user_activity_v1__count_purchase_30d"


def truth(data: TrainingSet, split: int) -> np.ndarray:
    """A probability that is always right."""
    return data.target[data.of(split)].astype(np.float64)


def test_spend_follows_what_tells_it(synthetic: Sets) -> None:
    """Of all aggregates the one that spend depends on becomes an axis, and the errors are below those of the mean."""
    data = synthetic("retention")
    table = fit_value(data, truth(data, VALIDATION))
    assert table is not None
    assert BOUGHT in table.features
    found = value_metrics(data, table, data.of(TEST), truth(data, TEST))
    assert found["mae"] < 0.5 * found["mae_of_mean"]  # type: ignore[operator]
    assert found["rmse"] < 0.5 * found["rmse_of_mean"]  # type: ignore[operator]


def test_the_sum_on_validation_is_the_sum_that_was_spent(synthetic: Sets) -> None:
    """Probability times value adds up to what the users of validation spent."""
    data = synthetic("retention")
    probability = np.full(len(data.of(VALIDATION)), 0.25)
    table = fit_value(data, probability)
    assert table is not None
    found = value_metrics(data, table, data.of(VALIDATION), probability)
    assert found["expected_total"] == pytest.approx(data.value[data.of(VALIDATION)].sum())  # type: ignore[index]


def test_without_spending_there_is_no_table(synthetic: Sets) -> None:
    """A shop without prices, and a task that asks for no value, get none."""
    data = synthetic("retention")
    nothing = np.zeros(len(data.target), np.int64)
    assert fit_value(replace(data, value=nothing), truth(data, VALIDATION)) is None
    assert fit_value(replace(data, value=None), truth(data, VALIDATION)) is None


def test_a_training_set_keeps_its_values(synthetic: Sets, tmp_path: Path) -> None:
    """Saved and loaded, the values stand by their examples; those of the training range are among them."""
    data = synthetic("retention")
    save(data, tmp_path / "set")
    kept = load(tmp_path / "set").value
    assert kept is not None
    assert kept.tolist() == data.value.tolist()  # type: ignore[union-attr]
    assert kept[data.of(TRAIN)].sum() > 0


def test_a_table_speaks_by_bin() -> None:
    """Null, below the first edge, between, from the last edge on; as JSON it says the same."""
    table = ValueTable(features=("a",), edges=((10.0, 20.0),), values=np.array([1.0, 2.0, 3.0, 4.0]), mean=2.5)
    again = ValueTable.from_json(table.to_json())
    column = np.array([np.nan, 9.0, 10.0, 19.0, 20.0])
    assert again([column], 5).tolist() == [1.0, 2.0, 3.0, 3.0, 4.0]
    alone = ValueTable(features=(), edges=(), values=np.array(7.0), mean=7.0)
    assert ValueTable.from_json(alone.to_json())([], 2).tolist() == [7.0, 7.0]


def test_spend_is_that_of_the_horizon_as_known_by_its_end(tmp_path: Path) -> None:
    """What was bought within 14 days counts by its quantity, unless it became known later still."""
    rows = [
        # (type, day, days until it was known, price, quantity)
        ("view", 0.5, 0.0, 900, 1),
        ("purchase", 3.0, 0.0, 500, 2),
        ("purchase", 4.0, 30.0, 10_000, 1),
        ("purchase", 5.0, 0.0, 50, None),
        ("purchase", 15.5, 0.0, 7_000, 1),
        ("view", 43.0, 0.0, 1, 1),
    ]
    table = pa.Table.from_pylist(
        [
            {
                **dict.fromkeys(arrow_schema().names),
                "event_id": str(place),
                "user_id": "u",
                "item_id": "i",
                "event_type": kind,
                "event_timestamp": int(day * DAY),
                "ingested_at": int((day + late) * DAY),
                "source_seq": place,
                "price_minor": price,
                "quantity": quantity,
            }
            for place, (kind, day, late, price, quantity) in enumerate(rows)
        ],
        schema=arrow_schema(),
    )
    log = EventLog(tmp_path)
    log.append(table)
    found = examples(log.query, log.end_time(log.version))
    values = dict(zip(found["t"].cast(pa.int64()).to_pylist(), found["value_minor"].to_pylist(), strict=True))
    # asked on day 1, 8, ...: the last midnight that is 14 days before the end is day 29
    assert values == {1 * DAY: 2 * 500 + 50, 8 * DAY: 7_000, 15 * DAY: 7_000, 22 * DAY: 0, 29 * DAY: 0}
