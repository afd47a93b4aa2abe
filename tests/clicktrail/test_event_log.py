"""The event log: offsets, unique ids, one atomic publish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.log_manifest import ManifestFile

SECOND = 1_000_000


def rows(*events: dict[str, Any]) -> pa.Table:
    """A contract table; what an event leaves out is filled in."""
    plain = {"user_id": "u", "item_id": "a", "event_type": "view", "source_seq": 0}
    full = [
        {
            **dict.fromkeys(arrow_schema().names),
            **plain,
            "event_id": f"e{place}",
            "event_timestamp": (1_700_000_000 + place) * SECOND,
            "ingested_at": (1_700_000_000 + place) * SECOND,
            **event,
        }
        for place, event in enumerate(events)
    ]
    return pa.Table.from_pylist(full, schema=arrow_schema())


def ids(log: EventLog) -> list[str]:
    return log.read(["event_id"])["event_id"].to_pylist()


def test_an_offset_is_a_version(tmp_path: Path) -> None:
    """Rows read up to an offset are those accepted before it, whatever came later."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}, {"event_id": "b"}))
    version = log.version
    digest = log.digest()
    log.append(rows({"event_id": "c"}))
    assert log.version == version + 1 == 3
    assert log.read(["event_id"], stop=version)["event_id"].to_pylist() == ["a", "b"]
    assert log.read(["event_id", "offset"], start=version).to_pylist() == [{"event_id": "c", "offset": 2}]
    assert log.digest(version) == digest != log.digest()


def test_a_copy_is_counted_and_a_conflict_handed_back(tmp_path: Path) -> None:
    """The first arrival of an event_id stands; its copies change nothing; other content is rejected with a reason."""
    log = EventLog(tmp_path)
    first = {"event_id": "a", "price_minor": 5}
    later = {"ingested_at": 1_700_000_900 * SECOND, "event_timestamp": 1_700_000_000 * SECOND, "source_seq": 9}
    done = log.append(rows(first, {**first, **later}, {**first, **later, "price_minor": 6}))
    assert (done.accepted, done.copies, done.rejected["row"].to_pylist()) == (1, 1, [2])
    assert done.rejected["rule"].to_pylist() == ["conflict"]
    again = log.append(rows(first, {**first, "price_minor": 7, "event_timestamp": 1_700_000_000 * SECOND}))
    assert (again.accepted, again.copies, again.rejected["row"].to_pylist()) == (0, 1, [1])
    assert log.version == 1


def test_the_first_arrival_is_the_earliest_not_the_first_row(tmp_path: Path) -> None:
    """Within a batch arrival time decides, since files arrive in any order."""
    log = EventLog(tmp_path)
    early = {"event_id": "a", "event_timestamp": 1_700_000_000 * SECOND, "ingested_at": 1_700_000_001 * SECOND}
    late = {**early, "ingested_at": 1_700_000_009 * SECOND}
    log.append(rows(late, early))
    assert log.read(["ingested_at"])["ingested_at"].cast(pa.int64()).to_pylist() == [1_700_000_001 * SECOND]


def test_too_far_ahead_is_rejected_and_may_come_again(tmp_path: Path) -> None:
    """Over 300 s ahead of its arrival is refused; the same id is welcome once its clock is right."""
    log = EventLog(tmp_path)
    ahead = {"event_id": "a", "event_timestamp": 1_700_000_301 * SECOND, "ingested_at": 1_700_000_000 * SECOND}
    done = log.append(rows(ahead, {**ahead, "event_id": "b", "event_timestamp": 1_700_000_300 * SECOND}))
    assert (done.accepted, done.rejected["rule"].to_pylist()) == (1, ["ahead_of_arrival"])
    assert log.append(rows({**ahead, "ingested_at": 1_700_000_301 * SECOND})).accepted == 1


def test_digest_is_of_content(tmp_path: Path) -> None:
    """How rows were batched does not show in the digest; a changed value does."""
    one, two, other = (EventLog(tmp_path / name) for name in ("one", "two", "other"))
    events = [{"event_id": "a"}, {"event_id": "b", "price_minor": 3}, {"event_id": "c"}]
    one.append(rows(*events))
    table = rows(*events)
    two.append(table.slice(0, 1))
    two.append(table.slice(1))
    other.append(rows(events[0], {"event_id": "b", "price_minor": 4}, events[2]))
    assert one.digest() == two.digest() != other.digest()
    assert one.digest(2) == two.digest(2)


def test_the_same_batch_is_known_and_refused(tmp_path: Path) -> None:
    """A batch leaves its digest and counts; it can't be taken in twice."""
    log = EventLog(tmp_path)
    log.append(rows({}), batch="file 1", counts={"rows": 1})
    assert log.has_batch("file 1")
    assert not log.has_batch("file 2")
    assert (log.batch("file 1") or {})["counts"] == {"rows": 1}
    with pytest.raises(ValueError, match="file 1 was taken in before"):
        log.append(rows({"event_id": "new"}), batch="file 1")


def test_only_batches_with_a_digest_are_listed(tmp_path: Path) -> None:
    """Appends without a digest leave no record, so that the list does not grow with a stream; the others all do."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}), batch="one")
    log.append(rows({"event_id": "b"}))
    log.append(rows({"event_id": "a"}), batch="all copies")
    assert [(entry["digest"], entry["version"]) for entry in log.batches()] == [("one", 1), ("all copies", 2)]
    assert len(list(tmp_path.glob("batches.*"))) == 1


def test_says_what_validated_which_rows(tmp_path: Path) -> None:
    """Neighbours that the same rules let in are one stretch, copies change nothing, compaction blurs nothing."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}, {"event_id": "b"}), validated_by="gate:1")
    log.append(rows({"event_id": "c"}), validated_by="gate:1")
    log.append(rows({"event_id": "a"}), validated_by="gate:2")
    log.append(rows({"event_id": "d"}))
    log.append(rows({"event_id": "e"}), validated_by="gate:1")
    log.compact()
    assert [(one.start, one.stop, one.by) for one in log.validated()] == [
        (0, 3, "gate:1"),
        (3, 4, ""),
        (4, 5, "gate:1"),
    ]
    assert [(one.start, one.stop, one.by) for one in log.validated(2)] == [(0, 2, "gate:1")]
    assert log.validated(0) == []


