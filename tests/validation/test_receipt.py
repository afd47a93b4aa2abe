"""Skew receipts: online reads beside offline ones, counted by feature."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.parity_world import ACTIVITY, RECENT, Shop
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings
from validation.receipt import receipt

VIEWS = (RECENT, ACTIVITY)


def open_shop(home: Path, table: pa.Table, state_of: pa.Table) -> Settings:
    """A shop whose log holds one table and whose state was made from another."""
    settings, other = Settings(home=home, clock="log"), EventLog(home / "other")
    EventLog(settings.log).append(table)
    other.append(state_of)
    for view in VIEWS:
        OnlineState(settings.online_state).catch_up(other, view)
    return settings


def test_counts_reads_of_busy_idle_and_unknown_entities(tmp_path: Path) -> None:
    """Of a right state every read is equal, of every feature; nobody's budget is asked, and twice it is the same."""
    settings = open_shop(tmp_path, table := Shop(1).batch(600), table)
    version = EventLog(settings.log).version  # there are copies among them

    def take() -> dict[str, object]:
        return receipt(settings, VIEWS, sample=20, seed=0, budgets=lambda: pytest.fail("nothing differs"))

    found = take()
    assert found == take()
    assert found["log_version"] == version
    for view in VIEWS:
        one = found["views"][view.name]  # type: ignore[index]
        assert (one["fingerprint"], one["offset"]) == (view.fingerprint, version)
        assert one["entities"] == {"busy": 20, "idle": 20, "unknown": 2}
        assert (one["reads"], one["differing"], one["budget"], one["over_budget"]) == (42, 0, None, False)
        assert all(feature["equal"] == 42 for feature in one["features"].values())


def test_a_state_that_differs_is_held_to_its_budget(tmp_path: Path) -> None:
    """A state of other prices differs where a price matters and nowhere else, and is within a budget that allows it."""
    table = Shop(1).batch(600)
    place = table.column_names.index("price_minor")
    dearer = table.set_column(place, table.field(place), pc.add(table["price_minor"], 1))
    settings = open_shop(tmp_path, table, dearer)
    strict = receipt(settings, [RECENT], sample=20, seed=0, budgets=dict)["views"][RECENT.name]
    features = strict["features"]
    assert (strict["over_budget"], strict["budget"]) == (True, 0.0)
    assert features["price_minor"]["equal"] < 42
    assert features["item_id"] == {"reads": 42, "equal": 42, "missing": 0, "extra": 0}
    mild = receipt(settings, [RECENT], sample=20, seed=0, budgets=lambda: {RECENT.name: 1.0})["views"][RECENT.name]
    assert (mild["over_budget"], mild["budget"]) == (False, 1.0)


def test_a_state_ahead_of_the_log_is_refused(tmp_path: Path) -> None:
    """It follows another log: its reads cannot be compared."""
    table = Shop(1).batch(600)
    settings = open_shop(tmp_path, table.slice(0, 100), table)
    with pytest.raises(ValueError, match=r"is at offset \d+, the log of shop demo ends at 100: it follows another log"):
        receipt(settings, VIEWS, sample=5, seed=0, budgets=dict)
