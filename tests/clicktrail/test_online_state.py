"""The online state: a consumer of the log, exact after any history of batches, folds, kills and replays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.arrivals import arrivals
from clicktrail import advance, state_batches, state_fold
from clicktrail.catalogue import HISTORY_SCHEMA
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration, from_json, to_json
from clicktrail.declaring import aggregates, count, days, sequence, top
from clicktrail.event_log import EventLog
from clicktrail.jagged import JaggedSequence
from clicktrail.online_state import (
    OnlineReader,
    OnlineState,
    StateMissingError,
    StateWentBackError,
    declarations_here,
)
from clicktrail.state_reader import together
from clicktrail.state_store import StateStore, Step
from tests.clicktrail.test_engine import PAIR, RECENT, SECOND, TERMINAL, USER, VIEWS, expected, key_of, read_offline
from tests.clicktrail.test_event_log import rows
from tests.worlds import world

NOW = (1_700_006_400 + 200_000) * SECOND

Place = Callable[[], str]


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Gives a new empty store at each call, in SQLite or in Redis."""
    if request.param == "sqlite":
        return lambda: str(tmp_path / uuid.uuid4().hex / "online.db")
    url = request.getfixturevalue("redis_url")
    return lambda: f"{url}#{uuid.uuid4().hex}"


def fill(log: EventLog, seeds: range) -> None:
    cases = [world(random.Random(seed), str(seed)) for seed in seeds]  # noqa: S311 - reproducible test data
    table = arrivals(cases).select(arrow_schema().names)
    ids = [f"{seeds.start}:{one}" for one in table["event_id"].to_pylist()]
    log.append(table.set_column(0, "event_id", [ids]))


def values(target: str, view: Declaration) -> dict[str, list[object]]:
    keys = [f"{case}|{name}" for case in range(12) for name in ("u", "v", "T", "S")]
    return {k: v.to_pylist() for k, v in OnlineReader(target, [view]).read(view.name, keys, NOW).columns.items()}