def test_rows_of_a_log_that_did_not_say_are_not_validated(tmp_path: Path) -> None:
    """A log written before validations were recorded can be read and appended to; its old rows passed nothing."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}, {"event_id": "b"}), validated_by="gate:1")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["validations"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    again = EventLog(tmp_path)
    again.append(rows({"event_id": "c"}), validated_by="gate:1")
    assert [(one.start, one.stop, one.by) for one in again.validated()] == [(0, 2, ""), (2, 3, "gate:1")]


def test_a_version_is_parsed_once(tmp_path: Path) -> None:
    """While nothing is published the manifest is the same object; what another process publishes is seen at once."""
    log, other = EventLog(tmp_path), EventLog(tmp_path)
    other.append(rows({"event_id": "a"}))
    manifest = ManifestFile(tmp_path / "manifest.json")
    assert manifest.load() is manifest.load()
    assert (log.version, manifest.load().version) == (1, 1)
    other.append(rows({"event_id": "b"}))
    assert (log.version, manifest.load().version) == (2, 2)


def test_a_manifest_of_another_form_is_refused(tmp_path: Path) -> None:
    """A log that another version wrote is not read as something else."""
    (tmp_path / "manifest.json").write_text('{"version": 0, "segments": []}')
    with pytest.raises(ValueError, match="another version of Clicktrail: move the log away and ingest again"):
        EventLog(tmp_path).read()


def test_forgotten_users_are_seen_by_no_reader(tmp_path: Path) -> None:
    """After forget neither their events nor labels of these are read, and the digest says that something changed."""
    log = EventLog(tmp_path)
    said = {"event_type": "label", "user_id": None, "label": "fraud", "label_value": 1}
    log.append(
        rows(
            {"event_id": "mine", "user_id": "gone"},
            {"event_id": "theirs", "user_id": "stays"},
            {"event_id": "l1", "label_of": "mine", **said},
            {"event_id": "l2", "label_of": "theirs", **said},
        )
    )
    before = log.digest()
    log.forget(["gone"])
    assert ids(log) == ["theirs", "l2"]
    assert log.query("select event_id from events order by event_id")["event_id"].to_pylist() == ["l2", "theirs"]
    assert log.read(["event_id"], dictionaries=["user_id"])["event_id"].to_pylist() == ["theirs", "l2"]
    assert log.digest() != before


def test_the_end_of_a_part_whose_users_are_forgotten(tmp_path: Path) -> None:
    """Where nothing is left of the rows before an offset, the log ends at 0 there."""
    log = EventLog(tmp_path)
    log.append(rows({"user_id": "gone"}, {"user_id": "stays"}))
    log.forget(["gone"])
    assert (log.end_time(1), log.end_time(2)) == (0, 1_700_000_001 * SECOND)


def test_a_foreign_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """A table that is no contract table names what is wrong and how to mend it."""
    with pytest.raises(ValueError, match=r"price_minor.*arrow_schema"):
        EventLog(tmp_path).append(rows({}).drop_columns(["price_minor"]))


def test_reading_past_the_end_is_refused(tmp_path: Path) -> None:
    """An offset that does not exist yet is an error, not a short answer."""
    with pytest.raises(ValueError, match="the log ends at 0"):
        EventLog(tmp_path).read(stop=1)


def append_two(folder: Path) -> None:
    """What the killed process did, and the next one does again."""
    log = EventLog(folder)
    if not log.has_batch("two"):
        log.append(rows({"event_id": "b"}, {"event_id": "c"}), batch="two")


_APPEND = """
import sys
from pathlib import Path
from tests.clicktrail.test_event_log import append_two
append_two(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "log.segment.before_rename",
        "log.segment.after_rename",
        "log.index.before_rename",
        "log.before_manifest",
        "log.batches.before_rename",
        "log.manifest.before_rename",
        "log.manifest.after_rename",
    ],
)
def test_killed_at_any_publish_the_log_is_old_or_new(tmp_path: Path, moment: str) -> None:
    """Killed at each failpoint, readers see the old version or the new one, and the next run completes it once."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}))
    command = [sys.executable, "-c", _APPEND, str(tmp_path)]
    died = subprocess.run(command, env={**os.environ, "CLICKTRAIL_FAILPOINT": moment}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert ids(log) in (["a"], ["a", "b", "c"])
    append_two(tmp_path)
    assert ids(log) == ["a", "b", "c"]


@pytest.mark.slow
def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Appends of several processes at once are all there, each id once, offsets without a gap."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom tests.clicktrail.test_event_log import rows\n"
        "from clicktrail.event_log import EventLog\n"
        "for n in range(8):\n"
        "    EventLog(Path(sys.argv[1])).append(rows({'event_id': f'{sys.argv[2]}{n}'}, {'event_id': f'both{n}'}))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    log = EventLog(tmp_path)
    assert sorted(ids(log)) == sorted(f"{name}{n}" for name in ("a", "b", "both") for n in range(8))
    assert log.read(["offset"])["offset"].to_pylist() == list(range(24))
