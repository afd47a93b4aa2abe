"""Side tables: published whole, held to their contract."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.catalogue import ALWAYS, HISTORY_SCHEMA
from clicktrail.contract import ITEM_COLUMNS, arrow_schema
from clicktrail.settings import Settings
from ingestion.catalogue import SideOutcome, take_in_side_tables
from ingestion.mapping import Mapping, load_mapping, parse_mapping
from validation.batch import Thresholds
from validation.gate import Gate
from validation.quarantine import read_quarantine

DAY = 86_400_000_000

pytestmark = pytest.mark.slow  # Great Expectations alone takes eight seconds to import

SCHEMA = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema(ITEM_COLUMNS)])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "var", shop="test", clock="2026-03-01T00:00:00Z")


def take(folder: Path, rows: list[dict[str, Any]], settings: Settings, path: Path | None = None) -> SideOutcome:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "items.parquet")
    gate = Gate(settings.data_docs, Thresholds())
    (done,) = take_in_side_tables(path or folder, load_mapping("demo_shop"), settings, gate=gate)
    return done


def published(settings: Settings) -> list[str]:
    return pq.read_table(settings.catalogue / "items.parquet")["item_id"].to_pylist()


def test_good_rows_are_published_and_bad_ones_kept_apart(tmp_path: Path, settings: Settings) -> None:
    """Rows in = published + copies + quarantined; the first row of an id stands."""
    rows = [
        {"item_id": "b", "price_minor": 5},
        {"item_id": "a", "price_minor": 7},
        {"item_id": "b", "price_minor": 5},
        {"item_id": "b", "price_minor": 6},
        {"item_id": None, "price_minor": 6},
        {"item_id": "c", "price_minor": -6},
    ]
    done = take(tmp_path / "shop", rows, settings)
    assert (done.rows, done.published, done.copies) == (6, 2, 1)
    assert published(settings) == ["a", "b"]
    bad = read_quarantine(settings.quarantine).to_pylist()
    assert sorted((row["row"], row["rule"]) for row in bad) == [
        (4, "conflict"),
        (5, "item_id_present"),
        (6, "price_minor_minimum"),
    ]


def test_a_new_table_replaces_the_old_one(tmp_path: Path, settings: Settings) -> None:
    """The newest file is the catalogue; the same file again is known; events may lie in a folder of their own."""
    folder = tmp_path / "shop"
    (folder / "events").mkdir(parents=True)
    take(folder, [{"item_id": "a"}, {"item_id": "b"}], settings)
    assert take(folder, [{"item_id": "a"}, {"item_id": "b"}], settings, folder / "events").known
    take(folder, [{"item_id": "b"}, {"item_id": "c"}], settings, folder / "events")
    assert published(settings) == ["b", "c"]


def test_a_table_that_lost_half_of_its_rows_is_stopped(tmp_path: Path, settings: Settings) -> None:
    """Less than half of the rows of last time is no whole table: the old one stays."""
    take(tmp_path / "shop", [{"item_id": str(n)} for n in range(9)], settings)
    done = take(tmp_path / "shop", [{"item_id": str(n)} for n in range(4)], settings)
    assert [stop.rule for stop in done.stops] == ["volume"]
    assert len(published(settings)) == 9


def history(settings: Settings) -> list[tuple[str, int, int | None]]:
    """(item, known_at, price) of every version."""
    table = pq.read_table(settings.item_history)
    assert table.schema.equals(HISTORY_SCHEMA)
    return [(row["item_id"], row["known_at"], row["price_minor"]) for row in table.to_pylist()]


def later(settings: Settings, day: int) -> Settings:
    """The same shop on a day of March 2026."""
    return replace(settings, clock=f"2026-03-{day:02d}T00:00:00Z")


def micros(day: int, hour: int = 0) -> int:
    """A moment in March 2026, microseconds."""
    return int(datetime(2026, 3, day, hour, tzinfo=UTC).timestamp()) * 1_000_000


def test_every_version_is_kept_with_when_it_became_known(tmp_path: Path, settings: Settings) -> None:
    """A table that came on the 5th is known from then on, by the shop's clock; what it lacks stays."""
    folder = tmp_path / "shop"
    take(folder, [{"item_id": "a", "price_minor": 5}, {"item_id": "b", "price_minor": 6}], settings)
    done = take(folder, [{"item_id": "a", "price_minor": 7}], later(settings, 5))
    assert (done.published, done.versions) == (1, 1)
    assert history(settings) == [("a", ALWAYS, 5), ("a", micros(5), 7), ("b", ALWAYS, 6)]
    assert published(settings) == ["a"]


def test_a_take_in_that_was_cut_short_adds_its_versions_once(tmp_path: Path, settings: Settings) -> None:
    """Killed between history and table, it is repeated and finds its versions there; a lost history is made anew."""
    folder = tmp_path / "shop"
    take(folder, [{"item_id": "a", "price_minor": 5}], settings)
    take(folder, [{"item_id": "a", "price_minor": 7}], later(settings, 5))
    before = history(settings)
    (settings.catalogue / "items.parquet").unlink()
    again = take(folder, [{"item_id": "a", "price_minor": 7}], later(settings, 6))
    assert (again.known, again.versions, history(settings)) == (False, 0, before)
    settings.item_history.unlink()
    anew = take(folder, [{"item_id": "a", "price_minor": 7}], later(settings, 7))
    assert (anew.known, history(settings)) == (False, [("a", ALWAYS, 7)])


CHANGES = """
[columns]
event_id = "id"
event_type = "type"
event_timestamp = "at"
ingested_at = { stream = "at" }

[items]
files = ["items.csv"]

[items.columns]
item_id = "sku"
price_minor = "cents"
known_at = "changed"
"""


def dated() -> Mapping:
    """A source that records its changes."""
    return parse_mapping(tomllib.loads(CHANGES), name="dated", path=Path("dated.toml"))


def test_a_source_that_records_its_changes_gives_them_their_own_times(tmp_path: Path, settings: Settings) -> None:
    """One row a change; rows in = published + older + copies + quarantined; a change of the past is quarantined."""
    gate = Gate(settings.data_docs, Thresholds())
    rows = ["sku,cents,changed", "a,5,2026-01-01", "a,7,2026-02-01", "b,9,2026-01-01", "b,9,2026-01-01"]
    rows += ["a,8,2026-02-01", "b,9,", "b,9,soon"]
    (tmp_path / "items.csv").write_text("\n".join(rows) + "\n")
    (done,) = take_in_side_tables(tmp_path, dated(), settings, gate=gate)
    assert (done.rows, done.published, done.older, done.copies) == (7, 2, 1, 1)
    assert [(bad.rule, bad.count) for bad in done.quarantined] == [
        ("conflict", 1),
        ("known_at_present", 1),
        ("known_at_readable", 1),
    ]
    january, february = micros(1) - 59 * DAY, micros(1) - 28 * DAY
    assert history(settings) == [("a", january, 5), ("a", february, 7), ("b", january, 9)]

    (tmp_path / "items.csv").write_text("sku,cents,changed\na,6,2026-01-15\na,8,2026-03-01\nb,9,2026-01-01\n")
    (done,) = take_in_side_tables(tmp_path, dated(), settings, gate=gate)
    assert (done.published, done.versions) == (2, 1)
    assert [(bad.rule, bad.count) for bad in done.quarantined] == [("past_changed", 1)]
    assert history(settings)[2] == ("a", micros(1), 8)