def plain(sequence: JaggedSequence) -> dict[str, list[object]]:
    """The first row of a sequence in plain arrays, as a list column shows it."""
    out: dict[str, list[object]] = {}
    for field, numbers in sequence.values.items():
        own = numbers[sequence.starts[0] : sequence.ends[0]]
        null = sequence.nulls.get(field, np.zeros(len(numbers), bool))[sequence.starts[0] : sequence.ends[0]]
        told = sequence.dictionaries.get(field)
        if field == "event_timestamp":
            out[field] = pa.array(own, pa.timestamp("us", tz="UTC")).to_pylist()
        elif told is None:
            out[field] = pa.array(own, mask=null).to_pylist()
        else:
            out[field] = [None if code < 0 else told[code] for code in own]
    return out


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The first of each, as text of floats: nan for null."""
    return {
        name: str(np.array(np.nan if one is None else one, np.float64).ravel().tolist())
        for name, one in ((name, one[0] if isinstance(one, np.ndarray) else one) for name, one in values.items())
    }


def small(monkeypatch: pytest.MonkeyPatch, stretch: int, room: int) -> None:
    """Stretches of so many rows, each folded; states that are folded when they gained so many bytes."""
    monkeypatch.setattr(advance, "STRETCH", stretch)
    monkeypatch.setattr(advance, "_LEAST", room)
    monkeypatch.setattr(advance, "_MOST", room)
    monkeypatch.setattr(state_batches, "FOLD_ROWS", 0)
    monkeypatch.setattr(state_fold, "KEPT_REPEATS", 0)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_stretches_and_folding_do_not_show(place: Place, tmp_path: Path, view: Declaration) -> None:
    """Applied a few rows at a time and folded all the time, in two goes or at once, the log gives the same values."""
    log = EventLog(tmp_path / "log")
    one, two, many = place(), place(), place()
    fill(log, range(6))
    OnlineState(two).catch_up(log, view)
    fill(log, range(6, 12))
    OnlineState(two).catch_up(log, view)
    OnlineState(one).catch_up(log, view)
    with pytest.MonkeyPatch.context() as patch:
        small(patch, stretch=7, room=0)
        OnlineState(many, partitions=3).catch_up(log, view)
    assert values(one, view) == values(two, view) == values(many, view)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), stretch=st.integers(1, 9), room=st.sampled_from([0, 300, 4_096]))
def test_any_world_is_read_as_the_oracle_says(place: Place, seed: int, stretch: int, room: int) -> None:
    """Ties, copies, late and future events, late labels; tiny stretches, states folded at every chance."""
    case = world(random.Random(seed), "hypothesis")  # noqa: S311 - reproducible test data
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        small(patch, stretch, room)
        log, target = EventLog(Path(folder) / "log"), place()
        waiting = arrivals([case]).sort_by("arrives")
        for read in sorted(case["reads"], key=lambda one: one["t"]):
            arrived = waiting["arrives"].to_numpy() <= read["t"]
            log.append(waiting.filter(pa.array(arrived)).select(arrow_schema().names))
            waiting = waiting.filter(pa.array(~arrived))
            state = OnlineState(target)
            for view in VIEWS:
                state.catch_up(log, view)
            keys = [key_of(view, read) for view in VIEWS]
            asked = [(view.name, [key and f"0|{key}"]) for view, key in zip(VIEWS, keys, strict=True)]
            answers = OnlineReader(target, VIEWS).read_many(asked, read["t"] * SECOND)
            for view, key in zip(VIEWS, keys, strict=True):
                if key is not None:
                    online = {name: column[0].as_py() for name, column in answers[view.name].columns.items()}
                    assert online == expected(view, case, key, read["t"])
                    if view.is_sequence:
                        assert plain(answers[view.name].sequence) == online
                    else:
                        assert numbers(answers[view.name].floats) == numbers(
                            {name: online[name] for name in answers[view.name].floats}
                        )
                    twice = together([answers[view.name]] * 2)
                    assert {name: column.to_pylist() for name, column in twice.items()} == {
                        name: [value] * 2 for name, value in online.items()
                    }


# ---- what is there, what is not


def test_another_declaration_under_the_old_name_is_refused(place: Place) -> None:
    """A changed view says what to do instead: declare _v2."""
    target = place()
    OnlineState(target).prepare(RECENT)
    changed = replace(RECENT, last=RECENT.last + 1)
    with pytest.raises(ValueError, match="recent_v2"):
        OnlineState(target).prepare(changed)
    with pytest.raises(ValueError, match="recent_v2"):
        OnlineReader(target, [changed])


def test_an_empty_store_is_not_an_unknown_user(place: Place, tmp_path: Path) -> None:
    """Where a view's state is missing or not complete yet, reading fails and says how to build it."""
    target, log = place(), EventLog(tmp_path / "log")
    with pytest.raises(StateMissingError, match="make features materialize"):
        OnlineReader(target, [RECENT])
    OnlineState(target).prepare(RECENT)
    with pytest.raises(StateMissingError, match="make materialize"):
        OnlineReader(target, [RECENT])
    OnlineState(target).catch_up(log, RECENT)
    assert OnlineReader(target, [RECENT]).read("recent_v1", ["u"], NOW).known == [False]


def emptied(store: StateStore) -> None:
    """As after FLUSHALL, or where the file was removed."""
    names = store.texts("")
    for generation in {name.split(":", 1)[1].rpartition(":")[0] for name in names if name.startswith("head:")}:
        store.clear(generation)
    store.apply([Step(expect={}, put=dict.fromkeys(names))])


def test_a_store_that_was_emptied_is_noticed(place: Place, tmp_path: Path) -> None:
    """A reader that is open says that the state is missing, and reads on once it was built again."""
    target, log = place(), EventLog(tmp_path / "log")
    log.append(rows({}, {}))
    state = OnlineState(target)
    state.catch_up(log, RECENT)
    reader = OnlineReader(target, [RECENT])
    assert reader.read("recent_v1", ["u"], NOW).known == [True]
    emptied(state.store)
    with pytest.raises(StateMissingError, match="the store was emptied"):
        reader.read("recent_v1", ["u"], NOW)
    state.catch_up(log, RECENT)
    assert reader.read("recent_v1", ["u"], NOW).known == [True]


