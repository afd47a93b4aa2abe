"""The online state: a consumer of the log, exact after any history of kills and replays."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arrivals import arrivals
from clicktrail import online_state, state
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.declaring import aggregates, days, sequence, top
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from tests.clicktrail.test_engine import RECENT, TERMINAL, USER, VIEWS
from tests.clicktrail.test_event_log import rows
from tests.worlds import world

NOW = (1_700_006_400 + 200_000) * 1_000_000


def fill(log: EventLog, seeds: range) -> None:
    cases = [world(random.Random(seed), str(seed)) for seed in seeds]  # noqa: S311 - reproducible test data
    table = arrivals(cases).select(arrow_schema().names)
    ids = [f"{seeds.start}:{one}" for one in table["event_id"].to_pylist()]
    log.append(table.set_column(0, "event_id", [ids]))


def values(path: Path, view: Declaration) -> dict[str, list[object]]:
    keys = [f"{case}|{name}" for case in range(12) for name in ("u", "v", "T", "S")]
    return {k: v.to_pylist() for k, v in OnlineReader(path, [view]).read(view.name, keys, NOW).columns.items()}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_stretches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: Declaration) -> None:
    """Applied row by row, in two goes or at once, the log gives the same values."""
    log = EventLog(tmp_path / "log")
    fill(log, range(6))
    OnlineState(tmp_path / "two.db").catch_up(log, view)
    fill(log, range(6, 12))
    OnlineState(tmp_path / "two.db").catch_up(log, view)
    OnlineState(tmp_path / "one.db").catch_up(log, view)
    monkeypatch.setattr(online_state, "STRETCH", 7)
    OnlineState(tmp_path / "many.db").catch_up(log, view)
    assert values(tmp_path / "one.db", view) == values(tmp_path / "two.db", view) == values(tmp_path / "many.db", view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_state_survives_its_binary_form(tmp_path: Path, view: Declaration) -> None:
    """Packing and unpacking are inverse, nulls and strings included."""
    log = EventLog(tmp_path / "log")
    fill(log, range(5))
    OnlineState(tmp_path / "online.db").catch_up(log, view)
    blobs = [row[0] for row in sqlite3.connect(tmp_path / "online.db").execute("select blob from state")]
    assert blobs
    for blob in blobs:
        assert state.pack(view, state.unpack(view, blob)) == blob


def test_old_rows_change_nothing(tmp_path: Path) -> None:
    """Merging what a state has applied already leaves it as it was."""
    log = EventLog(tmp_path / "log")
    fill(log, range(3))
    OnlineState(tmp_path / "online.db").catch_up(log, RECENT)
    for (blob,) in sqlite3.connect(tmp_path / "online.db").execute("select blob from state"):
        one = state.unpack(RECENT, blob)
        assert state.pack(RECENT, state.merge(RECENT, one, one)) == blob


def test_another_declaration_under_the_old_name_is_refused(tmp_path: Path) -> None:
    """A changed view says what to do instead: declare _v2."""
    store = OnlineState(tmp_path / "online.db")
    store.prepare(RECENT)
    changed = Declaration(**{**RECENT.__dict__, "last": RECENT.last + 1})
    with pytest.raises(ValueError, match="recent_v2"):
        store.prepare(changed)
    with pytest.raises(ValueError, match="recent_v2"):
        OnlineReader(tmp_path / "online.db", [changed])


def test_an_empty_store_is_not_an_unknown_user(tmp_path: Path) -> None:
    """Where a view's state is missing, reading fails and says how to build it."""
    with pytest.raises(ValueError, match="make features materialize"):
        OnlineReader(tmp_path / "online.db", [RECENT])


def test_state_of_another_log_is_built_again(tmp_path: Path) -> None:
    """The same file against another log (its epoch differs) forgets what it had."""
    one, two = EventLog(tmp_path / "one"), EventLog(tmp_path / "two")
    fill(one, range(4))
    fill(two, range(4, 9))
    OnlineState(tmp_path / "online.db").catch_up(one, USER)
    OnlineState(tmp_path / "online.db").catch_up(two, USER)
    OnlineState(tmp_path / "fresh.db").catch_up(two, USER)
    assert values(tmp_path / "online.db", USER) == values(tmp_path / "fresh.db", USER)


def test_a_forgotten_user_leaves_the_state(tmp_path: Path) -> None:
    """After forget the next catch-up has nothing of the user."""
    log = EventLog(tmp_path / "log")
    fill(log, range(4))
    OnlineState(tmp_path / "online.db").catch_up(log, USER)
    log.forget(["0|u"])
    OnlineState(tmp_path / "online.db").catch_up(log, USER)
    reader = OnlineReader(tmp_path / "online.db", [USER])
    assert reader.read("user_v1", ["0|u", "1|u"], NOW).known == [False, True]


