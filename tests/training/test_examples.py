"""Examples: what each task asks of a log, which labels count, what is left out and how negatives are sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from training.build_set import choose_examples
from training.presets import preset
from training.task import load_task
from training.training_set import TEST, TRAIN

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_767_225_600_000_000  # 2026-01-01


def event(name: str, at: int, kind: str, **fields: object) -> dict[str, Any]:
    """A contract row; it arrives a second after it happened."""
    row: dict[str, object] = {
        "event_id": name,
        "event_type": kind,
        "event_timestamp": START + at,
        "ingested_at": START + at + 1_000_000,
        "source_seq": 0,
        "user_id": "u",
    }
    return row | fields


def log_of(rows: list[dict[str, Any]], path: Path) -> EventLog:
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows]).cast(
            pa.int64() if pa.types.is_timestamp(field.type) else field.type
        )
        for field in arrow_schema()
    }
    table = pa.table(
        {
            field.name: columns[field.name].cast(field.type)
            if pa.types.is_timestamp(field.type)
            else columns[field.name]
            for field in arrow_schema()
        },
        schema=arrow_schema(),
    )
    log = EventLog(path)
    assert log.append(table).rejected.num_rows == 0
    return log


def payments(count: int, days: int) -> list[dict[str, Any]]:
    """Payments evenly over the days; every tenth is charged back 3 days later, every twentieth after 30."""
    rows = []
    for place in range(count):
        at = place * days * DAY // count
        rows.append(event(f"p{place}", at, "payment", price_minor=100, card_id="c", terminal_id="t", device="d"))
        late = 30 if place % 20 == 0 else 3
        if place % 10 == 0 and at + late * DAY < days * DAY:
            fields = {"label_of": f"p{place}", "label": "fraud", "label_value": 1, "user_id": None}
            rows.append(event(f"l{place}", at + late * DAY, "label", **fields))
    return rows


def test_fraud_labels_count_once_known(tmp_path: Path) -> None:
    """A chargeback that was not known when the training range's knowledge ended does not make a training label."""
    log = log_of(payments(2_000, 100), tmp_path)
    chosen = choose_examples(load_task("fraud"), preset("small", "fraud"), log, log.version)
    parts = chosen.time_split
    ids = chosen.table["example_id"].to_pylist()
    t = chosen.table["t"].cast(pa.int64()).to_numpy()
    for place, name in enumerate(ids):
        number = int(name[1:])
        delay = 30 * DAY if number % 20 == 0 else 3 * DAY
        charged = number % 10 == 0 and t[place] + delay + 1_000_000 < parts.cuts[chosen.split[place]]
        assert chosen.label[place] == charged, name
    assert t.max() + 7 * DAY <= parts.log_end  # a younger payment's label is not complete
    assert parts.validation_start - parts.train_end == 7 * DAY


def test_sampling_negatives_keeps_positives_and_says_the_rate(tmp_path: Path) -> None:
    """Of training examples all positives stay; the share of negatives that stayed is recorded; test is left alone."""
    log = log_of(payments(2_000, 100), tmp_path)
    task, config = load_task("fraud"), preset("small", "fraud")
    whole = choose_examples(task, config, log, log.version)
    few = choose_examples(task, replace(config, train_examples=400), log, log.version)
    positives = whole.label[whole.split == TRAIN].sum()
    assert few.label[few.split == TRAIN].sum() == positives
    assert few.negative_rate == pytest.approx((400 - positives) / (whole.label[whole.split == TRAIN] == 0).sum())
    assert (few.split == TEST).sum() == (whole.split == TEST).sum()


def test_retention_asks_weekly_and_looks_two_weeks_ahead(tmp_path: Path) -> None:
    """One example a week and known user; 1 exactly where something happened in the 14 days after."""
    rows = [event(f"a{day}", day * DAY + HOUR, "view", item_id="i", user_id="daily") for day in range(100)]
    rows += [event(f"b{day}", day * DAY + HOUR, "view", item_id="i", user_id="gone") for day in range(3)]
    log = log_of(rows, tmp_path)
    task = load_task("retention")
    table = task.examples(log.query, log.end_time())
    label = dict(zip(table["example_id"].to_pylist(), table["label_known_at"].is_valid().to_pylist(), strict=True))
    # the log ends on 2026-04-10 01:00; two weeks before that the last question is asked, then every week back
    assert label["daily@2026-03-27"]
    assert not label["gone@2026-03-27"]
    days = sorted(name.partition("@")[2] for name in label if name.startswith("daily"))
    assert days[-1] == "2026-03-27"
    assert len(days) == 85 // 7 + 1
    assert label["gone@2026-01-02"]  # its third event lies a day ahead


def test_recommendation_asks_at_every_view(tmp_path: Path) -> None:
    """One example a view, of its item, at its time; other events are no examples."""
    rows = [event(f"v{hour}", hour * HOUR, "view", item_id=f"i{hour % 5}") for hour in range(2_400)]
    rows += [event(f"c{hour}", hour * HOUR, "cart", item_id="i0") for hour in range(0, 2_400, 7)]
    log = log_of(rows, tmp_path)
    chosen = choose_examples(load_task("recommendation"), preset("small", "recommendation"), log, log.version)
    names = chosen.table["example_id"].to_pylist()
    assert all(name.startswith("v") for name in names)
    assert chosen.table["target"].to_pylist() == [f"i{int(name[1:]) % 5}" for name in names]
    assert np.bincount(chosen.split).sum() == len(set(names))


def test_rows_dated_years_away_do_not_move_the_split(tmp_path: Path) -> None:
    """Three views of another decade among thousands leave the ranges where they were, by hours."""
    rows = [event(f"v{hour}", hour * HOUR, "view", item_id=f"i{hour % 5}") for hour in range(2_400)]
    odd = [event(f"x{place}", (place - 4_000) * DAY, "view", item_id="i0") for place in range(3)]
    task, config = load_task("recommendation"), preset("small", "recommendation")
    plain, strange = log_of(rows, tmp_path / "plain"), log_of([*odd, *rows], tmp_path / "strange")
    expected = choose_examples(task, config, plain, plain.version).time_split
    found = choose_examples(task, config, strange, strange.version).time_split
    assert abs(found.test_start - expected.test_start) < 12 * HOUR
    assert abs(found.train_end - expected.train_end) < 12 * HOUR


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    """A log with too little of both labels is an error that says what is missing."""
    log = log_of([row for row in payments(300, 100) if row["event_type"] == "payment"], tmp_path)
    with pytest.raises(ValueError, match="of them with label 1"):
        choose_examples(load_task("fraud"), preset("small", "fraud"), log, log.version)
