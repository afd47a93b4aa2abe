"""An intake: every row is accounted for, twice is once, bad batches stay out, killed work is completed."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.__main__ import main
from ingestion.intake import Outcome, take_in
from ingestion.mapping import load_mapping
from validation.batch import Thresholds
from validation.gate import Gate
from validation.quarantine import read_quarantine
from validation.stamps import gate_stamp

pytestmark = pytest.mark.slow  # Great Expectations alone takes eight seconds to import

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SCHEMA = pa.schema([field.with_nullable(nullable=True) for field in arrow_schema()])


def events(day: int, rows: int = 120) -> list[dict[str, Any]]:
    """A clean day of the shop: views, every tenth a cart."""
    return [
        {
            "event_id": f"e{day}-{n}",
            "user_id": f"u{n % 9}",
            "item_id": f"i{n % 7}",
            "event_type": "cart" if n % 10 == 0 else "view",
            "event_timestamp": START + dt.timedelta(days=day, minutes=n),
            "ingested_at": START + dt.timedelta(days=day, minutes=n, seconds=2),
            "source_seq": n,
            "price_minor": 100 + n,
        }
        for n in range(rows)
    ]


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def week(folder: Path, days: int = 5) -> Path:
    for day in range(days):
        write(folder / f"day-{day}.parquet", events(day))
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "var", shop="test")


def intake(path: Path, settings: Settings, *, allow: Sequence[str] = (), group_rows: int = 10_000) -> Outcome:
    gate = Gate(settings.data_docs, Thresholds())
    done = take_in(path, load_mapping("demo_shop"), settings, gate=gate, allow=allow, group_rows=group_rows)
    gate.write_docs()
    return done


def test_every_row_is_accounted_for(tmp_path: Path, settings: Settings) -> None:
    """In = accepted + copies + quarantined, row by row: each kind of dirt ends where it belongs."""
    rows = events(0)
    rows += [
        {**rows[3], "ingested_at": START + dt.timedelta(hours=9)},  # row 121: a copy
        {**rows[4], "price_minor": 7},  # row 122: the same id with other content
        {**rows[5], "event_id": "x1", "event_type": "page_view"},  # row 123
        {**rows[6], "event_id": "x2", "event_timestamp": START + dt.timedelta(days=2)},  # row 124: from the future
        {**rows[7], "event_id": None},  # row 125
        {**rows[8], "event_id": "x3", "price_minor": -1},  # row 126
    ]
    path = write(tmp_path / "in/day.parquet", rows)
    done = intake(path, settings)
    assert (done.rows, done.accepted, done.copies, done.rejected) == (126, 120, 1, 5)
    bad = read_quarantine(settings.quarantine).to_pylist()
    assert [(row["row"], row["rule"], row["event_id"], row["value"]) for row in bad] == [
        (122, "conflict", "e0-4", "e0-4"),
        (123, "event_type_known", "x1", "page_view"),
        (124, "ahead_of_arrival", "x2", "2026-01-03 00:00:00+00"),
        (125, "event_id_present", None, None),
        (126, "price_minor_minimum", "x3", "-1"),
    ]
    assert {row["file"] for row in bad} == {"day.parquet"}
    recorded = EventLog(settings.log).batches()[0]
    assert recorded["counts"]["rows"] == (
        recorded["accepted"] + recorded["copies"] + recorded["rejected"] + recorded["counts"]["quarantined"]
    )


def test_the_same_file_twice_changes_nothing(tmp_path: Path, settings: Settings) -> None:
    """Files are known by their content: again, under another name, or twice in one folder."""
    path = week(tmp_path / "in")
    intake(path, settings)
    log = EventLog(settings.log)
    version, digest = log.version, log.digest()
    (path / "day-1.parquet").rename(path / "renamed.parquet")
    (path / "copy.parquet").write_bytes((path / "day-2.parquet").read_bytes())
    done = intake(path, settings)
    assert (done.files, done.rows, len(done.known)) == (0, 0, 6)
    assert (log.version, log.digest(), len(log.batches())) == (version, digest, 1)


def test_the_same_events_in_another_file_are_copies(tmp_path: Path, settings: Settings) -> None:
    """Written again (other bytes, later arrival) the events are dropped and counted."""
    intake(week(tmp_path / "in"), settings)
    again = [{**row, "ingested_at": row["ingested_at"] + dt.timedelta(hours=1)} for row in events(4)]
    digest = EventLog(settings.log).digest()
    done = intake(write(tmp_path / "again.parquet", again), settings)
    assert (done.accepted, done.copies) == (0, 120)
    assert EventLog(settings.log).digest() == digest


def test_groups_of_files_give_the_same_log(tmp_path: Path, settings: Settings) -> None:
    """Whether files enter one by one or together, the log holds the same."""
    path = week(tmp_path / "in")
    intake(path, settings)
    other = Settings(home=settings.home, shop="other")
    intake(path, other, group_rows=1)
    assert EventLog(other.log).digest() == EventLog(settings.log).digest()
    assert len(EventLog(other.log).batches()) == 5


def test_a_bad_batch_stays_out_whole_and_enters_once_mended(tmp_path: Path, settings: Settings) -> None:
    """A file without a column is stopped, the others enter; mended, it enters too."""
    path = week(tmp_path / "in")
    whole = pq.read_table(path / "day-2.parquet")
    pq.write_table(whole.drop_columns(["user_id"]), path / "day-2.parquet")
    done = intake(path, settings)
    assert [(one.file, one.stops[0].rule, one.stops[0].subject) for one in done.stopped] == [
        ("day-2.parquet", "column_missing", "user_id")
    ]
    assert done.accepted == 4 * 120
    pq.write_table(whole, path / "day-2.parquet")
    done = intake(path, settings)
    assert (done.ok, done.accepted, len(done.known)) == (True, 120, 4)


def test_a_batch_far_from_history_stays_out_unless_allowed(tmp_path: Path, settings: Settings) -> None:
    """Volume, mix, age and changed types are compared with what the log has recorded; a person may overrule."""
    intake(week(tmp_path / "in"), settings)
    version = EventLog(settings.log).version
    text = SCHEMA.set(SCHEMA.get_field_index("price_minor"), pa.field("price_minor", pa.string()))
    bad = tmp_path / "bad"
    write(bad / "few.parquet", events(5, rows=11))
    write(bad / "logins.parquet", [{**row, "event_type": "login"} for row in events(6)])
    write(bad / "old.parquet", events(-9))
    write(bad / "text.parquet", [{**row, "price_minor": "12"} for row in events(7)], text)
    done = intake(bad, settings)
    assert {one.file: [stop.rule for stop in one.stops] for one in done.stopped} == {
        "few.parquet": ["volume"],
        "logins.parquet": ["mix"],
        "old.parquet": ["stale"],
        "text.parquet": ["type_changed"],
    }
    assert EventLog(settings.log).version == version
    waived = ["mix", "stale", "type_changed", "volume"]
    done = intake(bad, settings, allow=waived)
    assert (done.ok, done.accepted) == (True, 11 + 3 * 120)
    limits = Thresholds()
    assert [(one.start, one.by) for one in EventLog(settings.log).validated()] == [
        (0, gate_stamp(limits)),
        (version, gate_stamp(limits, waived)),
    ]


def test_csv_json_and_parquet_of_the_same_events_are_copies(tmp_path: Path, settings: Settings) -> None:
    """An event is the same event in any format."""
    rows = events(0)
    texts = [{**row, **{at: row[at].isoformat() for at in ("event_timestamp", "ingested_at")}} for row in rows]
    mapping = tmp_path / "mine.toml"
    names = list(rows[0])
    mapping.write_text(
        "[columns]\n"
        + "".join(f'{name} = "{name}"\n' for name in names if name != "ingested_at")
        + 'ingested_at = { stream = "ingested_at" }\n'
    )
    write(tmp_path / "in/1.parquet", rows)
    (tmp_path / "in/2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (tmp_path / "in/3.csv").write_text(
        "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in texts)])
    )
    gate = Gate(settings.data_docs, Thresholds())
    done = take_in(tmp_path / "in", load_mapping(str(mapping)), settings, gate=gate)
    assert (done.accepted, done.copies, done.rejected) == (120, 240, 0)


def test_an_empty_file_is_a_batch_of_nothing(tmp_path: Path, settings: Settings) -> None:
    """A first file without rows enters, changes nothing and is known afterwards."""
    path = write(tmp_path / "in/day.parquet", [])
    assert (intake(path, settings).files, intake(path, settings).known) == (1, ["day.parquet"])
    assert EventLog(settings.log).version == 0


KILLED = """
import os, sys
import great_expectations  # once, before the forks: it takes eight seconds
from ingestion.__main__ import main
for name in sys.argv[2:]:
    pid = os.fork()
    if pid == 0:
        os.environ["CLICKTRAIL_FAILPOINT"] = name
        os._exit(main(["--events", sys.argv[1], "--reader", "demo_shop", "--shop", name.replace(".", "_"), "--quiet"]))
    print(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_killed_anywhere_the_next_run_completes(tmp_path: Path, settings: Settings) -> None:
    """Killed at any publish, the next intake leaves the same log and the same quarantine: nothing lost or doubled."""
    rows = events(1)
    path = week(tmp_path / "in", days=1)
    write(path / "day-1.parquet", [*rows, {**rows[0], "price_minor": 1}, {**rows[1], "event_id": None}])
    names = ["quarantine.before_rename", "quarantine.after_rename", "log.before_manifest", "log.manifest.after_rename"]
    env = {**os.environ, "CLICKTRAIL_HOME": str(settings.home)}
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), *names], env=env, cwd=root, check=True, capture_output=True, text=True
    )
    assert [line for line in killed.stdout.splitlines() if line.startswith(tuple(names))] == [f"{n} -9" for n in names]
    intake(path, settings)
    for name in names:
        shop = Settings(home=settings.home, shop=name.replace(".", "_"))
        intake(path, shop)
        assert EventLog(shop.log).digest() == EventLog(settings.log).digest(), name
        assert read_quarantine(shop.quarantine).equals(read_quarantine(settings.quarantine)), name
        assert len(EventLog(shop.log).batches()) == 1