def test_a_store_that_went_back_is_noticed(place: Place, tmp_path: Path) -> None:
    """An older copy in its place is refused by whoever saw the newer one, until it has caught up."""
    target, log = place(), EventLog(tmp_path / "log")
    log.append(rows({}, {}))
    state = OnlineState(target)
    state.catch_up(log, RECENT)
    heads = {f"head:{name}": text for name, text in state.store.texts("head:").items()}
    (generation,) = {name.split(":", 1)[1].rpartition(":")[0] for name in heads}
    (held,) = state.store.read([], [(generation, ["u"])])[1]
    log.append(rows({"event_id": "late"}))
    state.catch_up(log, RECENT)
    reader = OnlineReader(target, [RECENT])
    t = 1_700_000_100 * SECOND
    assert reader.read("recent_v1", ["u"], t).offset == 3
    older = Step(expect={}, put=heads, generation=generation, replace=[("u", b"".join(held.pieces))])
    state.store.apply([older])
    with pytest.raises(StateWentBackError, match="at log offset 2, and had it at 3"):
        reader.read("recent_v1", ["u"], t)
    state.catch_up(log, RECENT)
    read = reader.read("recent_v1", ["u"], t)
    assert (read.offset, read.columns["item_id"].to_pylist()) == (3, [["a", "a", "a"]])


def test_state_of_another_log_is_built_again(place: Place, tmp_path: Path) -> None:
    """The same store against another log (its epoch differs) forgets what it had."""
    one, two, target, fresh = EventLog(tmp_path / "one"), EventLog(tmp_path / "two"), place(), place()
    fill(one, range(4))
    fill(two, range(4, 9))
    OnlineState(target).catch_up(one, USER)
    reader = OnlineReader(target, [USER])
    assert reader.meta()["epoch"] == one.epoch
    OnlineState(target).catch_up(two, USER)
    OnlineState(fresh).catch_up(two, USER)
    assert values(target, USER) == values(fresh, USER)
    assert reader.meta()["epoch"] == two.epoch
    assert not OnlineState(target).store.texts("garbage:")


def test_times_before_1970_are_times(place: Place, tmp_path: Path) -> None:
    """The state of an event before the epoch is read at a time before the epoch."""
    log, target = EventLog(tmp_path / "log"), place()
    then = -100_000_000  # 100 s before 1970
    log.append(rows({"event_type": "cart", "event_timestamp": then, "ingested_at": then}))
    OnlineState(target).catch_up(log, USER)
    read = OnlineReader(target, [USER]).read("user_v1", ["u"], then + 40_000_000)
    assert read.columns["seconds_since_cart"].to_pylist() == [40]


def test_a_read_says_when_and_how_far(place: Place, tmp_path: Path) -> None:
    """Times, offsets and watermark of what was answered; nobody has no state, but an offset to check it at."""
    log, target = EventLog(tmp_path / "log"), place()
    log.append(rows({}, {"user_id": "v"}))
    OnlineState(target).catch_up(log, RECENT)
    newest = 1_700_000_001 * SECOND
    read = OnlineReader(target, [RECENT]).read("recent_v1", ["u", "v", "nobody", None], newest - 1)
    assert read.known == [True, True, False, False]
    assert read.times == [newest - 1, newest, newest - 1, newest - 1]
    assert (read.offset, read.offsets, read.watermark) == (2, [2, 2, 2, 2], newest)


def test_views_of_one_moment_in_one_round_trip(place: Place, tmp_path: Path) -> None:
    """Several views are read together, each for entities of its own; one may be asked for none."""
    log, target = EventLog(tmp_path / "log"), place()
    log.append(rows({"category_id": "c"}, {"user_id": "v"}))
    for view in (RECENT, PAIR, TERMINAL):
        OnlineState(target).catch_up(log, view)
    asked = [("recent_v1", ["u", "v", "u"]), ("pair_v1", ["u\x1fc"]), ("terminal_v1", [])]
    read = OnlineReader(target, [RECENT, PAIR, TERMINAL]).read_many(asked, NOW)
    assert {name: one.known for name, one in read.items()} == {
        "recent_v1": [True, True, True],
        "pair_v1": [True],
        "terminal_v1": [],
    }


