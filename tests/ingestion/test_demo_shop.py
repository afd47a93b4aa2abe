"""The demo shop's files: what a collector leaves, what was planted, and that a finished folder is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS, USER_COLUMNS, arrow_schema, row_rules
from ingestion.demo_shop import main, make_shop
from ingestion.shop.parameters import ShopParameters, with_settings

SMALL = ShopParameters(events=40_000, days=42, seed=3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shop")
    assert make_shop(SMALL, home / "out", home / "truth")
    return home


@pytest.fixture(scope="module")
def con(shop: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    connection.execute(f"create view raw as select * from '{shop}/out/events/*.parquet'")
    connection.execute(
        "create view clean as select distinct on (event_id) * from raw where event_id like 'e%' order by ingested_at"
    )
    return connection


def _manifest(shop: Path) -> dict:
    return json.loads((shop / "out" / "manifest.json").read_text())


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_every_day_has_a_file_of_what_arrived_that_day(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """One file a day, named by it; only copies may stand in the file of the day after their arrival."""
    files = sorted((shop / "out" / "events").iterdir())
    assert len(files) == SMALL.days
    assert files[0].name == "2026-01-01.parquet"
    query = f"""select count(*) from read_parquet('{shop}/out/events/*.parquet', filename = true)
                where event_id is not null and strftime(ingested_at, '%Y-%m-%d') <> parse_filename(filename, true)"""
    assert _one(con, query) <= _manifest(shop)["planted"]["exact_copy"]


def test_the_files_have_the_columns_of_the_contract(shop: Path) -> None:
    """Every file has the contract's column names and types."""
    for path in (shop / "out" / "events").iterdir():
        schema = pq.read_schema(path)
        assert schema.names == [column.name for column in EVENT_COLUMNS]
        assert schema.types == [column.type for column in EVENT_COLUMNS]


