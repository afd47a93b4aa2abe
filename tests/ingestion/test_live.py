"""The one path: every event is accounted for, rejected ones are kept, handed over twice is once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.live import ACCEPTED, COPY, REJECTED, Arrivals, LiveIntake
from ingestion.mapping import load_mapping
from ingestion.prepare import prepare
from tests.ingestion.live_events import ARRIVED, view
from validation.quarantine import read_quarantine
from validation.stamps import rules_stamp


def arrivals(*events: object, stream: str = "http", first: int = 0) -> Arrivals:
    positions = np.arange(first, first + len(events))
    return Arrivals(stream=stream, events=events, positions=positions, arrived_at=ARRIVED)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def live(home: Settings) -> LiveIntake:
    return LiveIntake(home)


def kept(home: Settings) -> list[tuple[str, int, str]]:
    """(stream, position, rule) of every row in quarantine."""
    return [(row["file"], row["row"], row["rule"]) for row in read_quarantine(home.quarantine).to_pylist()]


def test_what_came_live_passed_the_row_rules(live: LiveIntake, home: Settings) -> None:
    """The log records that the row rules let these rows in."""
    live.take_in([arrivals(view("a"), view("b", item_id=None))])
    live.take_in([arrivals(view("c"))])
    assert [(one.start, one.stop, one.by) for one in EventLog(home.log).validated()] == [(0, 2, rules_stamp())]


def test_each_event_has_its_fate(live: LiveIntake, home: Settings) -> None:
    """Accepted, copy or rejected, in the order in which they were given, over all groups of a flush."""
    a, other = view("a"), view("a", price_minor=5)
    taken = live.take_in([arrivals(a, view("b", item_id=None), 7), arrivals(a, other, view("c"), stream="s", first=50)])
    assert taken.fates.tolist() == [ACCEPTED, REJECTED, REJECTED, COPY, REJECTED, ACCEPTED]
    assert taken.rejected_at.tolist() == [1, 2, 4]
    assert taken.rejected["rule"].to_pylist() == ["item_id_present", "event_readable", "conflict"]
    assert kept(home) == [("http", 1, "item_id_present"), ("http", 2, "event_readable"), ("s", 51, "conflict")]
    assert taken.version == EventLog(home.log).version == 2
    assert EventLog(home.log).read(["event_id", "source_seq"]).to_pylist() == [
        {"event_id": "a", "source_seq": 0},
        {"event_id": "c", "source_seq": 52},
    ]


def test_a_part_of_a_flush_is_told_of_itself_alone(live: LiveIntake) -> None:
    """A request hears of its own events, counted from its first."""
    taken = live.take_in([arrivals(view("a"), 1, 2, view("b"), view("a"), 3)])
    part = taken.part(2, 5)
    assert part.fates.tolist() == [REJECTED, ACCEPTED, COPY]
    assert part.rejected_at.tolist() == [0]
    assert part.rejected["row"].to_pylist() == [2]
    assert [taken.part(0, 1).count(fate) for fate in (ACCEPTED, COPY, REJECTED)] == [1, 0, 0]


def test_labels_enter_the_same_way(live: LiveIntake, home: Settings) -> None:
    """A label needs no user; one that says nothing is refused with the way out."""
    label = {"event_type": "label", "event_timestamp": "2026-03-31T12:00:00Z", "label_of": "a", "label": "fraud"}
    taken = live.take_in([arrivals({**label, "event_id": "l1", "label_value": 1}, {**label, "event_id": "l2"})])
    assert taken.fates.tolist() == [ACCEPTED, REJECTED]
    assert taken.rejected["remedy"].to_pylist() == ["send label_of (an event_id), label and label_value (0 or 1)"]
    assert EventLog(home.log).read(["label_of", "label", "label_value"]).to_pylist() == [
        {"label_of": "a", "label": "fraud", "label_value": 1}
    ]


def test_a_table_enters_the_same_way(live: LiveIntake) -> None:
    """Rows that are an Arrow table already meet the same rules."""
    good = {**dict.fromkeys(arrow_schema().names), **view("a"), "source_seq": 1}
    good |= {"event_timestamp": ARRIVED, "ingested_at": ARRIVED}
    schema = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema()])
    table = pa.Table.from_pylist([good, {**good, "event_id": "b", "event_type": "stare"}, good], schema=schema)
    taken = live.enter(table, streams=np.array(["push"] * 3), positions=np.arange(3))
    assert taken.fates.tolist() == [ACCEPTED, REJECTED, COPY]
    assert taken.rejected.select(["file", "row", "rule"]).to_pylist() == [
        {"file": "push", "row": 1, "rule": "event_type_known"}
    ]


def test_rejected_rows_are_kept_before_the_others_enter(live: LiveIntake, home: Settings) -> None:
    """Where quarantine cannot be written nothing enters; handed over again, every row is there once."""
    home.shop_home.mkdir(parents=True)
    home.quarantine.touch()  # a file where the folder should be
    with pytest.raises(OSError, match="quarantine"):
        live.take_in([arrivals(view("a"), 5)])
    assert EventLog(home.log).version == 0
    home.quarantine.unlink()
    (home.log / "segments").touch()
    with pytest.raises(OSError, match="segments"):
        live.take_in([arrivals(view("a"), 5)])
    assert (EventLog(home.log).version, kept(home)) == (0, [("http", 1, "event_readable")])
    (home.log / "segments").unlink()
    assert live.take_in([arrivals(view("a"), 5)]).count(ACCEPTED) == 1
    assert kept(home) == [("http", 1, "event_readable")]


def test_quarantine_is_few_files(live: LiveIntake, home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejected rows of many flushes share a file until it is full, and none is lost or doubled between files."""
    monkeypatch.setattr("ingestion.live._FILE_ROWS", 4)
    for first in range(0, 10, 2):
        live.take_in([arrivals(5, 6, first=first)])
    assert sorted(row for _, row, _ in kept(home)) == list(range(10))
    assert sorted(pq.read_metadata(path).num_rows for path in home.quarantine.glob("*.parquet")) == [2, 4, 4]
    live.take_in([arrivals(view("a"))])
    assert len(list(home.quarantine.glob("*.parquet"))) == 3