def test_top_does_not_depend_on_who_came_first_to_the_log(place: Place, tmp_path: Path) -> None:
    """Two events that happened and became known together: the smaller value leads, in one batch or in two."""
    view = aggregates(name="top_v1", entity_key="user_id", windows=[days(1)], aggregations=[top("item_id", k=1)])
    moment = NOW - 60_000_000
    early = {"event_id": "1", "item_id": "b", "event_timestamp": moment, "ingested_at": moment - 50, "source_seq": 1}
    late = {"event_id": "2", "item_id": "a", "event_timestamp": moment, "ingested_at": moment - 40, "source_seq": 0}
    for name, batches in {"one": [[early, late]], "two": [[early], [late]], "back": [[late], [early]]}.items():
        log, target = EventLog(tmp_path / name), place()
        for batch in batches:
            log.append(rows(*batch))
            OnlineState(target).catch_up(log, view)
        answer = OnlineReader(target, [view]).read("top_v1", ["u"], NOW)
        assert answer.columns["top_item_id_1d"].to_pylist() == [["a"]]


def test_events_of_one_moment_are_ordered_by_id_across_batches(place: Place, tmp_path: Path) -> None:
    """The contract's last key decides, whichever batch brought which event; ids are compared by their bytes."""
    log, target = EventLog(tmp_path / "log"), place()
    same = {"event_timestamp": NOW - 50, "ingested_at": NOW - 40}
    for name in ("c", "é", "a", "ab", "b"):
        log.append(rows({"event_id": name, "item_id": name, **same}))
        OnlineState(target).catch_up(log, sequence(name="ids_v1", entity_key="user_id", last=9, fields=["item_id"]))
    view = declarations_here(target)[0]
    read = OnlineReader(target, [view]).read("ids_v1", ["u"], NOW)
    assert read.columns["item_id"].to_pylist() == [["a", "ab", "b", "c", "é"]]


