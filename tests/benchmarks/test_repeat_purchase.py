"""The repeat purchase benchmark: reading any file, figures, and what it leaves behind."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import repeat_purchase
from benchmarks.repeat_purchase import read
from benchmarks.repeat_purchase_metrics import METRICS, Judged, differences

START = dt.date(2025, 3, 1)


def write(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def dates(days: list[int]) -> list[dt.date]:
    return [START + dt.timedelta(days=day) for day in days]


def test_judged() -> None:
    """Figures on drawn customers are those of customers copied as often as they were drawn."""
    rng = np.random.default_rng(0)
    target = rng.poisson(0.7, 200).astype(float)
    expected = np.round(rng.gamma(1, 1, 200), 1)  # with ties
    drawn = rng.integers(0, 4, 200).astype(float)
    y, e = (np.repeat(values, drawn.astype(int)) for values in (target, expected))
    found = Judged(target, expected, expected).measure(drawn)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((y - e) ** 2)))
    assert found["bias"] == pytest.approx(e.sum() / y.sum() - 1)
    assert found["correlation"] == pytest.approx(np.corrcoef(y, e)[0, 1])
    assert found["auc"] == pytest.approx(roc_auc_score(y > 0, e))


def test_differences() -> None:
    """A forecast that is better in everything is ahead by its whole interval, and level with itself."""
    rng = np.random.default_rng(1)
    target = rng.poisson(2, 500).astype(float)
    good, bad = target + rng.normal(0, 0.1, 500), target + rng.normal(1, 2, 500)
    ours = Judged(target, good, good)
    gains = differences([ours], {"bad": Judged(target, bad, bad), "same": ours}, 500, draws=50)
    assert all(gains["bad"][metric]["low"] > 0 for metric in METRICS)
    assert all(gains["same"][metric] == {"gain": 0, "low": 0, "high": 0} for metric in METRICS)


def test_read(tmp_path: Path) -> None:
    """Halves are of equal length, a day's purchases are one, and who begins in the hold-out is left out."""
    path = write(
        tmp_path / "log.parquet",
        {
            "customer_id": ["a", "a", "a", "b", "c", "a", "b"],
            "date": dates([0, 4, 4, 3, 5, 9, 10]),
            "amount": [1.0] * 7,
            "note": ["text"] * 7,
        },
    )
    split = read(path)
    assert (split.days, split.until) == (5, 4)  # 11 days: 0-4, 5-9
    assert split.ids.tolist() == ["a", "b"]
    assert split.target.tolist() == [1, 0]
    assert split.purchases.amounts["amount"].tolist() == [1, 1 + 1, 1, 1, 1]
    earlier = read(path, until="2025-03-04")
    assert (earlier.days, earlier.target.tolist()) == (4, [1, 0])


@pytest.mark.parametrize(
    ("columns", "until", "message"),
    [
        ({"customer": [1], "date": dates([0])}, None, r"lacks \['customer_id'\], it has \['customer', 'date'\]"),
        ({"customer_id": [1, None], "date": dates([0, 1])}, None, "customer_id is null in row 1, 1 in all"),
        ({"customer_id": [1], "date": ["soon"]}, None, "date is string and cannot be read as dates"),
        ({"customer_id": [1], "date": dates([0])}, None, "the file spans 1 days"),
        ({"customer_id": [1, 1], "date": dates([0, 9])}, "2025-03-08", "calibration period of 8 days"),
        ({"customer_id": pa.array([], pa.int64()), "date": pa.array([], pa.date32())}, None, "has no rows"),
    ],
)
def test_read_refuses(tmp_path: Path, columns: dict[str, object], until: str | None, message: str) -> None:
    """What cannot be forecast from is refused, and said what is wrong."""
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "log.parquet", columns), until)


@pytest.mark.slow
def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any shop's file gives a table, one JSON object, and predictions from which figures can be computed again."""
    rng = np.random.default_rng(2)
    rate = rng.gamma(0.6, 0.05, 600)
    bought = rng.random((600, 160)) < rate[:, None]
    bought[np.arange(600), rng.integers(0, 50, 600)] = True
    who, day = np.nonzero(bought)
    path = write(tmp_path / "log.parquet", {"customer_id": [f"c{one}" for one in who], "date": dates(day.tolist())})
    repeat_purchase.main(["--data", str(path), "--seeds", "2", "--draws", "20", "--out", str(tmp_path)])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"rmse", "bias", "correlation", "auc", "bgnbd_log_likelihood", "seconds"} <= set(figures)
    kept = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    assert len(kept) == figures["customers"]
    again = [np.sqrt(((kept.target - kept[f"ours_seed{seed}_expected"]) ** 2).mean()) for seed in range(2)]
    assert figures["rmse"] == pytest.approx(np.mean(again))
    assert figures["peers"]["Pareto/NBD"]["bias"] == pytest.approx(
        kept["pareto_nbd_expected"].sum() / kept.target.sum() - 1
    )


def test_main_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong file ends with one sentence, no traceback."""
    path = write(tmp_path / "log.parquet", {"customer_id": [1], "date": dates([0])})
    with pytest.raises(SystemExit, match="2"):
        repeat_purchase.main(["--data", str(path)])
    assert "the file spans 1 days" in capsys.readouterr().err