def test_catalogue_and_users_keep_the_contract(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Every item and user that a clean event names is in the side tables, and nobody acts before signing up."""
    assert pq.read_table(shop / "out" / "items.parquet").num_rows == SMALL.items
    items, users = (f"'{shop}/out/{name}.parquet'" for name in ("items", "users"))
    unknown = f"select count(*) from clean where item_id is not null and item_id not in (select item_id from {items})"
    assert _one(con, unknown) == 0
    early = f"select count(*) from clean join {users} using (user_id) where event_timestamp < signed_up_at"
    assert _one(con, early) == 0
    stranger = f"select count(*) from clean where user_id not in (select user_id from {users})"
    assert _one(con, stranger) == 0


def test_nobody_looks_at_an_item_before_its_launch(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """No view comes before the launch of its item."""
    query = f"""select count(*) from clean join '{shop}/out/items.parquet' i using (item_id)
                where event_type = 'view' and event_timestamp < launched_at"""
    assert _one(con, query) == 0


def test_the_manifest_says_how_many_rows_break_each_rule(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Counted by the contract's own rules, every planted kind of bad row is there as often as the manifest says."""
    planted = _manifest(shop)["planted"]
    found = {
        rule.name: _one(con, f"select count(*) from raw where {rule.violated}")
        for rule in row_rules()
        if rule.name in planted
    }
    assert found == {name: planted[name] for name in found}
    assert set(planted) - set(found) == {"exact_copy", "redelivered_copy", "conflicting_copy"}
    assert all(count > 0 for count in found.values())


def test_copies_are_counted_and_the_first_arrival_is_the_clean_one(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Rows = clean + planted; a copy with other content arrives after its original."""
    manifest = _manifest(shop)
    assert _one(con, "select count(*) from raw") == manifest["rows"]
    assert manifest["rows"] == manifest["clean_rows"] + sum(manifest["planted"].values())
    assert _one(con, "select count(*) from clean") == manifest["clean_rows"]
    differing = """select count(*) from (select event_id, price_minor - first_value(price_minor) over
                   (partition by event_id order by ingested_at) as more from raw where event_id like 'e%')
                   where more <> 0"""
    assert _one(con, differing) == manifest["planted"]["conflicting_copy"]


def test_clean_events_break_no_rule(con: duckdb.DuckDBPyConnection) -> None:
    """The first arrival of every event of the shop itself keeps all rules of the contract."""
    broken = " or ".join(f"({rule.violated})" for rule in row_rules())
    assert _one(con, f"select count(*) from clean where {broken}") == 0


def test_chargebacks_become_known_within_seven_days(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Every label speaks of a payment and is known after it, within 7 days."""
    query = """select count(*), count(*) filter (where p.event_type = 'payment'
                   and l.ingested_at > p.event_timestamp and l.ingested_at <= p.event_timestamp + interval 7 day)
               from clean l left join clean p on l.label_of = p.event_id where l.event_type = 'label'"""
    labels, right = con.execute(query).fetchone() or (0, 0)
    assert labels == _manifest(shop)["labels"] <= _manifest(shop)["frauds"]
    assert _one(con, "select count(*) from clean where event_type = 'payment'") == _manifest(shop)["payments"]
    assert labels > 10
    assert right == labels


def test_truth_speaks_only_of_events_that_are_in_the_files(shop: Path, con: duckdb.DuckDBPyConnection) -> None:
    """Every example of the truth is a clean event of its type; probabilities lie in [0, 1], ranks from 1."""
    for task, kind in (("recommendation", "view"), ("fraud", "payment")):
        truth = f"'{shop}/truth/{task}.parquet'"
        assert _one(con, f"select count(*) from {truth}") > 100
        missing = f"""select count(*) from {truth} where example_id not in
                      (select event_id from clean where event_type = '{kind}')"""
        assert _one(con, missing) == 0
        start = f"select min(t) from {truth}"
        left = f"""select count(*) from clean where event_type = '{kind}' and event_timestamp >= ({start})
                   and event_id not in (select example_id from {truth})"""
        assert _one(con, left) == 0
    assert (
        _one(con, f"select count(*) from '{shop}/truth/recommendation.parquet' where rank not between 1 and 400") == 0
    )
    for task in ("fraud", "retention"):
        assert _one(con, f"select count(*) from '{shop}/truth/{task}.parquet' where not p between 0 and 1") == 0


def test_the_same_parameters_give_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    """Made again elsewhere, every file is the same."""
    make_shop(SMALL, tmp_path / "out", tmp_path / "truth")
    for folder in ("out", "truth"):
        for path in sorted((shop / folder).rglob("*.parquet")):
            assert pq.read_table(path).equals(pq.read_table(tmp_path / folder / path.relative_to(shop / folder)))


def test_a_finished_folder_is_left_alone_and_another_shop_is_refused(shop: Path) -> None:
    """The same parameters find the folder and do nothing; other parameters are told to go elsewhere."""
    before = (shop / "out" / "manifest.json").stat().st_mtime_ns
    assert not make_shop(SMALL, shop / "out", shop / "truth")
    assert (shop / "out" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="something else than this shop"):
        make_shop(ShopParameters(events=40_000, days=42, seed=4), shop / "out", shop / "truth")


@pytest.mark.slow
@pytest.mark.parametrize("failpoint", ["shop_truth.before_rename", "shop_truth.after_rename", "shop.before_rename"])
def test_killed_at_a_publish_it_is_made_whole_by_the_next_run(tmp_path: Path, failpoint: str) -> None:
    """Killed there, no half folder stands in place, and the same command completes both and leaves nothing aside."""
    command = [sys.executable, "-m", "ingestion.demo_shop", "--events", "3000", "--days", "28"]
    command += ["--out", str(tmp_path / "out"), "--truth", str(tmp_path / "truth")]
    killed = subprocess.run(command, env={**os.environ, "CLICKTRAIL_FAILPOINT": failpoint}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert make_shop(ShopParameters(events=3000, days=28), tmp_path / "out", tmp_path / "truth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "truth"]


def test_the_command_line_passes_every_parameter_on(tmp_path: Path) -> None:
    """Size, days, seed and --set reach the manifest."""
    arguments = ["--events", "5000", "--days", "28", "--seed", "9", "--set", "buy=0.5", "--set", "periods=2,4,7,12,21"]
    main([*arguments, "--out", str(tmp_path / "o"), "--truth", str(tmp_path / "t")])
    parameters = json.loads((tmp_path / "o" / "manifest.json").read_text())["parameters"]
    assert (parameters["events"], parameters["days"], parameters["seed"]) == (5000, 28, 9)
    assert parameters["buy"] == 0.5
    assert parameters["periods"] == [2, 4, 7, 12, 21]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"colour": "red"}, "no parameter 'colour'"),
        ({"buy": "often"}, "cannot be read as float"),
        ({"buy": "1.5"}, "a share"),
        ({"items": "401"}, "a multiple of categories"),
        ({"start": "1 May"}, "a date such as"),
        ({"period_weights": "1"}, "one weight for each"),
        ({"days": "3"}, "at least 28"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(settings: dict[str, str], said: str) -> None:
    """What cannot be simulated is refused with the parameter's name and the way out."""
    with pytest.raises(ValueError, match=said):
        with_settings(ShopParameters(), settings)


def test_catalogue_tables_have_the_contract_schema(shop: Path) -> None:
    """Item and user tables read back under the contract's schema."""
    for name, columns in (("items", ITEM_COLUMNS), ("users", USER_COLUMNS)):
        table = pq.read_table(shop / "out" / f"{name}.parquet")
        assert table.schema.names == arrow_schema(columns).names
        assert isinstance(table, pa.Table)