def test_what_the_catalogue_knew_is_read_and_parts_repeats(place: Place, tmp_path: Path) -> None:
    """Fields of the catalogue are those of the event's moment; a state that is folded by them reads as the log does."""
    view = sequence(
        name="shelf_v1",
        entity_key="user_id",
        last=2,
        fields=["item_title", "item_id"],
        drop_repeats=["item_category_id"],
    )
    early, late = 1_700_000_000 * SECOND, 1_700_000_003 * SECOND
    versions = [("a", "x", "A", early - 9), ("a", "y", "A2", late), ("b", "x", "B", early - 9)]
    history = tmp_path / "catalogue" / "items_history.parquet"
    history.parent.mkdir()
    table = [
        {"item_id": item, "category_id": category, "title": title, "known_at": known, "version": 1}
        for item, category, title, known in versions
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=HISTORY_SCHEMA), history)
    log, target = EventLog(tmp_path / "log"), place()
    with pytest.raises(ValueError, match="catalogue="):
        OnlineReader(target, [view])
    with pytest.MonkeyPatch.context() as patch:
        small(patch, stretch=1, room=0)
        log.append(rows(*({"item_id": item} for item in "abcabba")))  # shelves: x x null x x x y
        OnlineState(target).catch_up(log, view)
    t = early + 100 * SECOND
    reader = OnlineReader(target, [view], catalogue=history)
    reader.warm()
    online = reader.read("shelf_v1", ["u"], t).columns
    offline = read_offline(log, view, "u", t // SECOND)
    assert {name: column[0].as_py() for name, column in online.items()} == offline
    assert offline == {"item_title": ["A", "A2"], "item_id": ["a", "a"]}


# ---- forgetting


def test_a_forgotten_user_is_gone_at_once(place: Place, tmp_path: Path) -> None:
    """After forget nobody can read the user's own state, a pair's with him included, before anything is built anew."""
    log, target = EventLog(tmp_path / "log"), place()
    fill(log, range(4))
    log.append(rows({"category_id": "c", "user_id": "1|u"}, {"category_id": "c", "user_id": "2|u", "event_id": "z"}))
    state = OnlineState(target)
    for view in (USER, PAIR):
        state.catch_up(log, view)
    reader = OnlineReader(target, [USER, PAIR])
    log.forget(["1|u"])
    state.forget(log)
    assert reader.read("user_v1", ["1|u", "2|u"], NOW).known == [False, True]
    assert reader.read("pair_v1", ["1|u\x1fc", "2|u\x1fc"], NOW).known == [False, True]
    assert state.views()["user_v1"].rebuilding is False
    log.append(rows({"user_id": "2|u", "event_id": "later"}))
    state.catch_up(log, USER)
    assert reader.read("user_v1", ["1|u", "2|u"], NOW).known == [False, True]


def test_views_of_others_are_built_without_the_forgotten_user(place: Place, tmp_path: Path) -> None:
    """A terminal's counts lose the user's payments with the next catch-up, and can be read all the while."""
    view = aggregates(name="paid_v1", entity_key="terminal_id", windows=[days(9)], aggregations=[count()])
    log, target = EventLog(tmp_path / "log"), place()
    log.append(rows(*({"terminal_id": "T", "user_id": user} for user in ("a", "b", "b"))))
    state = OnlineState(target)
    state.catch_up(log, view)
    reader = OnlineReader(target, [view])
    log.forget(["b"])
    state.forget(log)
    t = 1_700_000_100 * SECOND
    assert reader.read("paid_v1", ["T"], t).columns["count_any_9d"].to_pylist() == [3]
    state.catch_up(log, view)
    assert reader.read("paid_v1", ["T"], t).columns["count_any_9d"].to_pylist() == [1]


def test_stretches_of_forgotten_users_alone_are_passed_over(place: Place, tmp_path: Path) -> None:
    """A stretch whose every row was forgotten neither stops the state nor moves its watermark."""
    log, target = EventLog(tmp_path / "log"), place()
    log.append(rows({"user_id": "gone"}, {"user_id": "stays"}))
    log.forget(["gone"])
    with pytest.MonkeyPatch.context() as patch:
        small(patch, stretch=1, room=0)
        assert OnlineState(target).catch_up(log, USER) == 2
    assert OnlineReader(target, [USER]).read("user_v1", ["gone", "stays"], NOW).known == [False, True]


# ---- views come and go


def test_dropping_a_view_leaves_those_of_a_like_name(place: Place, tmp_path: Path) -> None:
    """Signs that mean something in a pattern are signs of a name, and capitals count."""
    log, target = EventLog(tmp_path / "log"), place()
    log.append(rows({"user_id": "u*[a]?"}))
    names = ["a_b_v1", "axb_v1", "A_B_v1", "a_b_v1x", "a*_v1"]
    views = [sequence(name=name, entity_key="user_id", last=1, fields=["item_id"]) for name in names]
    for view in views:
        OnlineState(target).catch_up(log, view)
    for name in ("a_b_v1", "a*_v1"):
        OnlineState(target).drop(name)
    assert [one.name for one in declarations_here(target)] == ["A_B_v1", "a_b_v1x", "axb_v1"]
    for view in views[1:4]:
        assert OnlineReader(target, [view]).read(view.name, ["u*[a]?"], NOW).known == [True]
    with pytest.raises(StateMissingError):
        OnlineReader(target, [views[0]])


def test_dropping_a_view_leaves_nothing_behind(place: Place, tmp_path: Path) -> None:
    """No text and no record of it stays, and the view can be made anew."""
    log, target = EventLog(tmp_path / "log"), place()
    fill(log, range(3))
    state = OnlineState(target)
    state.catch_up(log, USER)
    (generation,) = {name.rpartition(":")[0] for name in state.store.texts("head:")}
    assert list(state.store.entities(generation))
    state.drop("user_v1")
    assert list(state.store.texts("")) == ["store"]
    assert list(state.store.entities(generation)) == []
    state.catch_up(log, USER)
    assert any(OnlineReader(target, [USER]).read("user_v1", ["0|u", "1|u", "2|u"], NOW).known)


def test_a_view_removed_meanwhile_is_an_error_in_words(place: Place, tmp_path: Path) -> None:
    """Somebody else's `feast apply` may take a view away between two stretches."""
    log, state = EventLog(tmp_path / "log"), OnlineState(place())
    log.append(rows({}, {}))
    with pytest.MonkeyPatch.context() as patch:
        small(patch, stretch=1, room=0)
        with pytest.raises(ValueError, match="'recent_v1' was removed"):
            state.catch_up(log, RECENT, progress=lambda _: state.drop("recent_v1"))


def test_what_a_catch_up_took_is_told(place: Place, tmp_path: Path) -> None:
    """Seconds and rows of the last one stand beside the view: a plan's prediction can be held against them."""
    log, state = EventLog(tmp_path / "log"), OnlineState(place())
    log.append(rows({}, {}, {}))
    state.catch_up(log, RECENT)
    meta = state.views()["recent_v1"]
    assert (meta.complete, meta.offset, meta.backfill_rows) == (True, 3, 3)
    assert meta.backfill_seconds > 0


def test_readers_read_on_while_a_view_is_built_anew(place: Place, tmp_path: Path) -> None:
    """A rebuild shows nothing until it is as far as what is read; then readers move over, and the old one goes."""
    log, target = EventLog(tmp_path / "log"), place()
    fill(log, range(6))
    state = OnlineState(target)
    state.catch_up(log, USER)
    before, reader = values(target, USER), OnlineReader(target, [USER])
    state.rebuild("user_v1")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        small(patch, stretch=11, room=0)

        def look(_: int) -> None:
            seen.append((reader.read("user_v1", ["0|u"], NOW).offset, state.views()["user_v1"].rebuilding))
            assert values(target, USER) == before

        state.catch_up(log, USER, progress=look)
    assert {offset for offset, _ in seen} == {log.version}
    assert [rebuilding for _, rebuilding in seen][:-1] == [True] * (len(seen) - 1)
    assert len(seen) == -(-log.version // 11)
    assert values(target, USER) == before
    assert not state.store.texts("garbage:")


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Characters that mean something in a URI are read as they stand."""
    path = tmp_path / "50%20 off? #1" / "online.db"
    log = EventLog(tmp_path / "log")
    log.append(rows({}))
    OnlineState(path).catch_up(log, RECENT)
    assert OnlineReader(path, [RECENT]).read("recent_v1", ["u"], NOW).known == [True]


# ---- kills

_CATCH_UP = """
import sys
from pathlib import Path
from clicktrail.event_log import EventLog
from clicktrail.jagged import JaggedSequence
from clicktrail.online_state import OnlineState
from tests.clicktrail.test_engine import TERMINAL
OnlineState(sys.argv[2]).catch_up(EventLog(Path(sys.argv[1]) / "log"), TERMINAL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_commit", "after_commit", "before_switch", "after_switch"])
def test_killed_while_catching_up_nothing_is_doubled(place: Place, tmp_path: Path, moment: str) -> None:
    """Killed around a commit or a switch, the next catch-up gives the values of an undisturbed one."""
    log, target, calm = EventLog(tmp_path / "log"), place(), place()
    fill(log, range(8))
    command = [sys.executable, "-c", _CATCH_UP, str(tmp_path), target]
    died = subprocess.run(command, env={**os.environ, "CLICKTRAIL_FAILPOINT": f"state.{moment}"}, check=False)
    assert died.returncode == -signal.SIGKILL
    OnlineState(target).catch_up(log, TERMINAL)
    OnlineState(calm).catch_up(log, TERMINAL)
    assert values(target, TERMINAL) == values(calm, TERMINAL)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_declaration_survives_json(view: Declaration) -> None:
    """What is read back is the same declaration, and other rules are refused."""
    data: dict[str, Any] = to_json(view)
    assert from_json(data) == view
    with pytest.raises(ValueError, match="other rules"):
        from_json({**data, "fingerprint": "0" * 64})
