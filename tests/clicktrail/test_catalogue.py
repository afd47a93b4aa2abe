"""The catalogue as it was known: versions of items, looked up as of a time."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA, Catalogue, as_history

LAUNCH = datetime(2026, 3, 1, tzinfo=UTC)


def versions(*rows: tuple[str, int, dict[str, Any]]) -> pa.Table:
    """A history of (item, known_at, what was known)."""
    places: dict[str, int] = {}
    out = []
    for item, known_at, values in sorted(rows, key=lambda row: row[:2]):
        places[item] = places.get(item, 0) + 1
        out.append({"item_id": item, **values, "known_at": known_at, "version": places[item]})
    return pa.Table.from_pylist(out, schema=HISTORY_SCHEMA)


def test_a_version_is_known_strictly_after_it_became_known() -> None:
    """At its own moment the version before it still stands; before the first one there is nothing."""
    catalogue = Catalogue(versions(("a", 10, {"price_minor": 500}), ("a", 20, {"price_minor": 700})))
    at = np.array([10, 11, 20, 21])
    assert catalogue.as_of(pa.array(["a"] * 4), at, "price_minor").to_pylist() == [None, 500, 500, 700]


def test_what_was_always_known_is_known_before_1970() -> None:
    """A version known always is there for every event; a null that a version says is a null."""
    catalogue = Catalogue(
        versions(
            ("a", ALWAYS, {"title": "hat", "launched_at": LAUNCH}), ("a", 5, {"title": None, "launched_at": LAUNCH})
        )
    )
    at = np.array([-(10**15), 6])
    assert catalogue.as_of(pa.array(["a", "a"]), at, "title").to_pylist() == ["hat", None]
    assert catalogue.as_of(pa.array(["a", "a"]), at, "launched_at").to_pylist() == [LAUNCH, LAUNCH]


def test_unknown_items_and_events_without_one_have_nothing() -> None:
    """Null for both, also in a dictionary whose words occur in no event."""
    catalogue = Catalogue(versions(("a", 0, {"title": "hat"})))
    ids = pa.array(["b", None, "a"]).dictionary_encode()
    assert catalogue.as_of(ids, np.full(3, 1), "title").to_pylist() == [None, None, "hat"]
    assert catalogue.as_of(ids.slice(1, 1), np.full(1, 1), "title").to_pylist() == [None]
    assert catalogue.as_of(pa.array([], pa.string()), np.zeros(0, np.int64), "title").to_pylist() == []


def test_a_shop_without_a_catalogue_knows_nothing(tmp_path: Path) -> None:
    """Where there is no file every field is null, of its own type; the file is noticed when it comes, and once."""
    path = tmp_path / "items_history.parquet"
    catalogue = Catalogue.load(path)
    found = catalogue.as_of(pa.array(["a"]), np.array([1]), "price_minor")
    assert (found.type, found.to_pylist()) == (pa.int64(), [None])
    assert catalogue.newest() is catalogue
    pq.write_table(versions(("a", 0, {"price_minor": 5})), path)
    newer = catalogue.newest()
    assert newer.as_of(pa.array(["a"]), np.array([1]), "price_minor").to_pylist() == [5]
    assert newer.version == catalogue.newest().version != catalogue.version
    assert newer.newest() is newer


def test_a_file_in_its_place_is_another_version(tmp_path: Path) -> None:
    """Also one of the same size and time."""
    path, other = tmp_path / "items_history.parquet", tmp_path / "other.parquet"
    for target, price in ((path, 5), (other, 6)):
        pq.write_table(versions(("a", 0, {"price_minor": price})), target)
        os.utime(target, (0, 0))
    catalogue = Catalogue.load(path)
    other.replace(path)
    assert catalogue.newest().as_of(pa.array(["a"]), np.array([1]), "price_minor").to_pylist() == [6]


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    """Other columns, another order, an unknown field: each is named."""
    path = tmp_path / "items_history.parquet"
    pq.write_table(versions(("a", 0, {})).drop_columns("version"), path)
    with pytest.raises(ValueError, match=r"has columns .* take the items in again"):
        Catalogue.load(path)
    torn_apart = versions(("a", 0, {}), ("b", 0, {})).take([0, 1, 0])
    doubled = pa.concat_tables([versions(("a", 0, {}))] * 2)
    for table in (torn_apart, doubled):
        with pytest.raises(ValueError, match="not in order"):
            Catalogue(table)
    with pytest.raises(
        ValueError, match="'weight' is no field of the catalogue; choose one of: category_id, price_min"
    ):
        Catalogue(doubled.slice(0, 1)).as_of(pa.array(["a"]), np.array([1]), "weight")


def naive(rows: list[tuple[str, int]], item: str | None, known: int) -> int | None:
    """known_at of the version that an event sees, looked for in all of them."""
    seen = [at for one, at in rows if one == item and at < known]
    return max(seen, default=None)


ITEM = st.sampled_from("abcd")
MOMENT = st.integers(0, 12)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(ITEM, MOMENT), unique=True),
    events=st.lists(st.tuples(st.none() | st.sampled_from("abcdx"), MOMENT)),
    encoded=st.booleans(),
)
def test_every_event_sees_what_a_look_through_all_versions_finds(
    rows: list[tuple[str, int]], events: list[tuple[str | None, int]], *, encoded: bool
) -> None:
    """As of any time, for any number of versions, ties included."""
    catalogue = Catalogue(versions(*((item, at, {"price_minor": at}) for item, at in rows)))
    ids = pa.array([item for item, _ in events], pa.string())
    found = catalogue.as_of(
        ids.dictionary_encode() if encoded else ids, np.array([at for _, at in events], np.int64), "price_minor"
    )
    assert found.to_pylist() == [naive(rows, item, at) for item, at in events]


@pytest.mark.slow
def test_a_million_events_take_no_longer_than_a_breath() -> None:
    """A million events over a hundred thousand items of three versions: under a second where nobody else computes."""
    items = [f"item-{number:06d}" for number in range(100_000)]
    price = np.arange(300_000)
    table = pa.table(
        {
            "item_id": pa.array(items).take(pa.array(price // 3)),
            "price_minor": price,
            "known_at": price % 3 * 10,
            "version": price % 3 + 1,
        }
    )
    catalogue = Catalogue(as_history(table).cast(HISTORY_SCHEMA))
    rng = np.random.default_rng(0)
    which, at = rng.integers(0, 100_000, 1_000_000), rng.integers(1, 31, 1_000_000)
    ids = pa.DictionaryArray.from_arrays(which.astype(np.int32), items)
    began = time.process_time()
    found = catalogue.as_of(ids, at, "price_minor")
    assert time.process_time() - began < 1
    assert (found.to_numpy() == which * 3 + (at - 1) // 10).all()


def test_a_history_of_before_a_column_can_be_read(tmp_path: Path) -> None:
    """What the contract got since the file was written is null in it; the rest is as it was."""
    told = versions(("a", 1, {"price_minor": 500, "in_stock": 1}))
    path = tmp_path / "items_history.parquet"
    pq.write_table(told.drop_columns(["in_stock"]), path)
    catalogue = Catalogue.load(path)
    at = np.array([2])
    assert catalogue.as_of(pa.array(["a"]), at, "price_minor").to_pylist() == [500]
    assert catalogue.as_of(pa.array(["a"]), at, "in_stock").to_pylist() == [None]
    assert as_history(told).equals(told)


def test_says_how_long_what_it_knows_stays_so() -> None:
    """Between two moments at which anything became known, every lookup gives the same."""
    catalogue = Catalogue(versions(("a", 10, {}), ("a", 20, {}), ("b", 20, {})))
    first, last = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    assert [catalogue.unchanged(t) for t in (5, 10, 11, 20, 21)] == [
        (first, 10),
        (first, 10),
        (10, 20),
        (10, 20),
        (20, last),
    ]
    assert Catalogue(versions()).unchanged(0) == (first, last)


def test_many_items_are_found_as_few_are() -> None:
    """Twenty thousand items asked for at once, half of them unknown, have what each has alone."""
    catalogue = Catalogue(versions(*((f"i{place}", 0, {"price_minor": place}) for place in range(0, 20_000, 2))))
    ids = pa.array([f"i{place}" for place in range(20_000)])
    found = catalogue.as_of(ids, np.ones(20_000, np.int64), "price_minor").to_pylist()
    assert found == [None if place % 2 else place for place in range(20_000)]
