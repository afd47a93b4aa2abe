"""Compaction: what is merged, that nothing shows, that what is forgotten is gone, that a kill leaves old or new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.compaction import LARGEST_AT_APPEND, merge_all, merge_at_append
from clicktrail.event_log import EventLog
from clicktrail.log_folder import LARGE
from clicktrail.log_manifest import Manifest, Segment
from tests.clicktrail.test_event_log import ids, rows


def segment(start: int, count: int, *, hidden: int = 0) -> Segment:
    times = dict.fromkeys(("min_event", "max_event", "min_known", "max_known"), 0)
    return Segment(
        file=f"{start}.parquet",
        start=start,
        stop=start + count,
        rows=count,
        digest="",
        accepted_at=0,
        hidden_rows=hidden,
        **times,
    )


def sizes(counts: Sequence[int]) -> list[Segment]:
    return [segment(sum(counts[:place]), count) for place, count in enumerate(counts)]


def merged(segments: list[Segment], run: Sequence[Segment]) -> list[Segment]:
    place = segments.index(run[0])
    one = segment(run[0].start, sum(part.rows for part in run))
    return [*segments[:place], one, *segments[place + len(run) :]]


def test_many_small_appends_are_written_a_few_times_each() -> None:
    """Of 3,000 appends of 2,000 rows, a row is written again 4 times on average; 100 segments are left at most."""
    segments: list[Segment] = []
    written = 0
    for number in range(3_000):
        while run := merge_at_append(segments):
            written += sum(part.rows for part in run)
            segments = merged(segments, run)
        segments.append(segment(number * 2_000, 2_000))
    assert written <= 4 * 3_000 * 2_000
    assert len(segments) <= 100
    assert max(part.rows for part in segments) <= LARGEST_AT_APPEND


def test_a_large_segment_is_not_written_for_small_neighbours() -> None:
    """What is merged at least doubles every part: a million rows wait until their neighbours are as many."""
    assert not merge_all(sizes([LARGE // 2, 5_000, LARGE, 10]))
    assert [part.rows for part in merge_all(sizes([LARGE // 2, 4_000, 10]))] == [4_000, 10]
    assert not merge_at_append(sizes([10] * 7))
    assert len(merge_at_append(sizes([10] * 8))) == 8
    assert not merge_all(sizes([LARGE]))


def test_a_segment_with_hidden_rows_is_written_alone() -> None:
    """Where nothing is small, what is hidden is reason enough."""
    large = segment(0, LARGE, hidden=1)
    assert list(merge_all([large, segment(LARGE, LARGE)])) == [large]


def fill(log: EventLog, appends: int) -> None:
    for number in range(appends):
        log.append(rows({"event_id": f"e{number}", "user_id": "gone" if number % 3 == 0 else "stays"}))


def test_nothing_shows_but_fewer_files(tmp_path: Path) -> None:
    """After compaction every read, digest and version is what it was, and the files of old segments are removed."""
    log = EventLog(tmp_path)
    fill(log, 7)
    log.append(rows({"event_id": "l", "event_type": "label", "user_id": None, "label_of": "e1"}))
    before = [(log.digest(stop), log.end_time(stop), log.read(stop=stop)) for stop in range(9)]
    assert len(log.segments) == 8
    log.compact()
    assert len(log.segments) == 1
    assert [(log.digest(stop), log.end_time(stop), log.read(stop=stop)) for stop in range(9)] == before
    assert log.labels_of(pa.array(["e1"]), ["event_id"])["event_id"].to_pylist() == ["l"]
    assert log.append(rows({"event_id": "e1", "price_minor": 4})).rejected["rule"].to_pylist() == ["conflict"]
    names = {path.name for path in (tmp_path / "segments").iterdir()}
    assert names == {log.segments[0].file, log.segments[0].index}


def test_appends_merge_on_their_own(tmp_path: Path) -> None:
    """Forty appends of one row leave fewer than sixteen segments, and each row at its offset."""
    log = EventLog(tmp_path)
    fill(log, 40)
    assert len(log.segments) < 16
    assert ids(log) == [f"e{number}" for number in range(40)]


def test_a_row_of_its_acceptance_keeps_the_time(tmp_path: Path) -> None:
    """When a row was accepted is known for the newest appends one by one, though their segments were merged."""
    log = EventLog(tmp_path)
    fill(log, 5)
    times = [log.accepted_at(offset) for offset in range(5)]
    assert times == sorted(set(times))
    assert [part.accepted_at for part in log.segments] == times
    log.compact()
    assert [log.accepted_at(offset) for offset in range(5)] == times
    assert log.segments[0].accepted_at == times[4]
    assert log.accepted_at(5) == 0


def test_long_ago_a_segment_says_when_its_newest_row_was_accepted() -> None:
    """Of appends that are no longer listed the segment's time is given; of those that are, their own."""
    manifest = Manifest()
    for number in range(300):
        manifest = manifest.with_append(segment(number, 1), 1_000 + number)
    old = replace(segment(0, 44), accepted_at=1_043)
    manifest = replace(manifest, segments=(old, *manifest.segments[44:]))
    assert [manifest.accepted_at(offset) for offset in (0, 43, 44, 45, 299, 300)] == [
        1_043,
        1_043,
        1_044,
        1_045,
        1_299,
        0,
    ]