def test_stretches_of_forgotten_users_alone_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch whose every row was forgotten neither stops the state nor moves its watermark."""
    log = EventLog(tmp_path / "log")
    log.append(rows({"user_id": "gone"}, {"user_id": "stays"}))
    log.forget(["gone"])
    monkeypatch.setattr(online_state, "STRETCH", 1)
    assert OnlineState(tmp_path / "online.db").catch_up(log, USER) == 2
    assert OnlineReader(tmp_path / "online.db", [USER]).read("user_v1", ["gone", "stays"], NOW).known == [False, True]


def test_times_before_1970_are_times(tmp_path: Path) -> None:
    """The state of an event before the epoch is read at a time before the epoch."""
    log = EventLog(tmp_path / "log")
    then = -100_000_000  # 100 s before 1970
    log.append(rows({"event_type": "cart", "event_timestamp": then, "ingested_at": then}))
    OnlineState(tmp_path / "online.db").catch_up(log, USER)
    read = OnlineReader(tmp_path / "online.db", [USER]).read("user_v1", ["u"], then + 40_000_000)
    assert read.columns["seconds_since_cart"].to_pylist() == [40]


def test_top_does_not_depend_on_who_came_first_to_the_log(tmp_path: Path) -> None:
    """Two events that happened and became known together: the smaller value leads, in one batch or in two."""
    view = aggregates(name="top_v1", entity_key="user_id", windows=[days(1)], aggregations=[top("item_id", k=1)])
    moment = NOW - 60_000_000
    early = {"event_id": "1", "item_id": "b", "event_timestamp": moment, "ingested_at": moment - 50, "source_seq": 1}
    late = {"event_id": "2", "item_id": "a", "event_timestamp": moment, "ingested_at": moment - 40, "source_seq": 0}
    for name, batches in {"one": [[early, late]], "two": [[early], [late]], "back": [[late], [early]]}.items():
        log = EventLog(tmp_path / name)
        for batch in batches:
            log.append(rows(*batch))
            OnlineState(tmp_path / f"{name}.db").catch_up(log, view)
        answer = OnlineReader(tmp_path / f"{name}.db", [view]).read("top_v1", ["u"], NOW)
        assert answer.columns["top_item_id_1d"].to_pylist() == [["a"]]


def test_dropping_a_view_leaves_those_of_a_like_name(tmp_path: Path) -> None:
    """An underscore is a character of a name, not a wildcard, and capitals count."""
    log = EventLog(tmp_path / "log")
    log.append(rows({}))
    names = ["a_b_v1", "axb_v1", "A_B_v1", "a_b_v1x"]
    views = [sequence(name=name, entity_key="user_id", last=1, fields=["item_id"]) for name in names]
    for view in views:
        OnlineState(tmp_path / "online.db").catch_up(log, view)
    OnlineState(tmp_path / "online.db").drop("a_b_v1")
    con = sqlite3.connect(tmp_path / "online.db")
    assert {view.split("@")[0] for (view,) in con.execute("select view from state")} == {*names[1:]}


def test_a_view_removed_meanwhile_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's `feast apply` may take a view away between two stretches."""
    log = EventLog(tmp_path / "log")
    log.append(rows({}, {}))
    monkeypatch.setattr(online_state, "STRETCH", 1)
    store = OnlineState(tmp_path / "online.db")
    with pytest.raises(ValueError, match="'recent_v1' was removed"):
        store.catch_up(log, RECENT, progress=lambda _: store.drop("recent_v1"))


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Characters that mean something in a URI are read as they stand."""
    path = tmp_path / "50%20 off? #1" / "online.db"
    log = EventLog(tmp_path / "log")
    log.append(rows({}))
    OnlineState(path).catch_up(log, RECENT)
    assert OnlineReader(path, [RECENT]).read("recent_v1", ["u"], NOW).known == [True]


_CATCH_UP = """
import sys
from pathlib import Path
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from tests.clicktrail.test_engine import TERMINAL
OnlineState(Path(sys.argv[1]) / "online.db").catch_up(EventLog(Path(sys.argv[1]) / "log"), TERMINAL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["state.before_commit", "state.after_commit"])
def test_killed_while_catching_up_nothing_is_doubled(tmp_path: Path, moment: str) -> None:
    """Killed before or after a commit, the next catch-up gives the values of an undisturbed one."""
    log = EventLog(tmp_path / "log")
    fill(log, range(8))
    command = [sys.executable, "-c", _CATCH_UP, str(tmp_path)]
    died = subprocess.run(command, env={**os.environ, "CLICKTRAIL_FAILPOINT": moment}, check=False)
    assert died.returncode == -signal.SIGKILL
    OnlineState(tmp_path / "online.db").catch_up(log, TERMINAL)
    OnlineState(tmp_path / "calm.db").catch_up(log, TERMINAL)
    assert values(tmp_path / "online.db", TERMINAL) == values(tmp_path / "calm.db", TERMINAL)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_declaration_survives_json(view: Declaration) -> None:
    """What is read back is the same declaration, and other rules are refused."""
    data = to_json(view)
    assert from_json(data) == view
    with pytest.raises(ValueError, match="other rules"):
        from_json({**data, "fingerprint": "0" * 64})
