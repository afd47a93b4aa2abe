"""The engine against the naive oracle, offline and through the online state."""

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
from clicktrail import declaring as d
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import days, hours, minutes
from clicktrail.engine import aggregates, sequence_lists, sequences, values
from clicktrail.entity_ids import entity_id
from clicktrail.event_log import EventLog
from clicktrail.offline import entity_codes, load_history
from clicktrail.online_state import OnlineReader, OnlineState
from tests import oracles
from tests.worlds import world

SECOND = 1_000_000
SQL = "count(distinct item_id) filter (where price_minor >= 100)"
USER = d.aggregates(
    name="user_v1",
    entity_key="user_id",
    windows=[hours(1), days(1)],
    aggregations=[
        d.count("view"),
        d.count(name="any_hop", windows=[hours(6)], hop=minutes(7)),
        d.total("price_minor", of="purchase"),
        d.distinct("item_id"),
        d.largest("price_minor", of=["purchase", "payment"]),
        d.total("quantity"),
        d.distinct("quantity"),
        d.largest("quantity"),
        d.top("quantity", k=2),
        d.top("item_id", k=2),
        d.time_since("cart"),
        d.mean("price_minor", of=["purchase", "view"]),
        d.mean("quantity", hop=minutes(7)),
        d.std("price_minor"),
        d.std("quantity"),
        d.smallest("quantity"),
        d.smallest("price_minor", hop=hours(1)),
        d.first("item_id"),
        d.first("quantity", of=["view", "cart"]),
        d.last("quantity"),
        d.last("category_id", hop=minutes(7)),
        d.most_frequent("item_id"),
        d.mean_gap(),
        d.mean_gap("view"),
        d.std_gap(),
        d.std_gap(["view", "cart"], hop=minutes(7)),
        d.ratio(d.count("view"), window=hours(1), over=days(2)),
        d.ratio(d.total("quantity"), window=minutes(90), over=days(1)),
        d.sql(SQL, name="sql", windows=[days(1)]),
    ],
)
PAIR = d.aggregates(
    name="pair_v1",
    entity_key=["user_id", "category_id"],
    windows=[hours(6), days(2)],
    aggregations=[d.count(), d.total("price_minor", of="purchase"), d.distinct("item_id"), d.last("item_id")],
)
TERMINAL = d.aggregates(
    name="terminal_v1",
    entity_key="terminal_id",
    windows=[days(1), days(7)],
    aggregations=[
        d.count("payment"),
        d.label_rate("fraud", of="payment", delay=hours(1)),
        d.label_rate("fraud", of=["payment", "view"], delay=minutes(90), hop=hours(1)),
    ],
)
RECENT = d.sequence(
    name="recent_v1",
    entity_key="user_id",
    last=3,
    fields=["item_id", "quantity"],
    within=days(1),
    events=["view", "cart"],
)
SESSION = d.sequence(name="session_v1", entity_key="user_id", last=4, fields=["item_id", "price_minor"], session=True)
PAUSE = d.sequence(name="pause_v1", entity_key="user_id", last=9, fields=["item_id"], session=hours(1), within=days(1))
NO_REPEATS = d.sequence(
    name="no_repeats_v1",
    entity_key="user_id",
    last=3,
    fields=["item_id", "event_type"],
    events=["view", "cart", "purchase"],
    drop_repeats=["item_id"],
)
NO_SAME = d.sequence(
    name="no_same_v1",
    entity_key="terminal_id",
    last=2,
    fields=["quantity"],
    drop_repeats=["quantity", "session_id"],
    session=True,
)
VIEWS = (USER, TERMINAL, RECENT, PAIR, SESSION, PAUSE, NO_REPEATS, NO_SAME)


def sql_oracle(inside: list[dict[str, Any]]) -> int:
    """What SQL says, in Python."""
    return len({one["item_id"] for one in inside if one["price_minor"] >= 100})


def key_of(view: Declaration, read: dict[str, Any]) -> str | None:
    """The entity that a view is read for in a read of a world; the pair's category is fixed."""
    return entity_id({"category_id": "c", **read}, view.entity_keys)