def everything_stored(folder: Path) -> set[str]:
    """Every string in the segments of a log, whether a manifest names them or not."""
    out: set[str] = set()
    for path in (folder / "segments").glob("*.parquet"):
        for column in pq.read_table(path).columns:
            if pa.types.is_string(column.type):
                out |= set(column.to_pylist())
    return out


def test_a_forgotten_user_is_erased(tmp_path: Path) -> None:
    """After compaction no segment holds the user's rows or labels of these; offsets, digests and others' rows stay."""
    log = EventLog(tmp_path)
    fill(log, 6)
    said = {"event_type": "label", "user_id": None, "label": "fraud", "label_value": 1}
    log.append(rows({"event_id": "l0", "label_of": "e0", **said}, {"event_id": "l1", "label_of": "e1", **said}))
    log.forget(["gone"])
    seen, digests = log.read(), [log.digest(stop) for stop in range(9)]
    assert "gone" in everything_stored(tmp_path)
    log.compact()
    assert not {"gone", "e0", "e3", "l0"} & everything_stored(tmp_path)
    assert log.read() == seen
    assert log.read(["offset"])["offset"].to_pylist() == [1, 2, 4, 5, 7]
    assert [log.digest(stop) for stop in range(9)] == digests
    assert [(part.start, part.stop, part.rows) for part in log.segments] == [(0, 8, 5)]
    assert log.rows_of(pa.array(["e0", "e4", "l1"]), ["offset"])["offset"].to_pylist() == [4, 7]


def test_what_was_erased_stays_out(tmp_path: Path) -> None:
    """The user's rows, labels of erased events and others' rows under an erased id are refused, before and after."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a", "user_id": "gone"}, {"event_id": "b"}))
    log.forget(["gone"])
    again = rows(
        {"event_id": "a", "user_id": "gone"},
        {"event_id": "new", "user_id": "gone"},
        {"event_id": "l", "event_type": "label", "user_id": None, "label_of": "a"},
        {"event_id": "a", "user_id": "other"},
    )
    for _ in range(2):
        done = log.append(again)
        assert done.rejected["rule"].to_pylist() == ["forgotten"] * 3 + ["conflict"]
        assert (log.version, ids(log)) == (2, ["b"])
        log.compact()


def test_a_log_of_forgotten_users_alone_goes_on(tmp_path: Path) -> None:
    """Where nothing is left there is no segment; the next row gets the next offset."""
    log = EventLog(tmp_path)
    log.append(rows({"user_id": "gone"}, {"event_id": "b", "user_id": "gone"}))
    log.forget(["gone", "nobody"])
    log.compact()
    assert log.segments == ()
    assert (log.version, log.end_time(), log.read().num_rows) == (2, 0, 0)
    log.append(rows({"event_id": "c"}))
    assert log.read(["offset"])["offset"].to_pylist() == [2]


def test_a_reader_that_misses_a_file_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a manifest in hand whose segments were merged meanwhile, every read gives what the new one says."""
    log = EventLog(tmp_path)
    fill(log, 5)
    log.append(rows({"event_id": "l", "event_type": "label", "user_id": None, "label_of": "e1"}), batch="b")
    old = log._folder.manifest.load()  # noqa: SLF001 - a reader between two moments
    EventLog(tmp_path).compact()
    reads = {
        "read": lambda reader: reader.read(["event_id"], start=1, stop=4)["event_id"].to_pylist() == ["e1", "e2", "e3"],
        "query": lambda reader: reader.query("select count(*) n from events")["n"].to_pylist() == [6],
        "locate": lambda reader: reader.locate(pa.array(["e4"])).tolist() == [4],
        "labels": lambda reader: reader.labels_of(None, ["event_id"])["event_id"].to_pylist() == ["l"],
        "batches": lambda reader: [entry["digest"] for entry in reader.batches()] == ["b"],
    }
    for name, read in reads.items():
        reader = EventLog(tmp_path)
        load, told = reader._folder.manifest.load, iter([old])  # noqa: SLF001 - see above
        monkeypatch.setattr(reader._folder.manifest, "load", lambda load=load, told=told: next(told, None) or load())  # noqa: SLF001
        assert read(reader), name


