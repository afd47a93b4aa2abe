"""Parity: what is equal counts as equal, and what is not is found, named and held against its budget."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.parity_world import ACTIVITY, RECENT, TERMINAL, Shop
from clicktrail import read_log
from clicktrail.event_log import EventLog
from clicktrail.feast_repo import open_store, write_configuration
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.read_log import FEATURE, Recorder
from clicktrail.settings import Settings
from validation.parity import Watched, main, render, run
from validation.parity_reads import chosen

VIEWS = (RECENT, ACTIVITY, TERMINAL)
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop whose log is 400 rows ahead of its state, with a read log of 300 reads of before."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), clock="log")
    log, source = EventLog(settings.log), Shop(3)
    log.append(source.batch(2000))
    for view in VIEWS:
        OnlineState(settings.online_state).catch_up(log, view)
    reader = OnlineReader(settings.online_state, VIEWS, recorder=(kept := Recorder(settings.read_log, 1.0)))
    far = log.end_time() + 86_400_000_000
    reader.read_many(
        [(view.name, [f"{prefix}{one}" for one in range(100)]) for view, prefix in zip(VIEWS, "uut", strict=True)], far
    )
    kept.flush()
    log.append(source.batch(400))
    return settings


@pytest.fixture
def shop(finished: Settings, tmp_path: Path) -> Settings:
    """A copy of that shop, to do with as one likes."""
    shutil.copytree(finished.home, tmp_path / "home")
    return Settings(home=tmp_path / "home", clock="log")


def spoil(settings: Settings, view: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Let the reads of a view have been answered otherwise."""
    for path in read_log.files(settings.read_log):
        if path.parent.name.startswith(view):
            pq.write_table(change(pq.read_table(path)), path)


def watched(budget: float = 0.0) -> list[Watched]:
    return [Watched(declaration=view, budget=budget) for view in VIEWS]


def test_a_state_that_is_late_is_right(shop: Settings) -> None:
    """Of 400 rows behind and reads a day ahead nothing differs; that it lags is told apart."""
    newest, found = run(shop, watched(), sample=20, at=AT)
    for name, view in newest["views"].items():
        assert view["differing"] == 0, name
        assert view["match_rate"] == 1
        assert not view["over_budget"]
        assert view["lag_rows"] == EventLog(shop.log).version - OnlineReader(shop.online_state, VIEWS).meta()["offset"]
        assert view["lag_rows"] > 0
        assert view["lag_seconds"] > 0
        assert set(view["sources"]) == {"logged", "busy", "idle", "unknown"}
        assert view["sources"]["logged"] == (100, 0)
        assert view["reads"] == sum(reads for reads, _ in view["sources"].values())
    assert any(view.lagging for view in found.values())


def test_an_answer_from_another_offset_is_a_mismatch(shop: Settings) -> None:
    """Reads that claim the end of the log, which their state had not come to, differ where the rest touched them."""
    end = EventLog(shop.log).version
    ahead = pa.array([end] * 100, pa.int64())
    spoil(shop, "activity_v1", lambda table: table.set_column(table.column_names.index("offset"), "offset", ahead))
    newest, found = run(shop, watched(), sample=0)
    assert newest["views"]["activity_v1"]["over_budget"]
    assert 0 < found["activity_v1"].features["count_view_7d"].differing < 100
    assert newest["views"]["recent_v1"]["differing"] == 0


def test_a_shorter_list_has_edits_and_a_first_difference(shop: Settings) -> None:
    """Every list lost its newest element: one edit, at the end of what is left; the others of the row are as before."""

    def forgetful(table: pa.Table) -> pa.Table:
        lists = [one[:-1] for one in table[f"{FEATURE}item_id"].to_pylist()]
        column = pa.array(lists, table.schema.field(f"{FEATURE}item_id").type)
        return table.set_column(table.column_names.index(f"{FEATURE}item_id"), f"{FEATURE}item_id", column)

    before = next(table for view, table in read_log.by_view(shop.read_log) if view == RECENT)
    lengths = [len(one) for one in before[f"{FEATURE}item_id"].to_pylist()]
    spoil(shop, "recent_v1", forgetful)
    _, found = run(shop, watched(), sample=0)
    items = found["recent_v1"].features["item_id"]
    assert items.differing == sum(length > 0 for length in lengths)
    assert items.missing == sum(length == 1 for length in lengths)
    assert items.edits == items.differing
    assert items.first == min(length for length in lengths if length) - 1
    assert found["recent_v1"].features["price_minor"].differing == 0


