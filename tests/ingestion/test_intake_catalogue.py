"""Side tables: published whole, held to their contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.contract import ITEM_COLUMNS, arrow_schema
from clicktrail.settings import Settings
from ingestion.catalogue import SideOutcome, take_in_side_tables
from ingestion.mapping import load_mapping
from validation.batch import Thresholds
from validation.gate import Gate
from validation.quarantine import read_quarantine

pytestmark = pytest.mark.slow  # Great Expectations alone takes eight seconds to import

SCHEMA = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema(ITEM_COLUMNS)])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "var", shop="test")


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