def test_a_file_that_is_really_lost_is_an_error(tmp_path: Path) -> None:
    """Where no newer manifest explains a missing file, the reader says which one it is."""
    log = EventLog(tmp_path)
    fill(log, 1)
    (tmp_path / "segments" / log.segments[0].file).unlink()
    with pytest.raises(FileNotFoundError, match=r"000000000000000\.parquet"):
        log.read()


@pytest.mark.slow
def test_readers_and_a_compactor_at_work_together(tmp_path: Path) -> None:
    """While one appends and another compacts without pause, every read is whole: as many rows as its version."""
    log = EventLog(tmp_path)
    fill(log, 1)
    over = threading.Event()
    broken: list[str] = []

    def read() -> None:
        reader = EventLog(tmp_path)
        while not over.is_set():
            stop = reader.version
            found = reader.read(["offset"], stop=stop)["offset"].to_pylist()
            counted = reader.query("select count(*) n from events", stop=stop)["n"].to_pylist()
            if (found, counted) != (list(range(stop)), [stop]):
                broken.append(f"{stop}: {found} {counted}")

    def compact() -> None:
        while not over.is_set():
            EventLog(tmp_path).compact()

    threads = [threading.Thread(target=work) for work in (read, read, compact)]
    for thread in threads:
        thread.start()
    fill(log, 60)
    over.set()
    for thread in threads:
        thread.join()
    assert not broken
    assert ids(log) == [f"e{number}" for number in range(60)]


_COMPACT = """
import sys
from pathlib import Path
from clicktrail.event_log import EventLog
log = EventLog(Path(sys.argv[1]))
log.forget(["gone"])
log.compact()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "log.hidden.before_rename",
        "log.forget.before_rename",
        "log.forget.after_rename",
        "log.merged.before_rename",
        "log.merged.after_rename",
        "log.index.before_rename",
        "log.before_compaction_manifest",
        "log.compaction.before_rename",
        "log.compaction.after_rename",
        "log.before_removal",
    ],
)
def test_killed_at_any_moment_the_log_is_old_or_new(tmp_path: Path, moment: str) -> None:
    """Killed while forgetting or compacting, readers see the user wholly or not at all; the next run leaves no rest."""
    log = EventLog(tmp_path)
    fill(log, 5)
    with_user, without = [f"e{number}" for number in range(5)], ["e1", "e2", "e4"]
    environment = {**os.environ, "CLICKTRAIL_FAILPOINT": moment}
    died = subprocess.run([sys.executable, "-c", _COMPACT, str(tmp_path)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert ids(log) == (with_user if moment in {"log.hidden.before_rename", "log.forget.before_rename"} else without)
    log.append(rows({"event_id": "later"}))
    log.forget(["gone"])
    log.compact()
    assert ids(log) == [*without, "later"]
    assert not {"gone", "e0", "e3"} & everything_stored(tmp_path)
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    segments = {name for part in log.segments for name in (part.file, part.index)}
    gone = log._folder.manifest.load().gone  # noqa: SLF001 - its name shows nowhere else
    assert kept == {*segments, gone, "manifest.json", ".lock", ".compaction.lock"}