def expected(declaration: Declaration, case: dict[str, Any], entity: str, t: int) -> dict[str, Any]:
    """Every feature of a view by the oracle."""
    kept = oracles.accepted(case["events"])
    key = declaration.entity_key
    if declaration.is_sequence:
        features = [
            {
                "name": field,
                "kind": "sequence",
                "field": field,
                "last": declaration.last,
                "events": declaration.events,
                "within_s": (declaration.within_us or 0) // SECOND,
                "session_s": None if declaration.session_us is None else declaration.session_us // SECOND,
                "drop_repeats": declaration.drop_repeats,
                "entity": key,
            }
            for field in declaration.fields
        ]
    else:
        kinds = {"time_since": "seconds_since_last"}
        features = [
            {
                "name": one.name,
                "kind": kinds.get(one.kind, one.kind),
                "field": one.field,
                "events": one.events,
                "window_s": (one.window_us or 0) // SECOND,
                "hop_s": one.hop_us // SECOND,
                "delay_s": one.delay_us // SECOND,
                "label": one.label,
                "part": one.part,
                "over_s": (one.over_us or 0) // SECOND,
                "oracle": sql_oracle,
                "k": one.k,
                "entity": key,
            }
            for one in declaration.aggregates
        ]
    return {one["name"]: oracles.value(one, kept, case["labels"], entity, t) for one in features}


def read_offline(log: EventLog, declaration: Declaration, entity: str, t: int) -> dict[str, Any]:
    history, entities = load_history(log, declaration.entity_key, [declaration])
    codes, times = entity_codes(pa.array([entity]), entities), np.array([t * SECOND])
    return {name: column[0].as_py() for name, column in values(declaration, history, codes, times).items()}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_aggregation_equals_the_oracle_at_both_doors(seed: int) -> None:
    """Random worlds with ties, copies, late and future events and late labels: offline, online and oracle agree."""
    case = world(random.Random(seed), "hypothesis")  # noqa: S311 - reproducible test data
    reads = sorted(case["reads"], key=lambda one: one["t"])
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "log")
        waiting = arrivals([case]).sort_by("arrives")
        for read in reads:
            arrived = waiting["arrives"].to_numpy() <= read["t"]
            log.append(waiting.filter(pa.array(arrived)).select(arrow_schema().names))
            waiting = waiting.filter(pa.array(~arrived))
            for view in VIEWS:
                OnlineState(Path(folder) / "online.db").catch_up(log, view)
                entity = key_of(view, read)
                if entity is None:
                    continue
                reader = OnlineReader(Path(folder) / "online.db", [view])
                online = reader.read(view.name, [f"0|{entity}"], read["t"] * SECOND).columns
                want = expected(view, case, entity, read["t"])
                assert {name: column[0].as_py() for name, column in online.items()} == want
                assert read_offline(log, view, f"0|{entity}", read["t"]) == want


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_many_rows_at_once_are_what_each_is_alone(tmp_path: Path, view: Declaration) -> None:
    """Rows of all entities and times in one read, holes by `within` and nobody among them, do not touch each other."""
    cases = [world(random.Random(seed), str(seed)) for seed in range(12)]  # noqa: S311 - reproducible test data
    log = EventLog(tmp_path / "log")
    log.append(arrivals(cases).select(arrow_schema().names))
    history, entities = load_history(log, view.entity_key, [view])
    times = [read["t"] * SECOND for case in cases for read in case["reads"]][:24]
    codes = np.repeat([-1, *range(len(entities) + 1)], len(times))
    t = np.tile(times, len(entities) + 2)

    def read(codes: np.ndarray, t: np.ndarray) -> dict[str, list[Any]]:
        if view.is_sequence:
            columns = sequence_lists(view, sequences(view, history, codes, t))
        else:
            columns = aggregates(view.aggregates, history, codes, t)
        return {name: column.to_pylist() for name, column in columns.items()}

    together = read(codes, t)
    for row in range(0, len(codes), 7):
        alone = read(codes[row : row + 1], t[row : row + 1])
        assert alone == {name: values[row : row + 1] for name, values in together.items()}


