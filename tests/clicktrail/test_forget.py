"""Forgetting: what is removed, what is named, and that a killed one can be done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import redis

from clicktrail import read_log
from clicktrail.contract import USER_COLUMNS, arrow_schema
from clicktrail.declaring import aggregates, count, days, label_rate, sequence, total
from clicktrail.entity_ids import in_the_dark
from clicktrail.event_log import EventLog
from clicktrail.forget import forget, main, render
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.read_log import Recorder
from clicktrail.settings import Settings
from clicktrail.traces import naming
from tests.clicktrail.test_event_log import rows
from validation.quarantine import publish_quarantine, read_quarantine
from validation.routing import QUARANTINE_SCHEMA

SECOND = 1_000_000
START = 1_700_000_000
NOW = (START + 3600) * SECOND
USER_V1 = sequence(name="user_v1", entity_key="user_id", last=5, fields=["item_id"])
PAIR_V1 = aggregates(
    name="pair_v1", entity_key=["user_id", "category_id"], windows=[days(1)], aggregations=[count(name="events")]
)
TERMINAL_V1 = aggregates(
    name="terminal_v1",
    entity_key="terminal_id",
    windows=[days(1)],
    aggregations=[
        total("price_minor", of="payment", name="paid"),
        label_rate("fraud", of="payment", delay=days(0), name="rate"),
    ],
)
CARD_V1 = sequence(name="card_v1", entity_key="card_id", last=5, fields=["user_id"])
VIEWS = (USER_V1, PAIR_V1, TERMINAL_V1, CARD_V1)


def payment(event_id: str, user: str, terminal: str, card: str, price: int) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "user_id": user,
        "event_type": "payment",
        "terminal_id": terminal,
        "card_id": card,
        "category_id": "c",
        "price_minor": price,
        "item_id": f"item of {user}",
    }


def run_folder(settings: Settings, name: str, **data: Any) -> None:  # noqa: ANN401 - JSON data
    """A run as far as forgetting looks at it."""
    folder = settings.runs / "fraud" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"training_set": data.pop("training_set", "another")}))
    (folder / "metrics.json").write_text(json.dumps({"data": {"shop": "demo", **data}}))


def bundle_folder(settings: Settings, version: str, **run: Any) -> None:  # noqa: ANN401 - JSON data
    folder = settings.bentoml_home / "bentos" / "clicktrail-fraud" / version / "src" / "bundle"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"run": run}))


def training_folder(settings: Settings, key: str, **manifest: Any) -> Path:  # noqa: ANN401 - JSON data
    folder = settings.training_sets / "fraud" / key
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def fill(home: Path, url: str = "") -> Settings:
    """A shop where `ann` paid with card A at T1, where `bob` paid too, and `bob` alone at T2; all that is derived."""
    settings = Settings(home=home / "home", bentoml_home=home / "bentoml", online_url=url)
    log = EventLog(settings.log)
    log.append(rows(payment("b0", "bob", "T2", "B", 1)))
    before = log.digest()
    fraud = {"user_id": None, "event_type": "label", "label": "fraud", "label_value": 1, "item_id": None}
    log.append(
        rows(
            payment("a1", "ann", "T1", "A", 10),
            payment("b1", "bob", "T1", "B", 100),
            {**payment("a2", "ann", "T1", "A", 20), "event_timestamp": (START + 9) * SECOND},
            {**fraud, "event_id": "l1", "label_of": "a1"},
        )
    )
    recorder = Recorder(settings.read_log, 1.0)
    for view in VIEWS:
        OnlineState(settings.online_state).catch_up(log, view)
    reader = OnlineReader(settings.online_state, VIEWS, recorder=recorder)
    reader.read("user_v1", ["ann", "bob"], NOW)
    reader.read("pair_v1", ["ann\x1fc", "bob\x1fc"], NOW)
    reader.read("terminal_v1", ["T1", "T2"], NOW)
    reader.read("card_v1", ["A", "B", None], NOW)
    recorder.flush()
    end = {"log_offset": log.version, "log_digest": log.digest()}
    training_folder(settings, "all", digest="set of all", **end)
    training_folder(settings, "before her", digest="set of before", log_offset=1, log_digest=before)
    run_folder(settings, "knows her", log_offset=log.version, log_content=log.digest())
    run_folder(settings, "before her", log_offset=1, log_content=before)
    run_folder(settings, "by its set", training_set="set of all")
    run_folder(settings, "of another shop", shop="other", log_offset=log.version, log_content="x")
    bundle_folder(settings, "v1", id="by its set")
    bundle_folder(settings, "v2", id="deleted", shop="demo", log_offset=log.version, log_content="x")
    bundle_folder(settings, "v3", id="before her", shop="demo", log_offset=1, log_content=before)
    settings.catalogue.mkdir(parents=True)
    users = pa.table(
        {"user_id": ["ann", "bob"], "signed_up_at": [None, None], "country": ["DE", "FR"]},
        schema=arrow_schema(USER_COLUMNS),
    )
    pq.write_table(users.replace_schema_metadata({"clicktrail.source": "digest"}), settings.catalogue / "users.parquet")
    bad = [("a1", "conflict"), ("b1", "conflict"), ("ann", "country_known"), (None, "user_id_present")]
    publish_quarantine(
        settings.quarantine,
        "batch",
        pa.table(
            {
                **{name: [None] * 4 for name in QUARANTINE_SCHEMA.names},
                "event_id": [one for one, _ in bad],
                "rule": [rule for _, rule in bad],
            },
            schema=QUARANTINE_SCHEMA,
        ),
    )
    for name, text in (("a.html", "<td>ann</td>"), ("b.html", "joann a10"), ("c.json", '["a2"]'), ("d.png", "ann")):
        (settings.shop_home / "plans").mkdir(exist_ok=True)
        (settings.shop_home / "plans" / name).write_text(text)
    return settings


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fill(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def shop(filled: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(filled.home.parent, tmp_path / "shop")
    return Settings(home=tmp_path / "shop" / "home", bentoml_home=tmp_path / "shop" / "bentoml")


def everything(settings: Settings) -> str:
    """What lies in the shop's folder, as text, the log and what must not hold an id aside."""
    texts = []
    for path in sorted(settings.shop_home.rglob("*")):
        if not path.is_file() or settings.log in path.parents:
            continue
        is_table = path.suffix == ".parquet"
        texts.append(str(pq.read_table(path).to_pylist()) if is_table else path.read_bytes().decode(errors="replace"))
    return "\n".join(texts)