EVENTS = st.builds(
    lambda name, more: {**view(name), **more},
    st.sampled_from("abcd"),
    st.sampled_from(
        [
            {},
            {},
            {"user_id": None},
            {"item_id": None},
            {"price_minor": -1},
            {"event_type": "stare"},
            {"event_type": "label"},
            {"event_timestamp": "2026-03-31T12:05:01Z"},
            {"event_type": "payment", "price_minor": None},
        ]
    ),
)


@settings(max_examples=40, deadline=None)
@given(flushes=st.lists(st.lists(EVENTS | st.just(5), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_log_holds_what_the_fates_say(
    tmp_path_factory: pytest.TempPathFactory, flushes: list[list[object]]
) -> None:
    """Whatever comes in whatever flushes: events in = accepted + copies + rejected, and each row is where it says."""
    home = Settings(home=tmp_path_factory.mktemp("home"))
    live = LiveIntake(home)
    accepted: dict[str, Any] = {}
    position = rejected = 0
    for events in flushes:
        taken = live.take_in([arrivals(*events, first=position)])
        for event, fate in zip(events, taken.fates, strict=True):
            if fate == ACCEPTED:
                assert isinstance(event, dict)
                assert event["event_id"] not in accepted
                accepted[event["event_id"]] = event
            elif fate == COPY:
                assert isinstance(event, dict)
                assert accepted[event["event_id"]] == event
            else:
                rejected += 1
        position += len(events)
    assert sorted(EventLog(home.log).read(["event_id"])["event_id"].to_pylist()) == sorted(accepted)
    assert len(kept(home)) == rejected


def test_a_file_and_a_stream_of_the_same_events_end_alike(live: LiveIntake, home: Settings, tmp_path: Path) -> None:
    """The same rows are refused by the same rules, and the same rows enter, whichever way they come."""
    events: Sequence[dict[str, Any]] = [
        {**view(f"e{n}"), "ingested_at": "2026-03-31T12:00:01Z", "source_seq": n, **more}
        for n, more in enumerate(
            [
                {},
                {"item_id": None},
                {"price_minor": -1},
                {"event_type": "stare"},
                {"user_id": None},
                {"event_timestamp": "2026-03-31T13:00:00Z"},
                {},
            ]
        )
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    columns = "".join(f'{name} = "{name}"\n' for name in events[0] if name != "ingested_at")
    (tmp_path / "own.toml").write_text(f'[columns]\n{columns}ingested_at = {{ stream = "ingested_at" }}\n')
    mapping = load_mapping(str(tmp_path / "own.toml"))
    by_file = prepare(tmp_path / "events.jsonl", file="events.jsonl", digest="d", mapping=mapping)
    taken = live.take_in([arrivals(*events, first=1)])
    same = ["row", "event_id", "rule", "column", "reason", "remedy", "also"]
    assert taken.rejected.select(same).to_pylist() == by_file.bad.select(same).to_pylist()
    assert EventLog(home.log).read().drop(["offset"]).to_pylist() == by_file.events.to_pylist()