def test_only_rows_with_a_hole_are_copied(tmp_path: Path) -> None:
    """A late old event inside a sequence costs a copy of that row's events, not of every row's."""
    log = EventLog(tmp_path / "log")
    hour, start = 3_600 * SECOND, 1_700_000_000 * SECOND
    moments = [(0, 0), (1, 1), (-23, 2), (3, 3), (4, 4)]  # (happened, arrived) in hours: the third came a day late
    events = [
        {
            **dict.fromkeys(arrow_schema().names),
            "event_id": str(place),
            "user_id": "u",
            "item_id": str(place),
            "event_type": "view",
            "event_timestamp": start + happened * hour,
            "ingested_at": start + arrived * hour,
            "source_seq": 0,
        }
        for place, (happened, arrived) in enumerate(moments)
    ]
    log.append(pa.Table.from_pylist(events, schema=arrow_schema()))
    view = d.sequence(name="day_v1", entity_key="user_id", last=5, fields=["item_id"], within=days(1))
    history, _ = load_history(log, "user_id", [view])
    t = start + np.array([2 * hour, 2 * hour - 1, 4 * hour, 5 * hour])
    slices = sequences(view, history, np.zeros(4, np.int64), t)
    assert sequence_lists(view, slices)["item_id"].to_pylist() == [
        ["0", "1"],
        ["0", "1"],
        ["0", "1", "3"],  # at 4 h what happened at -23 h is older than a day
        ["0", "1", "3", "4"],
    ]
    assert len(slices.history.known) == 5 + 3 + 4


def test_an_unknown_entity_has_the_values_of_nothing_and_none_has_no_value(tmp_path: Path) -> None:
    """Nobody known: zero counts, null maximum, empty list; no entity at all: null, and an empty list."""
    log = EventLog(tmp_path / "log")
    log.append(arrivals([world(random.Random(3), "x")]).select(arrow_schema().names))  # noqa: S311
    history, entities = load_history(log, "user_id", [USER])
    codes = entity_codes(pa.array(["nobody", None]), entities)
    columns = aggregates(USER.aggregates, history, codes, np.array([2_000_000_000 * SECOND] * 2))
    assert columns["count_view_1d"].to_pylist() == [0, None]
    assert columns["max_price_minor_payment_purchase_1d"].to_pylist() == [None, None]
    OnlineState(tmp_path / "online.db").catch_up(log, USER)
    result = OnlineReader(tmp_path / "online.db", [USER]).read("user_v1", ["nobody", None], 2_000_000_000 * SECOND)
    assert result.columns["count_view_1d"].to_pylist() == [0, None]
    assert result.known == [False, False]


def test_ids_of_any_type_name_the_same_entity() -> None:
    """Strings, categories, whole numbers, and whole numbers that pandas made floats for want of a null."""
    entities = pa.array(["5", "7"])
    for ids in (["7", None, "8"], pa.array(["7", None, "8"]).dictionary_encode(), [7, None, 8], [7.0, None, 8.0]):
        assert entity_codes(ids if isinstance(ids, pa.Array) else pa.array(ids), entities).tolist() == [1, -1, 2]
    with pytest.raises(ValueError, match="truncated"):
        entity_codes(pa.array([7.5]), entities)


def test_window_contents_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Laying windows out in pieces gives what laying them out at once gives."""
    log = EventLog(tmp_path / "log")
    cases = [world(random.Random(seed), str(seed)) for seed in range(20)]  # noqa: S311
    log.append(arrivals(cases).select(arrow_schema().names))
    history, entities = load_history(log, "user_id", [USER])
    codes = np.arange(len(entities))
    times = np.full(len(entities), (1_700_006_400 + 40_000) * SECOND)
    whole = aggregates(USER.aggregates, history, codes, times)
    monkeypatch.setattr("clicktrail.layout.CHUNK", 2)
    assert aggregates(USER.aggregates, history, codes, times) == whole
