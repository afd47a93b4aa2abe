"""Events that come with a read, against the same events in the log."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.arrivals import arrivals
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import aggregates, count, days, sequence
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.recent_events import event_table
from tests import oracles
from tests.clicktrail.test_engine import SECOND, VIEWS, key_of, read_offline
from tests.worlds import world

KEYS = ("user_id", "terminal_id")
COUNTED = aggregates(name="counted_v1", entity_key="card_id", windows=[days(1)], aggregations=[count("payment")])
LAST = sequence(name="last_v1", entity_key="card_id", last=2, events=["payment"], fields=["price_minor"])


def state_of(folder: str, name: str, log: EventLog, views: tuple[Declaration, ...]) -> OnlineReader:
    state = OnlineState(Path(folder) / f"{name}.db")
    for view in views:
        state.catch_up(log, view)
    return OnlineReader(Path(folder) / f"{name}.db", views)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_values_are_those_of_a_log_that_has_the_events(seed: int, share: float) -> None:
    """Events given with a read, some of them in the state already: as if they had entered the log just before."""
    rng = random.Random(seed)  # noqa: S311 - reproducible test data
    case = world(rng, "hypothesis")
    read = rng.choice(case["reads"])
    t = read["t"] * SECOND
    happened = [one for one in oracles.accepted(case["events"]) if one["event_timestamp"] < read["t"]]
    fresh = {one["event_id"] for one in happened if rng.random() < share}
    # the same thing at the same moment under two names is one to a view that keeps no ids
    others = {one["event_timestamp"] for one in case["events"] if one["event_id"] not in fresh}
    fresh -= {one["event_id"] for one in happened if one["event_timestamp"] in others}
    stored = {
        "events": [one for one in case["events"] if one["event_id"] not in fresh],
        "labels": [one for one in case["labels"] if one["event_id"] not in fresh],
    }
    table = arrivals([stored]).sort_by("arrives")
    table = table.filter(pa.array(table["arrives"].to_numpy() <= read["t"])).select(arrow_schema().names)
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "log")
        log.append(table)
        there = set(log.read(["event_id"])["event_id"].to_pylist())
        before = state_of(folder, "before", log, VIEWS)
        known = [one for one in happened if f"0|{one['event_id']}" in there and rng.random() < share]
        sent = [one for one in happened if one["event_id"] in fresh] + known
        rng.shuffle(sent)
        events = event_table([_named(one) for one in sent], t - 1)
        new = events.filter(pa.array([one["event_id"] in fresh for one in sent], pa.bool_()))
        assert not log.append(new.select(arrow_schema().names).cast(arrow_schema())).rejected.num_rows
        after = state_of(folder, "after", log, VIEWS)
        asked: list[tuple[str, list[str | None]]] = []
        for view in VIEWS:
            key = key_of(view, read)
            asked.append((view.name, [key and f"0|{key}"]))
        answers, wanted = before.read_many(asked, t, events), after.read_many(asked, t)
        for view, (name, keys) in zip(VIEWS, asked, strict=True):
            values = {feature: column.to_pylist() for feature, column in answers[name].columns.items()}
            assert values == {feature: column.to_pylist() for feature, column in wanted[name].columns.items()}
            if keys[0] is not None:
                offline = read_offline(log, view, keys[0], read["t"])
                if answers[name].times == [t]:  # a state cannot go back behind an arrival
                    assert {feature: column[0] for feature, column in values.items()} == offline


def _named(event: dict[str, Any]) -> dict[str, Any]:
    """An event of a world as a request carries it, by the ids of the log."""
    columns = {name: value for name, value in event.items() if name in arrow_schema().names}
    own = {key: columns.get(key) and f"0|{columns[key]}" for key in ("event_id", *KEYS)}
    return {**columns, **own, "event_timestamp": event["event_timestamp"] * SECOND}


def payment(number: int, at: int) -> dict[str, Any]:
    return {
        "event_id": f"p{number}",
        "event_type": "payment",
        "user_id": "u",
        "card_id": "c",
        "price_minor": number,
        "event_timestamp": at * SECOND,
    }


def test_what_left_the_state_does_not_come_back(tmp_path: Path) -> None:
    """A sequence of two is sent the four payments that the log has: it stays the last two."""
    log = EventLog(tmp_path / "log")
    sent = [payment(number, 1_000 + number) for number in range(4)]
    log.append(event_table(sent, 2_000 * SECOND).select(arrow_schema().names).cast(arrow_schema()))
    reader = state_of(str(tmp_path), "online", log, (COUNTED, LAST))
    asked = [(COUNTED.name, ["c"]), (LAST.name, ["c"])]
    for order in (sent, sent[::-1], sent[:1]):
        found = reader.read_many(asked, 3_000 * SECOND, event_table(order[::-1], 3_000 * SECOND - 1))
        assert found[COUNTED.name].columns["count_payment_1d"].to_pylist() == [4]
        if len(order) > 1:
            assert found[LAST.name].columns["price_minor"].to_pylist() == [[2, 3]]


def test_a_view_without_ids_knows_an_event_by_what_it_keeps(tmp_path: Path) -> None:
    """One payment is held, another of that moment is sent: with the first beside it, it counts, alone not."""
    log = EventLog(tmp_path / "log")
    log.append(event_table([payment(0, 1_000)], 2_000 * SECOND).select(arrow_schema().names).cast(arrow_schema()))
    reader = state_of(str(tmp_path), "online", log, (COUNTED,))
    for sent, count_ in (([0, 1], 2), ([0], 1), ([1], 1)):
        events = event_table([payment(number, 1_000) for number in sent], 3_000 * SECOND - 1)
        found = reader.read_many([(COUNTED.name, ["c"])], 3_000 * SECOND, events)
        assert found[COUNTED.name].columns["count_payment_1d"].to_pylist() == [count_]


def test_somebody_new_is_known_by_what_was_sent(tmp_path: Path) -> None:
    """Without a state, the events that were sent are all that is known; those of others do not count."""
    log = EventLog(tmp_path / "log")
    log.append(event_table([payment(0, 1_000)], 2_000 * SECOND).select(arrow_schema().names).cast(arrow_schema()))
    reader = state_of(str(tmp_path), "online", log, (LAST,))
    events = event_table([{**payment(7, 2_500), "card_id": "new"}, payment(8, 2_500)], 3_000 * SECOND - 1)
    found = reader.read_many([(LAST.name, ["new", None, "other"])], 3_000 * SECOND, events)[LAST.name]
    assert found.columns["price_minor"].to_pylist() == [[7], [], []]
    assert found.known == [True, False, False]


def test_each_key_may_have_a_time_of_its_own(tmp_path: Path) -> None:
    """Two rows of one card at two moments, in one read."""
    log = EventLog(tmp_path / "log")
    log.append(event_table([payment(0, 1_000)], 1_000 * SECOND).select(arrow_schema().names).cast(arrow_schema()))
    reader = state_of(str(tmp_path), "online", log, (COUNTED,))
    t = np.array([1_001, 1_001 + 86_400]) * SECOND
    found = reader.read_many([(COUNTED.name, ["c", "c"])], t)[COUNTED.name]
    assert found.columns["count_payment_1d"].to_pylist() == [1, 0]
    assert found.times == t.tolist()