def check(settings: Settings, *, shredded: bool = False) -> None:
    """Nothing of ann is left that could be read, and all of bob is."""
    log = EventLog(settings.log)
    assert log.read(["event_id"])["event_id"].to_pylist() == ["b0", "b1"]
    reader = OnlineReader(settings.online_state, VIEWS)
    assert reader.read("user_v1", ["ann", "bob"], NOW).known == [False, True]
    assert reader.read("pair_v1", ["ann\x1fc", "bob\x1fc"], NOW).columns["events"].to_pylist() == [0, 2]
    assert reader.read("terminal_v1", ["T1", "T2"], NOW).columns["paid"].to_pylist() == [100, 1]
    assert reader.read("terminal_v1", ["T1"], NOW).columns["rate"].to_pylist() == [[0, 1]]
    assert reader.read("card_v1", ["A", "B"], NOW).columns["user_id"].to_pylist() == [[], ["bob", "bob"]]
    reads = {view.name: table["entity"].to_pylist() for view, table in read_log.by_view(settings.read_log)}
    assert reads == {"user_v1": ["bob"], "pair_v1": ["bob\x1fc"], "terminal_v1": ["T2"], "card_v1": ["B", None]}
    assert pq.read_table(settings.catalogue / "users.parquet")["user_id"].to_pylist() == ["bob"]
    assert read_quarantine(settings.quarantine)["event_id"].to_pylist() == ["b1", None]
    assert sorted(path.name for path in settings.training_sets.glob("*/*")) == ["before her"]
    assert sorted(path.name for path in (settings.shop_home / "plans").iterdir()) == ["b.html", "d.png"]
    (settings.shop_home / "plans" / "d.png").unlink()
    (settings.shop_home / "plans" / "b.html").unlink()
    for path in () if shredded else settings.shop_home.glob("online.db*"):
        path.unlink()  # what SQLite has freed still holds bytes of her
    assert not naming(["ann", "a1", "a2", "l1"]).search(everything(settings))


def test_a_user_is_gone_from_all_that_can_be_read(shop: Settings) -> None:
    """State, read log, training sets, user table, quarantine and pages; others keep what is theirs."""
    done = forget(shop, ["ann"], at=datetime(2026, 5, 1, tzinfo=UTC))
    assert done.removed == {
        "events and labels in the log": 3,
        "from views of the online state": 4,
        "rows of the read log": 4,
        "rows of the decision log": 0,
        "training sets": 1,
        "rows of the user table": 1,
        "rows in quarantine": 2,
        "pages and samples": 2,
    }
    assert pq.read_schema(shop.catalogue / "users.parquet").metadata[b"clicktrail.source"] == b"digest"
    check(shop)


def test_runs_and_bundles_that_saw_them_are_named(shop: Settings) -> None:
    """By the log that they were made of or their training set; not those of before, of others, or of afterwards."""
    run_folder(shop, "not said", log_offset=EventLog(shop.log).version)
    done = forget(shop, ["ann"])
    assert {(one.kind, one.name) for one in done.trained} == {
        ("run", "fraud/knows her"),
        ("run", "fraud/by its set"),
        ("run", "fraud/not said"),
        ("bundle", "clicktrail-fraud:v1"),
        ("bundle", "clicktrail-fraud:v2"),
    }
    log = EventLog(shop.log)
    run_folder(shop, "afterwards", log_offset=log.version, log_content=log.digest())
    assert "fraud/afterwards" not in {one.name for one in forget(shop, ["ann"]).trained}
    assert "run fraud/knows her: may have learned from them" in render(done)