def test_null_online_is_missing_and_the_other_way_round_extra(shop: Settings) -> None:
    """The counts of both, of a scalar."""
    name = f"{FEATURE}seconds_since_cart"

    def swapped(table: pa.Table) -> pa.Table:
        values = [1 if one is None else None for one in table[name].to_pylist()]
        return table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))

    spoil(shop, "activity_v1", swapped)
    _, found = run(shop, watched(), sample=0)
    feature = found["activity_v1"].features["seconds_since_cart"]
    assert feature.missing + feature.extra == feature.differing == feature.reads == 100
    assert feature.missing > 0
    assert feature.extra > 0


def test_a_budget_allows_a_share(shop: Settings) -> None:
    """Ten of a hundred reads differ: a budget of a tenth holds, a smaller one does not."""

    def altered(table: pa.Table) -> pa.Table:
        prices = [[*one, 1] if row < 10 else one for row, one in enumerate(table[f"{FEATURE}price_minor"].to_pylist())]
        column = pa.array(prices, table.schema.field(f"{FEATURE}price_minor").type)
        return table.set_column(table.column_names.index(f"{FEATURE}price_minor"), f"{FEATURE}price_minor", column)

    spoil(shop, "recent_v1", altered)
    for budget, over in ((0.1, False), (0.099, True)):
        newest, found = run(shop, watched(budget), sample=0)
        assert newest["views"]["recent_v1"]["over_budget"] == over
        assert ("over its budget: 10.0000% differ" in render(newest, found)) == over


def test_reads_of_another_log_are_counted_apart(shop: Settings) -> None:
    """What lies past the end of the log can't be replayed."""
    spoil(
        shop,
        "terminal_v1",
        lambda table: table.set_column(table.column_names.index("offset"), "offset", pa.array([10**9] * 100)),
    )
    newest, found = run(shop, watched(), sample=0)
    assert found["terminal_v1"].unreplayable == 100
    assert newest["views"]["terminal_v1"]["reads"] == 0
    assert "100 logged reads are of another log" in render(newest, found)


def test_the_history_grows_and_names_nobody(shop: Settings) -> None:
    """Each run is added, the page shows every view, and ids of entities are on the screen alone."""
    spoil(
        shop,
        "recent_v1",
        lambda table: table.set_column(0, "entity", pa.array([f"u{(one + 1) % 100}" for one in range(100)])),
    )
    for day in (1, 2):
        newest, found = run(shop, watched(), sample=5, at=AT.replace(day=day))
    history = (shop.parity / "parity.json").read_text()
    page = (shop.parity / "index.html").read_text()
    assert [one["at"][:10] for one in json.loads(history)["runs"]] == ["2026-03-01", "2026-03-02"]
    assert all(view.name in page for view in VIEWS)
    assert page.count("<polyline") == 3
    assert found["recent_v1"].examples
    entity = found["recent_v1"].examples[0][0]
    assert f"ENTITY={entity} AT=" in render(newest, found)
    assert f'"{entity}"' not in history
    assert f">{entity}<" not in page


def test_idle_and_busy_are_the_ends(shop: Settings) -> None:
    """Idle ones have had no event for longest, busy ones the newest; pairs and unknown ones are readable too."""
    log = EventLog(shop.log)
    found = chosen(log, RECENT, 15, seed=1)
    last = {
        row["user_id"]: row["last"]
        for row in log.query(
            "select user_id, max(known_at) as last from events where event_type <> 'label' group by 1"
        ).to_pylist()
    }
    ranks = {user: rank for rank, user in enumerate(sorted(last, key=lambda user: (last[user], user)))}
    tenth = max(len(ranks) // 10, 15)
    assert len(found["idle"]) == len(found["busy"]) == 15
    assert all(ranks[str(one)] < tenth for one in found["idle"])
    assert all(ranks[str(one)] >= len(ranks) - tenth for one in found["busy"])
    assert found == chosen(log, RECENT, 15, seed=1)
    assert found["idle"] != chosen(log, RECENT, 15, seed=2)["idle"]


@pytest.mark.slow
@pytest.mark.xdist_group("feast")
def test_the_command_takes_views_and_budgets_from_the_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After apply and materialize all is equal, and the exit status says so; without state there is a way out."""
    settings = Settings(home=tmp_path, clock="log")
    EventLog(settings.log).append(Shop(5).batch(1500))
    command = [Path(sys.executable).with_name("feast"), "-f", write_configuration(settings), "apply"]
    subprocess.run(command, cwd=settings.feature_repo, check=True, capture_output=True)
    assert main(settings, []) == 2
    assert "materialize" in capsys.readouterr().err
    open_store(settings).materialize_incremental(end_date=datetime.now(UTC))
    assert main(settings, ["--sample", "10"]) == 0
    said = capsys.readouterr().out
    assert "user_recent_v1" in said
