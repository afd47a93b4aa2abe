"""The read log: a sample of what was answered, as it was answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.parity_world import ACTIVITY, PAIR, RECENT, Shop
from clicktrail import read_log
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineReader, OnlineState
from clicktrail.read_log import FEATURE, Recorder, recorder
from clicktrail.settings import Settings, load

KEYS = ["u0", "u1", "nobody", None]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small state of some views."""
    folder = tmp_path_factory.mktemp("shop")
    log = EventLog(folder / "log")
    log.append(Shop(0).batch(500))
    for view in (RECENT, ACTIVITY, PAIR):
        OnlineState(folder / "online.db").catch_up(log, view)
    return folder / "online.db"


def test_nothing_is_kept_unless_asked_for(tmp_path: Path) -> None:
    """Without CLICKTRAIL_READ_LOG there is no recorder at all."""
    assert recorder(Settings(home=tmp_path)) is None
    assert recorder(load({"CLICKTRAIL_HOME": str(tmp_path), "CLICKTRAIL_READ_LOG": "0.5"})) is not None
    with pytest.raises(ValueError, match="share of reads to keep, 0 to 1"):
        load({"CLICKTRAIL_READ_LOG": "2"})


def test_a_row_is_what_was_answered(tmp_path: Path, state: Path) -> None:
    """Values, entity, both times and the offset, for every kind of feature; the view comes back with them."""
    kept = Recorder(tmp_path, 1.0)
    reader = OnlineReader(state, [RECENT, ACTIVITY], recorder=kept)
    t = int(str(reader.meta()["watermark"])) + 1
    answers = {view.name: reader.read(view.name, KEYS, t) for view in (RECENT, ACTIVITY)}
    kept.flush()
    found = {declaration.name: (declaration, table) for declaration, table in read_log.by_view(tmp_path)}
    assert {name: one[0] for name, one in found.items()} == {"recent_v1": RECENT, "activity_v1": ACTIVITY}
    for name, (_, table) in found.items():
        assert table["entity"].to_pylist() == KEYS
        assert table["asked"].to_pylist() == [t] * 4
        assert table["answered"].to_pylist() == answers[name].times
        assert table["offset"].to_pylist() == answers[name].offsets
        assert table["found"].to_pylist() == [True, True, False, False]
        for feature, column in answers[name].columns.items():
            assert table[f"{FEATURE}{feature}"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 4000, 4000), (0.1, 300, 500), (0.01, 15, 70)])
def test_a_share_is_kept(tmp_path: Path, state: Path, share: float, least: int, most: int) -> None:
    """Of 4,000 rows about that share, each with the same chance, wherever it stands in its read."""
    kept = Recorder(tmp_path, share, seed=7)
    reader = OnlineReader(state, [PAIR], recorder=kept)
    keys = [f"key {number}" for number in range(40)]
    for _ in range(100):
        reader.read("pair_v1", keys, 0)
    kept.flush()
    entities = pa.concat_arrays([table["entity"].combine_chunks() for _, table in read_log.by_view(tmp_path)])
    assert least <= len(entities) <= most
    if share > 0.05:
        halves = [sum(int(one.split()[1]) // 20 == half for one in entities.to_pylist()) for half in (0, 1)]
        assert min(halves) > len(entities) * 0.4


def test_the_oldest_files_make_room(tmp_path: Path, state: Path) -> None:
    """The log stays within its limit, and what it holds is the newest."""
    limit = 30_000
    kept = Recorder(tmp_path, 1.0, limit_bytes=limit, rows=1)
    reader = OnlineReader(state, [RECENT], recorder=kept)
    for t in range(12):
        reader.read("recent_v1", ["u0"], t)
    left = read_log.files(tmp_path)
    assert sum(path.stat().st_size for path in left) <= limit
    assert 0 < len(left) < 12
    assert [read_log.read(path)[1]["asked"].to_pylist() for path in left] == [[t] for t in range(12 - len(left), 12)]


def test_what_is_in_memory_when_users_are_forgotten_is_dropped(tmp_path: Path, state: Path) -> None:
    """A recorder does not bring back what was taken out of the files meanwhile; what comes after is kept."""
    kept = Recorder(tmp_path, 1.0)
    reader = OnlineReader(state, [PAIR], recorder=kept)
    reader.read("pair_v1", ["a"], 1)
    read_log.forget_before(tmp_path, time.time_ns() // 1_000)
    reader.read("pair_v1", ["b"], 2)
    kept.flush()
    assert [table["entity"].to_pylist() for _, table in read_log.by_view(tmp_path)] == [["b"]]


def test_a_file_that_goes_while_it_is_read_is_left_out(tmp_path: Path, state: Path) -> None:
    """A recorder that makes room does not disturb who reads."""
    kept = Recorder(tmp_path, 1.0, rows=1)
    reader = OnlineReader(state, [PAIR], recorder=kept)
    for t in range(3):
        reader.read("pair_v1", ["a"], t)
    pieces = read_log.by_view(tmp_path, rows=1)
    assert next(pieces)[1]["asked"].to_pylist() == [0]
    read_log.files(tmp_path)[2].unlink()
    assert [table["asked"].to_pylist() for _, table in pieces] == [[1]]


def read_and_wait(state: Path, folder: Path) -> None:
    """What the killed process does: two reads, each a file of its own."""
    reader = OnlineReader(state, [PAIR], recorder=Recorder(folder, 1.0, rows=1))
    reader.read("pair_v1", ["a"], 1)
    reader.read("pair_v1", ["b"], 2)


@pytest.mark.parametrize(("moment", "left"), [("", 2), ("read_log.before_rename", 0), ("read_log.after_rename", 1)])
def test_a_killed_reader_leaves_whole_files(tmp_path: Path, state: Path, moment: str, left: int) -> None:
    """Killed at a publish, it loses what it had not published, and no half of a file is taken for one."""
    program = (
        f"from tests.clicktrail.test_read_log import *; read_and_wait(Path({str(state)!r}), Path({str(tmp_path)!r}))"
    )
    environ = {**os.environ, "CLICKTRAIL_FAILPOINT": moment, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    done = subprocess.run([sys.executable, "-c", program], check=False, env=environ)
    assert done.returncode == (-signal.SIGKILL if moment else 0)
    assert sum(read_log.read(path)[1].num_rows for path in read_log.files(tmp_path)) == left


def test_what_is_in_memory_is_written_when_the_process_ends(tmp_path: Path, state: Path) -> None:
    """A service that is stopped in order leaves its last reads too."""
    program = (
        "from tests.clicktrail.test_read_log import *;"
        f"kept = Recorder(Path({str(tmp_path)!r}), 1.0);"
        f"OnlineReader({str(state)!r}, [PAIR], recorder=kept).read('pair_v1', ['a'], 1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert [table.num_rows for _, table in read_log.by_view(tmp_path)] == [1]
