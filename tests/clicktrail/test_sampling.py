"""A sample of entities is stable and fair, and its log gives them the values that the whole log gives."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.arrivals import arrivals
from clicktrail import declaring as do
from clicktrail import sampling
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from tests.worlds import world

USERS = do.aggregates(
    name="users_v1",
    entity_key="user_id",
    windows=[do.days(1)],
    aggregations=[do.count("view"), do.total("price_minor")],
)
TERMINALS = do.aggregates(
    name="terminals_v1",
    entity_key="terminal_id",
    windows=[do.days(7)],
    aggregations=[do.count("payment"), do.label_rate("fraud", of="payment", delay=do.hours(1))],
)
PAIRS = do.sequence(name="pairs_v1", entity_key=["user_id", "category_id"], last=5, fields=["item_id"], events=["view"])
VIEWS = (USERS, TERMINALS, PAIRS)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    made = EventLog(tmp_path_factory.mktemp("shop") / "log")
    cases = [world(random.Random(seed), str(seed)) for seed in range(60)]  # noqa: S311 - reproducible test data
    made.append(arrivals(cases).select(arrow_schema().names))
    return made


def read(log: EventLog, folder: Path, view: Declaration, entities: list[str], t: int) -> dict[str, pa.Array]:
    OnlineState(folder / f"{view.name}.db").catch_up(log, view)
    return OnlineReader(folder / f"{view.name}.db", [view]).read(view.name, entities, t).columns


def test_a_sample_has_the_values_of_the_whole_log(log: EventLog, tmp_path: Path) -> None:
    """Of single entities and pairs, labels included, several views in one small log."""
    samples = {view: sampling.sample(log, view, 10) for view in VIEWS}
    t = log.end_time() + 1
    (tmp_path / "whole").mkdir()
    with sampling.log_of(log, samples) as theirs:
        assert 0 < theirs.version < log.version
        for view, entities in samples.items():
            assert len(entities) == 10
            found, whole = read(theirs, tmp_path, view, entities, t), read(log, tmp_path / "whole", view, entities, t)
            assert {name: one.to_pylist() for name, one in found.items()} == {
                name: one.to_pylist() for name, one in whole.items()
            }


def test_a_sample_is_stable(log: EventLog) -> None:
    """Asked again it is the same; a smaller one is its beginning; of few entities it is all of them."""
    many = sampling.sample(log, USERS, 1_000)
    assert sampling.sample(log, USERS, 10) == many[:10] != sorted(many)[:10]
    users = log.query("select distinct user_id from events where event_type <> 'label'")["user_id"].to_pylist()
    assert sorted(many) == sorted(users)


def test_busy_entities_make_a_sample_smaller(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops with the entity that makes its events too many."""
    monkeypatch.setattr(sampling, "ROWS", 1)
    assert len(sampling.sample(log, USERS, 10)) == 1


def test_the_rows_that_touch_a_view_are_counted(log: EventLog) -> None:
    """Its event types with a key; labels too where it reads labels."""
    types = log.query("select event_type, user_id, terminal_id from events").to_pylist()
    payments = sum(row["event_type"] == "payment" and row["terminal_id"] is not None for row in types)
    labels = sum(row["event_type"] == "label" for row in types)
    assert sampling.touched(log, TERMINALS) == payments + labels
    assert sampling.touched(log, USERS) == sum(row["event_type"] != "label" for row in types)
    assert sampling.touched(log, USERS, start=log.version) == 0
