"""JSON events: every value is taken strictly, or named as unreadable."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.clock import microseconds
from clicktrail.contract import EVENT_COLUMNS
from ingestion.live_json import NotJson, decode, decode_or_refuse, read_events
from serving.endpoints import SCORE_PAYMENT
from serving.schema import InvalidRequestError, parse
from tests.ingestion.live_events import ARRIVED, START, view

MINUTE = 60_000_000


def read(*events: object) -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    """Rows of the table; and (rule, index, value) of every failure."""
    count = len(events)
    table, failures = read_events(events, positions=np.arange(100, 100 + count), arrived=np.full(count, ARRIVED))
    found = [
        (failure.rule, index, value)
        for failure in failures
        for index, value in enumerate(failure.values.to_pylist())
        if value is not None
    ]
    return table.to_pylist(), found


def refused(**more: object) -> list[tuple[str, str]]:
    """(rule, value) of the failures of one event, written as JSON and read again."""
    event = decode(json.dumps(view("e", **more)))
    return [(rule, value) for rule, _, value in read(event)[1]]


def test_an_event_becomes_a_row() -> None:
    """Values are taken as they stand, times in UTC, what is not sent is null, arrival and order are stamped."""
    (row,), found = read(view("e", event_timestamp="2026-03-31T14:00:00.25+02:00", quantity=None))
    assert found == []
    assert row == {
        **dict.fromkeys(column.name for column in EVENT_COLUMNS),
        **view("e"),
        "event_timestamp": START + dt.timedelta(milliseconds=250),
        "ingested_at": START,
        "source_seq": 100,
    }


def test_what_an_event_says_of_its_arrival_stands() -> None:
    """An ingested_at and a source_seq that were sent are not stamped over."""
    (row,), _ = read(view("e", ingested_at="2026-03-31T11:00:00Z", source_seq=7))
    assert (row["ingested_at"], row["source_seq"]) == (START - dt.timedelta(hours=1), 7)


def test_an_arrival_in_the_future_is_refused() -> None:
    """An event cannot have arrived later than now, up to 300 s of clock: it would hide its entity's past until then."""
    assert read(view("e", ingested_at="2026-03-31T12:05:00Z"))[1] == []
    found = read(view("e", ingested_at="2026-03-31T12:05:00.000001Z"))[1]
    assert found == [("ingested_at_ahead", 0, "2026-03-31 12:05:00.000001Z")]


@pytest.mark.parametrize("value", ["12", True, 12.0, float("nan"), 2**53, -(2**53), 10**30, [1], {"a": 1}])
def test_an_integer_is_an_integer(value: object) -> None:
    """Text, truth, fractions, NaN and numbers that JSON readers disagree on are refused by name."""
    ((rule, text),) = refused(price_minor=value)
    assert rule == "price_minor_readable"
    assert text == ("1e+30" if value == 10**30 else json.dumps(value))


@pytest.mark.parametrize("value", [5, False, "", "x" * 257, "a\0b", "\ud800", ["a"]])
def test_a_text_is_a_text(value: object) -> None:
    """Numbers, nothing, more than 256 characters, NUL and half a surrogate pair are refused by name."""
    assert [rule for rule, _ in refused(item_id=value)] == ["item_id_readable"]


@pytest.mark.parametrize(
    "value",
    ["2026-03-31T12:00:00", "2026-03-31", "noon", 1_775_000_000, "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z"],
)
def test_a_time_has_its_offset(value: object) -> None:
    """Times without an offset, epoch numbers and years that are a misread unit are refused by name."""
    assert [rule for rule, _ in refused(event_timestamp=value)] == ["event_timestamp_readable"]


def test_offenders_cost_themselves_alone() -> None:
    """Bad values anywhere in a column are found, named by their row, and leave the others as they are."""
    events = [view(f"e{n}") for n in range(100)]
    for n in (0, 41, 42, 99):
        events[n]["price_minor"] = "7"
    rows, found = read(*events)
    assert found == [("price_minor_readable", n, '"7"') for n in (0, 41, 42, 99)]
    assert [row["price_minor"] for row in rows] == [None if n in {0, 41, 42, 99} else 1_999 for n in range(100)]


def test_a_misspelt_key_is_refused() -> None:
    """A key that is no column would otherwise be lost in silence."""
    assert refused(price=1_999) == [("keys_known", "price")]


def test_a_key_stands_once() -> None:
    """Of two values under one key nobody knows which was meant."""
    twice = decode('{"event_id": "a", "event_id": "b"}')
    assert read(twice)[1] == [("keys_once", 0, '{"event_id": "b"}')]


@pytest.mark.parametrize("event", [5, "x", None, [], NotJson("{", "no end")])
def test_what_is_no_object_is_refused(event: object) -> None:
    """Whatever stands in the place of an event is named, and the rows beside it are read."""
    rows, found = read(view("a"), event, view("b"))
    assert [(rule, index) for rule, index, _ in found] == [("event_readable", 1)]
    assert [row["event_id"] for row in rows] == ["a", None, "b"]


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[" * 100_000, b"1" * 5_000 + b"x", b"nul"])
def test_no_text_breaks_the_decoder(text: bytes) -> None:
    """Half an object, nothing, no UTF-8, depth without end: each is refused with its reason."""
    found = decode_or_refuse(text)
    assert isinstance(found, NotJson)
    assert found.problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["12", "x" * 257]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)
TIMES = st.one_of(
    JSON,
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.datetimes().map(str),
    st.sampled_from(["2026-W14-2T12:00:00Z", "20260331T120000+0200", "2026-03-31T12:00:00.1234567Z", "2026-03-31 12Z"]),
)
_ASKED = {"reasons", "recent_events"}  # what a request wants beside the payment
FIELDS = [field for field in SCORE_PAYMENT if field.name not in {"event_id", "user_id", "price_minor", *_ASKED}]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_intake_takes_what_the_services_take(data: st.DataObject) -> None:
    """A payment's field that a service refuses is refused here, and what both take is the same value."""
    field = data.draw(st.sampled_from(FIELDS))
    value = data.draw(TIMES if field.kind == "time" else JSON)
    sent = {"event_id": "e", "user_id": "u", "price_minor": 1, **{one.name: None for one in FIELDS if one.nullable}}
    text = json.dumps({"event_timestamp": "2026-03-31T12:00:00Z", **sent, field.name: value})
    (row,), found = read(decode(text))
    try:
        theirs = parse(text.encode(), SCORE_PAYMENT)[field.name]
    except InvalidRequestError as error:
        rules = {problem.rule for problem in error.problems}
        contract = value is None or (rules == {"range"} and -(2**53) < value < field.minimum)
        assert contract or found, (field.name, value)  # null and the minimum are the row rules' to say
    else:
        ours = row[field.name]
        if field.kind == "time":
            year_2200 = 7_258_118_400_000_000
            assert theirs >= year_2200 if found else microseconds(ours) == theirs
        else:
            assert (found, ours) == ([], theirs)