def test_again_finds_nothing_more_but_still_names_the_runs(shop: Settings) -> None:
    """Also after their rows were erased, when the log can't say any more where they began."""
    first = forget(shop, ["ann"], now=True)
    again = forget(shop, ["ann"], now=True)
    assert set(again.removed.values()) == {0, 4}
    assert [one.name for one in again.trained if one.kind == "bundle"] == ["clicktrail-fraud:v2"]
    assert "fraud/knows her" in {one.name for one in again.trained}
    assert again.first_offset == first.first_offset == 1


def test_now_erases_the_rows(shop: Settings) -> None:
    """Until then the rows lie hidden in the segments, and the report says how many; SQLite frees no byte of them."""
    done = forget(shop, ["ann"])
    assert done.in_segments == 3
    assert "3 hidden rows" in render(done)
    assert "a1" in segments(shop)
    done = forget(shop, ["ann"], now=True)
    assert done.in_segments == 0
    assert segments(shop) == ["b0", "b1"]
    check(shop, shredded=True)


def segments(settings: Settings) -> list[str]:
    files = ds.dataset(settings.log / "segments", format="parquet", exclude_invalid_files=True)
    return sorted(files.to_table(columns=["event_id"])["event_id"].to_pylist())


def test_the_report_names_nobody(shop: Settings) -> None:
    """Users stand in it by the sha256 of their ids; nothing else of them is kept."""
    forget(shop, ["ann", "nobody"], at=datetime(2026, 5, 1, tzinfo=UTC))
    (report,) = shop.forgotten.iterdir()
    assert report.name == "2026-05-01T000000.json"
    text = report.read_text()
    assert json.loads(text)["users"] == [in_the_dark("ann"), in_the_dark("nobody")]
    assert not naming(["ann", "nobody", "a1", "T1", "A"]).search(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "forget.after_note",
        "log.forget.after_rename",
        "forget.after_tombstone",
        "state.after_commit",
        "state.after_switch",
        "read_log.after_rename",
        "catalogue.before_rename",
        "quarantine.after_rename",
        "forget.report.before_rename",
    ],
)
def test_killed_anywhere_it_can_be_done_again(shop: Settings, moment: str) -> None:
    """Asked for once more, all is as if it had not been killed, and the whole count of events is reported."""
    environ = {
        **os.environ,
        "CLICKTRAIL_HOME": str(shop.home),
        "BENTOML_HOME": str(shop.bentoml_home),
        "CLICKTRAIL_FAILPOINT": moment,
    }
    killed = subprocess.run([sys.executable, "-m", "clicktrail.forget", "ann"], check=False, env=environ)
    assert killed.returncode == -signal.SIGKILL
    done = forget(shop, ["ann"])
    assert done.removed["events and labels in the log"] == 3
    assert "fraud/knows her" in {one.name for one in done.trained}
    check(shop)


def test_on_redis_too(tmp_path: Path, redis_url: str) -> None:
    """The same from a state in Redis, in which no key or value of theirs is left."""
    settings = fill(tmp_path, f"{redis_url}#forget")
    client = redis.Redis.from_url(redis_url)
    assert any(b"ann" in key for key in client.scan_iter("*forget*"))
    forget(settings, ["ann"], now=True)
    check(settings)
    keys = list(client.scan_iter("*forget*"))
    assert keys
    assert not any(b"ann" in key or (client.type(key) == b"string" and b"ann" in client.get(key)) for key in keys)


def test_the_command(shop: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what was removed where and what remains; nobody, or no log, is an error with a way out."""
    assert main(shop, ["ann"]) == 0
    said = capsys.readouterr().out
    assert "rows in quarantine" in said
    assert "backups" in said
    assert main(shop, [","]) == 2
    assert "make forget USER=" in capsys.readouterr().err
    assert main(Settings(home=tmp_path / "elsewhere"), ["ann"]) == 2
    assert "has no event log" in capsys.readouterr().err


def test_reads_that_are_left_can_still_be_replayed(shop: Settings) -> None:
    """What stays in the read log is equal to the log without the user: their traces in others' values went too."""
    from validation.parity_counts import LOGGED, measure

    forget(shop, ["ann"])
    found = measure(EventLog(shop.log), ((view, LOGGED, table) for view, table in read_log.by_view(shop.read_log)))
    assert sum(view.reads for view in found.values()) == 5
    assert np.sum([view.differing for view in found.values()]) == 0
