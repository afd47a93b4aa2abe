"""The history of the catalogue grows by what changed, and its past stays as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA, KNOWN_AT, Catalogue
from clicktrail.contract import ITEM_COLUMNS, arrow_schema
from ingestion.item_history import Grown, grow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rows(*given_rows: dict[str, Any]) -> pa.Table:
    """Good rows of a file; `known_at` (microseconds) makes it a source that records it."""
    dated = any("known_at" in row for row in given_rows)
    columns = [*ITEM_COLUMNS, KNOWN_AT] if dated else [*ITEM_COLUMNS]
    schema = pa.schema([*arrow_schema(tuple(columns)), ("__file", pa.string()), ("__row", pa.int64())])
    moments = [
        {name: EPOCH + timedelta(microseconds=value) if name.endswith("_at") else value for name, value in row.items()}
        for row in given_rows
    ]
    return pa.Table.from_pylist(
        [{**row, "__file": "items.csv", "__row": number} for number, row in enumerate(moments, 1)], schema=schema
    )


def said(grown: Grown) -> list[tuple[str, int, int, int]]:
    """(item, known_at, version, price) of all versions."""
    return [(row["item_id"], row["known_at"], row["version"], row["price_minor"]) for row in grown.history.to_pylist()]


def test_the_first_take_in_knows_items_since_their_launch() -> None:
    """Where no launch is given, always: history loaded in bulk is older than its loading."""
    grown = grow(
        None, rows({"item_id": "a", "price_minor": 5, "launched_at": 40}, {"item_id": "b", "price_minor": 6}), now=90
    )
    assert said(grown) == [("a", 40, 1, 5), ("b", ALWAYS, 1, 6)]
    assert grown.added == 2


def test_a_later_take_in_adds_what_changed_when_it_changed() -> None:
    """New and changed items from now on; the same again and what is missing add nothing."""
    first = grow(None, rows({"item_id": "a", "price_minor": 5}, {"item_id": "b", "price_minor": 6}), now=90)
    changed = rows({"item_id": "a", "price_minor": 7}, {"item_id": "c", "price_minor": 8, "launched_at": 40})
    second = grow(first.history, changed, now=100)
    assert said(second) == [("a", ALWAYS, 1, 5), ("a", 100, 2, 7), ("b", ALWAYS, 1, 6), ("c", 100, 1, 8)]
    assert second.newest["item_id"].to_pylist() == ["a", "c"]
    third = grow(second.history, changed, now=110)
    assert (said(third), third.added, third.refused.num_rows) == (said(second), 0, 0)


def test_a_price_that_comes_back_is_a_version() -> None:
    """5, 7, 5 are three versions; a value that becomes null is one too."""
    history = None
    for now, price in ((10, 5), (20, 7), (30, 5), (40, None)):
        history = grow(history, rows({"item_id": "a", "price_minor": price}), now=now).history
    assert history is not None
    assert history["price_minor"].to_pylist() == [5, 7, 5, None]
    assert history["known_at"].to_pylist() == [ALWAYS, 20, 30, 40]


def test_a_clock_that_was_set_back_changes_no_past() -> None:
    """A version comes after the one that it follows, whatever the clock says."""
    first = grow(None, rows({"item_id": "a", "price_minor": 5, "launched_at": 50}), now=10)
    assert said(grow(first.history, rows({"item_id": "a", "price_minor": 6, "launched_at": 50}), now=20))[1:] == [
        ("a", 51, 2, 6)
    ]


def test_a_source_that_records_its_changes_brings_all_versions() -> None:
    """Every row that says something new is a version; the newest one is the catalogue's; sent again it adds nothing."""
    told = rows(
        {"item_id": "a", "price_minor": 6, "known_at": 20},
        {"item_id": "a", "price_minor": 5, "known_at": 10},
        {"item_id": "a", "price_minor": 6, "known_at": 30},
        {"item_id": "a", "price_minor": 7, "known_at": 40},
    )
    first = grow(None, told, now=90)
    assert said(first) == [("a", 10, 1, 5), ("a", 20, 2, 6), ("a", 40, 3, 7)]
    assert first.newest["price_minor"].to_pylist() == [7]
    again = grow(first.history, told, now=95)
    assert (said(again), again.added, again.refused.num_rows) == (said(first), 0, 0)
    more = grow(first.history, rows({"item_id": "a", "price_minor": 8, "known_at": 50}), now=95)
    assert said(more)[3:] == [("a", 50, 4, 8)]


def test_a_row_that_would_change_the_past_is_refused() -> None:
    """Under a version that is there, another content is handed back with its file and row, and is not published."""
    first = grow(
        None,
        rows({"item_id": "a", "price_minor": 5, "known_at": 10}, {"item_id": "a", "price_minor": 7, "known_at": 40}),
        now=90,
    )
    late = rows({"item_id": "a", "price_minor": 6, "known_at": 20}, {"item_id": "a", "price_minor": 5, "known_at": 5})
    grown = grow(first.history, late, now=95)
    assert said(grown) == said(first)
    assert [(row["file"], row["row"], row["rule"], row["value"]) for row in grown.refused.to_pylist()] == [
        ("items.csv", 1, "past_changed", "1970-01-01 00:00:00.00002"),
        ("items.csv", 2, "past_changed", "1970-01-01 00:00:00.000005"),
    ]
    assert grown.newest.num_rows == 0


FILE = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), min_size=1)


@settings(max_examples=20, deadline=None)
@given(files=st.lists(FILE, min_size=1, max_size=4))
def test_at_any_time_the_history_says_what_the_newest_file_said(files: list[dict[str, int]]) -> None:
    """Files arrive at 10, 20, ...: just after each, every item is as it was last sent; the past stays a part of it."""
    history: pa.Table | None = None
    sent: dict[str, int] = {}
    seen: list[tuple[int, dict[str, int]]] = []
    for nth, file in enumerate(files, 1):
        grown = grow(
            history, rows(*({"item_id": item, "price_minor": price} for item, price in file.items())), now=nth * 10
        )
        before = [] if history is None else history.to_pylist()
        assert [row for row in grown.history.to_pylist() if row in before] == before
        assert grown.history.schema == HISTORY_SCHEMA
        history = grown.history
        sent = {**sent, **file}
        seen.append((nth * 10 + 1, sent))
    assert history is not None
    catalogue = Catalogue(history)
    for at, then in seen:
        found = catalogue.as_of(pa.array(["a", "b", "c"]), np.full(3, at), "price_minor").to_pylist()
        assert found == [then.get(item) for item in "abc"]