def test_the_command_says_what_went_in_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0 with a table of counts; exit 1 with rule, how many, three examples and the way out; exit 2 for a typo."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path / "var"))
    path = week(tmp_path / "in", days=4)
    run = ["--events", str(path), "--reader", "demo_shop", "--shop", "test", "--quiet"]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "480" in out
    assert (tmp_path / "var/shops/test/data_docs/index.html").is_file()
    write(path / "day-5.parquet", [{**row, "event_type": "pageview"} for row in events(5)])
    assert main(run) == 1
    error = capsys.readouterr().err
    assert "day-5.parquet" in error
    assert "--allow mix" in error
    assert "event_type_known" in error
    assert "120" in error
    assert error.count("day-5.parquet row") == 3
    assert main([*run[:3], "demoshop", *run[4:]]) == 2
    assert "did you mean demo_shop?" in capsys.readouterr().err


def test_the_demo_shops_dirt_is_found_to_the_row(tmp_path: Path, settings: Settings) -> None:
    """Every planted copy, conflict and bad row of the demo shop is found, under the name it was planted as."""
    root = Path(__file__).resolve().parents[2]
    out = tmp_path / "demo"
    size = ["--events", "20000", "--days", "35", "--seed", "3"]
    subprocess.run(
        [sys.executable, "-m", "ingestion.demo_shop", "--out", out, "--truth", tmp_path / "truth", *size],
        cwd=root,
        check=True,
    )
    told = json.loads((out / "manifest.json").read_text())
    planted = {name: count for name, count in told["planted"].items() if count}
    copies = planted.pop("exact_copy", 0) + planted.pop("redelivered_copy", 0)
    planted["conflict"] = planted.pop("conflicting_copy", 0)
    done = intake(out, settings)
    assert done.ok
    assert (done.rows, done.accepted, done.copies) == (told["rows"], told["clean_rows"], copies)
    assert {one.rule: one.count for one in done.quarantined} == {name: n for name, n in planted.items() if n}


def test_taobao_enters_whole(data: Path, settings: Settings) -> None:
    """All 84,475 events, those outside the official window too, from a folder that holds notes beside the data."""
    gate = Gate(settings.data_docs, Thresholds())
    done = take_in(data / "taobao", load_mapping("taobao"), settings, gate=gate)
    assert (done.rows, done.accepted, done.ok) == (84_475, 84_475, True)
