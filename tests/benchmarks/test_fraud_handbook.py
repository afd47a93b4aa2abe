"""The fraud benchmark: its protocol by hand, its features beside the declared ones, and a run on made-up payments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.fraud_handbook import read
from benchmarks.fraud_handbook_peers import FEATURES, book_features
from benchmarks.fraud_handbook_protocol import Ruler, fold, plan
from benchmarks.handbook_features import mismatches


def write(path: Path, rows: int, days: int, cards: int, seed: int = 0) -> pa.Table:
    """Payments at whole hours; each card has a usual amount, a fraud is four times as much."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, days * 24, rows)) * 3_600
    card = rng.integers(0, cards, rows)
    fraud = rng.random(rows) < 0.02
    amount = rng.uniform(5, 50, cards)[card] * rng.uniform(0.5, 1.5, rows) * np.where(fraud, 4, 1)
    table = pa.table(
        {
            "TRANSACTION_ID": pa.array(range(rows), pa.int32()),
            "TX_DATETIME": pa.array((1_522_540_800 + seconds) * 1_000_000, pa.timestamp("us")),
            "CUSTOMER_ID": pa.array(card, pa.int32()),
            "TERMINAL_ID": pa.array(rng.integers(0, 2 * cards, rows), pa.int32()),
            "TX_AMOUNT": np.round(amount, 2),
            "TX_FRAUD": pa.array(fraud).cast(pa.int8()),
        }
    )
    pq.write_table(table, path)
    return table


def test_book_features_are_the_declared_ones(tmp_path: Path) -> None:
    """The numpy features equal the naive version that the Feast views are held against."""
    raw = write(tmp_path / "t.parquet", rows=2_000, days=60, cards=20)
    found = book_features(read(tmp_path / "t.parquet", delay_days=7).payments)
    columns = {name: pa.array(column) for name, column in zip(FEATURES[1:], found[:, 1:].T, strict=True)}
    assert mismatches(pa.table(columns), raw, sample=2_000) == 0


def test_the_book_s_weeks() -> None:
    """On 183 days the test week begins on day 129; 13 weeks from day 87 on; validation's labels are known by then."""
    weeks = plan(183, train_start=None, folds=13, validation=3, delay=7)
    assert weeks.test == 129  # 2018-08-08
    assert weeks.prequential == tuple(range(87, 177, 7))
    assert weeks.validation == (59, 66, 73)


def test_a_short_file_is_refused() -> None:
    """The message says how long it is and what would fit."""
    with pytest.raises(ValueError, match="spans 60 days; with training from day 38, 13 measured"):
        plan(60, train_start=None, folds=13, validation=3, delay=7)


def test_cards_known_to_be_compromised_leave_the_test() -> None:
    """Frauds of the training week from day 0, and of days whose labels are due on a test day, take their cards out."""
    day = np.array([0, 0, 7, 14, 14, 14, 15, 15, 15])
    card = np.array([1, 2, 3, 1, 2, 3, 2, 3, 4])
    fraud = np.array([1, 0, 1, 0, 0, 1, 1, 0, 0])
    found = fold(day, card, fraud, start=14, delay=7)
    assert found.train.tolist() == [0, 1]
    # card 1 is known on day 14; card 3's fraud of day 7 is known on day 15
    assert found.test.tolist() == [4, 5, 6, 8]


def test_auc_and_average_precision_are_sklearn_s() -> None:
    """Ties in full; a card drawn twice counts as its rows twice."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    score, fraud, card = rng.integers(0, 20, 300) / 20, rng.integers(0, 2, 300), rng.integers(0, 30, 300)
    weight = rng.integers(0, 3, 30).astype(float)
    auc, ap, _ = Ruler(score, fraud, card, np.zeros(300, np.int64)).measure(weight)
    each = weight[card]
    assert auc == pytest.approx(roc_auc_score(fraud, score, sample_weight=each))
    assert ap == pytest.approx(average_precision_score(fraud, score, sample_weight=each))


def test_cards_that_were_found_leave_the_days_after() -> None:
    """102 cards a day: card 0 is found on the first day and leaves; card 101 comes too late in the order, then in."""
    card = np.tile(np.arange(102), 2)
    day = np.repeat([0, 1], 102)
    score = np.tile(np.linspace(1, 0, 102), 2)
    score[102 + 101] = 0.5
    fraud = np.isin(card, [0, 101]).astype(np.int64)
    found = Ruler(score, fraud, card, day).measure(np.ones(102))[2]
    assert found == pytest.approx((1 / 100 + 1 / 100) / 2)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    """A file of another form is refused by what it lacks."""
    pq.write_table(pa.table({"TRANSACTION_ID": [1]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="no column CUSTOMER_ID"):
        read(tmp_path / "t.parquet", delay_days=7)


@pytest.mark.slow
def test_a_run_leaves_what_its_figures_can_be_computed_from(tmp_path: Path) -> None:
    """On a small file: every key of the last line, and the mean average precision again from the predictions."""
    from sklearn.metrics import average_precision_score

    write(tmp_path / "t.parquet", rows=16_000, days=70, cards=300)
    command = [sys.executable, "-m", "benchmarks.fraud_handbook", "--data", str(tmp_path / "t.parquet")]
    options = [
        "--folds",
        "2",
        "--validation",
        "1",
        "--seeds",
        "1",
        "--samples",
        "10",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {"auc", "ap", "cp100", "prequential_auc", "prequential_ap", "prequential_cp100", "seconds"} <= set(figures)
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    weeks = [average_precision_score(week["target"], week["hybrid_0"]) for _, week in rows.groupby("fold")]
    assert len(weeks) == figures["folds"] == 2
    assert figures["prequential_ap"] == pytest.approx(np.mean(weeks), abs=1e-5)
    low, high = figures["prequential_ap_over_xgboost_interval"]
    assert low <= high
