"""docs/contract.md is what the contract says."""

from __future__ import annotations

from pathlib import Path

from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, row_rules
from clicktrail.contract_docs import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contract.md"


def test_the_page_is_up_to_date() -> None:
    """A change of the contract changes the page: python -m clicktrail.contract_docs > docs/contract.md."""
    assert PAGE.read_text() == page()


def test_every_column_and_rule_is_a_row() -> None:
    """Each column of the three tables has one row, and so has each row rule."""
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    tables = (EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS)
    assert len(rows) == sum(len(table) + len(row_rules(table)) for table in tables)
    assert all(line.replace("\\|", "").count("|") in (5, 8) for line in rows)
