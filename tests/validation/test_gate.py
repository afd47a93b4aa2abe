"""Great Expectations suites generated from the contract, and their Data Docs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, Column, arrow_schema, row_rules
from validation.batch import Thresholds
from validation.gate import Gate
from validation.suites import BATCH_FACTS, batch_expectations, contract_expectations, cross_rules

pytestmark = pytest.mark.slow  # Great Expectations alone takes eight seconds to import

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SCHEMA = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema()])


def table(**changed: object) -> pa.Table:
    row = {
        "event_id": "e",
        "user_id": "u",
        "item_id": "i",
        "event_type": "view",
        "event_timestamp": START,
        "ingested_at": START,
        "source_seq": 1,
    }
    return pa.Table.from_pylist([row, {**row, **changed}], schema=SCHEMA)


@pytest.mark.parametrize("columns", [EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS])
def test_every_row_rule_has_its_expectation(columns: tuple[Column, ...]) -> None:
    """The suite says of each column what the contract says, and of each rule across columns that none breaks it."""
    stated = len(row_rules(columns)) - len(cross_rules(columns))
    assert len(contract_expectations(columns)) == 1 + stated + len(cross_rules(columns))


def test_clean_rows_pass_and_each_kind_of_bad_row_fails(tmp_path: Path) -> None:
    """What slipped past the row rules would be found: nulls, unknown values, limits, rules across columns."""
    gate = Gate(tmp_path / "docs", Thresholds())
    assert gate.check("events", table()) == []
    for changed, column in (
        ({"event_id": None}, "event_id"),
        ({"event_type": "page_view"}, "event_type"),
        ({"price_minor": -5}, "price_minor"),
        ({"item_id": None}, "rule: item_id_present"),
        ({"event_timestamp": START + dt.timedelta(days=1)}, "rule: ahead_of_arrival"),
    ):
        failed = gate.check("events", table(**changed))
        assert [(one.column, one.count) for one in failed] == [(column, 1)], changed
    gate.write_docs()
    assert "events" in (tmp_path / "docs/index.html").read_text()
    assert not list(tmp_path.glob(".*"))


def test_facts_of_batches_are_held_to_the_thresholds(tmp_path: Path) -> None:
    """Each fact of a file has its limit; a file without history has no value and passes."""
    limits = Thresholds()
    assert {one.column for one in batch_expectations(limits)} == set(BATCH_FACTS)
    fine = dict.fromkeys(BATCH_FACTS, 0.0) | {"volume_ratio": 1.0}
    facts = pd.DataFrame([fine, {"unusable": 0.0}, {**fine, "volume_ratio": 11.0, "mix_distance": 0.6}])
    failed = Gate(tmp_path / "docs", limits).check_batches(facts)
    assert [(one.column, one.examples) for one in failed] == [("volume_ratio", ("11.0",)), ("mix_distance", ("0.6",))]


def test_data_docs_are_replaced_whole(tmp_path: Path) -> None:
    """The documents of an intake stand in the place of those before; without a check the old ones stay."""
    for _ in range(2):
        gate = Gate(tmp_path / "docs", Thresholds())
        gate.check("events", table())
        gate.write_docs()
    assert len(list((tmp_path / "docs").rglob("clicktrail-events.html"))) == 1
    Gate(tmp_path / "docs", Thresholds()).write_docs()
    assert (tmp_path / "docs/index.html").is_file()
