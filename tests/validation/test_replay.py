"""Values at a log offset: the quick way against a log that is read up to each offset."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.arrivals import SECOND, arrivals
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import aggregates, days, hours, label_rate
from clicktrail.engine import values
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.read_log import plain
from tests.clicktrail.test_engine import VIEWS
from tests.clicktrail.test_event_log import rows
from tests.worlds import START, world
from validation import replay


def shuffled_log(folder: Path, rng: random.Random) -> EventLog:
    """Worlds whose events and labels came in any order, some rows at a time: labels before what they speak of too."""
    table = arrivals([world(rng, str(number)) for number in range(3)]).select(arrow_schema().names)
    order = list(range(table.num_rows))
    rng.shuffle(order)
    log = EventLog(folder / "log")
    while order:
        some, order = order[:5], order[5:]
        log.append(table.take(pa.array(some)))
    return log


def one_by_one(
    log: EventLog, view: Declaration, keys: list[str | None], offset: np.ndarray, t: np.ndarray
) -> dict[str, list[object]]:
    """The slow way: the log is loaded for every read."""
    out: dict[str, list[object]] = {name: [] for name in view.outputs}
    for key, p, time in zip(keys, offset.tolist(), t.tolist(), strict=True):
        history, entities = load_history(log, view.entity_key, [view], stop=p)
        codes = entity_codes(pa.array([key], pa.string()), entities)
        for name, column in values(view, history, codes, np.array([time])).items():
            out[name].append(plain(column)[0].as_py())
    return out


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([0, 4_000_000]))
def test_at_an_offset_is_as_if_the_log_ended_there(seed: int, limit: int) -> None:
    """Every view, at any offset and time, whatever order events and labels came in, split by offset or not."""
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(replay, "_LAID_OUT", limit):
        log = shuffled_log(Path(folder), rng)
        if not log.version:
            return
        for view in VIEWS:
            ids = [f"{case}|{name}" for case in range(3) for name in "uvTS"]
            keys: list[str | None] = rng.choices([*ids, "nobody", None], k=25)
            offset = np.array([rng.randint(0, log.version) for _ in keys])
            t = np.array([START + rng.choice([0, 3600, 90_000, 200_000, 700_000, 10**7]) for _ in keys]) * SECOND
            found, _ = replay.load(log, view).values(pa.array(keys, pa.string()), offset, t)
            assert {name: column.to_pylist() for name, column in found.items()} == one_by_one(
                log, view, keys, offset, t
            )


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_lagging_is_what_the_clock_saw_and_the_offset_did_not(tmp_path: Path, view: Declaration) -> None:
    """At the end of the log no read lags; at its beginning all do that see anything."""
    log = shuffled_log(tmp_path, random.Random(7))  # noqa: S311 - reproducible test data
    keys = pa.array([f"{case}|{name}" for case in range(3) for name in "uvTS"])
    late = np.full(len(keys), (START + 10**9) * SECOND)
    loaded = replay.load(log, view)
    _, none = loaded.values(keys, np.full(len(keys), log.version), late)
    _, some = loaded.values(keys, np.zeros(len(keys), np.int64), late)
    seen = np.diff(loaded.history.starts)[entity_codes(keys, loaded.entities)] > 0
    assert not none.any()
    assert (some == seen).all()


def test_a_label_counts_from_its_own_offset_on(tmp_path: Path) -> None:
    """A payment that the log knew at an offset is not labelled there by what was said of it later."""
    shop = EventLog(tmp_path / "log")
    payment = {"event_id": "p", "user_id": "u", "event_type": "payment", "terminal_id": "T", "price_minor": 1}
    fraud = {"event_id": "l", "event_type": "label", "label_of": "p", "label": "fraud", "label_value": 1}
    for second, one in enumerate([payment, fraud]):
        shop.append(rows({**one, "event_timestamp": second, "ingested_at": second}))
    rate = aggregates(
        name="terminal_v1",
        entity_key="terminal_id",
        windows=[days(1)],
        aggregations=[label_rate("fraud", of="payment", delay=hours(1), name="rate")],
    )
    found, lagging = replay.load(shop, rate).values(
        pa.array(["T", "T", "T"]), np.array([0, 1, 2]), np.array([7200 * SECOND] * 3)
    )
    assert found["rate"].to_pylist() == [[0, 0], [0, 1], [1, 1]]
    assert lagging.tolist() == [True, True, False]
