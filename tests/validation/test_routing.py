"""Row rules: every row goes one of two ways, the bad ones with their reason."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.contract import EVENT_TYPES, ITEM_COLUMNS, ITEM_EVENT_TYPES, arrow_schema, row_rules
from validation.routing import Failure, route, violations

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SCHEMA = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema()])
GOOD: dict[str, Any] = {
    "event_id": "e",
    "user_id": "u",
    "item_id": "i",
    "event_type": "view",
    "event_timestamp": START,
    "ingested_at": START,
    "source_seq": 1,
}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{**GOOD, **row} for row in rows], schema=SCHEMA)


def routed(*rows: dict[str, Any]) -> list[tuple[int, str, str | None]]:
    out = route(table(*rows), file="f", rows=np.arange(1, len(rows) + 1))
    return [(row["row"], row["rule"], row["value"]) for row in out.bad.to_pylist()]


def naive(row: dict[str, Any]) -> bool:
    """Whether a row keeps the contract, said again in Python."""
    kind, happened, arrived = row["event_type"], row["event_timestamp"], row["ingested_at"]
    return (
        bool(row["event_id"])
        and kind in EVENT_TYPES
        and happened is not None
        and arrived is not None
        and row["source_seq"] is not None
        and (row["price_minor"] is None or row["price_minor"] >= 0)
        and (row["quantity"] is None or row["quantity"] >= 1)
        and (row["label_value"] is None or row["label_value"] >= 0)
        and (bool(row["user_id"]) or kind == "label")
        and (bool(row["item_id"]) or kind not in ITEM_EVENT_TYPES)
        and (row["price_minor"] is not None or kind != "payment")
        and (kind != "label" or (bool(row["label_of"]) and bool(row["label"]) and row["label_value"] in (0, 1)))
        and happened - arrived <= dt.timedelta(seconds=300)
    )


ids = st.sampled_from([None, "", "a", "b"])
times = st.sampled_from([None, *(START + dt.timedelta(seconds=seconds) for seconds in (0, 299, 300, 301, 86_400))])
numbers = st.sampled_from([None, -1, 0, 1, 2])
rows_of_anything = st.fixed_dictionaries(
    {
        **dict.fromkeys(["event_id", "user_id", "item_id", "label_of", "label"], ids),
        "event_type": st.sampled_from([None, "", "page_view", *EVENT_TYPES]),
        **dict.fromkeys(["event_timestamp", "ingested_at"], times),
        **dict.fromkeys(["source_seq", "price_minor", "quantity", "label_value"], numbers),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(rows_of_anything, max_size=30))
def test_rules_as_sql_are_the_rules_as_read(rows: list[dict[str, Any]]) -> None:
    """Routing keeps exactly the rows that keep the contract, in order, and loses none."""
    out = route(pa.Table.from_pylist(rows, schema=SCHEMA), file="f", rows=np.arange(len(rows)))
    assert out.kept.tolist() == [at for at, row in enumerate(rows) if naive(row)]
    assert out.good.num_rows == len(out.kept)
    assert sorted([*out.kept.tolist(), *out.bad["row"].to_pylist()]) == list(range(len(rows)))


def test_each_rule_is_named_with_value_reason_and_remedy() -> None:
    """A bad row says which rule, which value, why, and what to do."""
    out = route(table({}, {"event_type": "page_view"}), file="day.csv", rows=np.array([7, 9]))
    assert out.bad.to_pylist() == [
        {
            "file": "day.csv",
            "row": 9,
            "event_id": "e",
            "rule": "event_type_known",
            "column": "event_type",
            "value": "page_view",
            "reason": "event_type is none of the contract's values",
            "remedy": f"map it to one of: {', '.join(EVENT_TYPES)}",
            "also": "",
        }
    ]


def test_a_row_counts_once_under_its_first_rule() -> None:
    """A row that breaks three rules is one row; the other two are named beside it."""
    out = route(table({"event_id": None, "user_id": "", "price_minor": -5}), file="f", rows=np.array([1]))
    assert out.bad["rule"].to_pylist() == ["event_id_present"]
    assert out.bad["also"].to_pylist() == ["price_minor_minimum,user_id_present"]


def test_what_could_not_be_read_explains_more_than_what_is_missing() -> None:
    """An unreadable time is reported as unreadable with its text, not as missing."""
    failure = Failure(
        column="event_timestamp",
        rule="event_timestamp_readable",
        reason="r",
        remedy="m",
        values=pa.array(["soon", None]),
    )
    out = route(table({"event_timestamp": None}, {}), file="f", rows=np.array([1, 2]), failures=[failure])
    assert [(row["rule"], row["value"]) for row in out.bad.to_pylist()] == [("event_timestamp_readable", "soon")]


def test_five_minutes_ahead_is_the_limit() -> None:
    """Exactly 300 s ahead of arrival is accepted, a microsecond more is not."""
    ahead = START + dt.timedelta(seconds=300)
    assert routed({"event_timestamp": ahead}) == []
    late = ahead + dt.timedelta(microseconds=1)
    assert routed({"event_timestamp": late}) == [(1, "ahead_of_arrival", "2026-01-01 00:05:00.000001+00")]


def test_side_tables_have_rules_of_the_same_kind() -> None:
    """An item without an id, or below a price of nothing, is rejected."""
    schema = pa.schema([column.field.with_nullable(nullable=True) for column in ITEM_COLUMNS])
    items = pa.Table.from_pylist(
        [{"item_id": "a"}, {"item_id": ""}, {"item_id": "c", "price_minor": -1}], schema=schema
    )
    out = route(items, file="items", rows=np.arange(3), columns=ITEM_COLUMNS)
    assert out.bad["rule"].to_pylist() == ["item_id_present", "price_minor_minimum"]


def test_violations_are_one_flag_a_rule() -> None:
    """Each rule of the contract has its flag for each row."""
    flags = violations(table({}, {"price_minor": -1}))
    assert list(flags) == [rule.name for rule in row_rules()]
    assert [name for name, rows in flags.items() if rows.any()] == ["price_minor_minimum"]
    assert flags["price_minor_minimum"].tolist() == [False, True]
