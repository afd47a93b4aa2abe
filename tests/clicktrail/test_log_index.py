"""Indices beside segments: hints that are right, cost little and can be lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clicktrail import log_hashes
from clicktrail.event_log import EventLog
from clicktrail.log_index import find, in_sorted
from tests.clicktrail.test_event_log import rows


def test_find_gives_every_pair_of_equal_values() -> None:
    """A value that is there twice is found twice, and what is not there not at all."""
    wanted, place = find(np.array([1, 3, 3, 7], np.uint64), np.array([0, 3, 7, 9], np.uint64))
    assert list(zip(wanted.tolist(), place.tolist(), strict=True)) == [(1, 1), (1, 2), (2, 3)]
    assert in_sorted(np.array([2, 3]), np.array([1, 3])).tolist() == [False, True]
    assert in_sorted(np.array([2, 3]), np.array([], np.int64)).tolist() == [False, False]


def test_few_ids_are_hashed_as_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way and DuckDB's give the same hashes, null included."""
    ids = pa.array(["a", "é", "", None])
    few = log_hashes.id_hashes(ids)
    monkeypatch.setattr(log_hashes, "_FEW", 0)
    assert few.tolist() == log_hashes.id_hashes(ids).tolist()
    assert few[3] == 0


def test_a_row_can_be_taken_out_of_a_sum() -> None:
    """The sum over two rows without that over one is that over the other, wherever they stand."""
    table = rows({"event_id": "a"}, {"event_id": "b", "price_minor": 1})
    stored = table.append_column("offset", pa.array([5, 6])).append_column("content", pa.array([1, 2], pa.uint64()))
    assert (log_hashes.row_sum(stored) - log_hashes.row_sum(stored.slice(1))).tolist() == log_hashes.row_sum(
        stored.slice(0, 1)
    ).tolist()
    assert log_hashes.row_sum(stored.take([1, 0])).tolist() == log_hashes.row_sum(stored).tolist()
    assert log_hashes.row_sum(stored.slice(0, 0)).tolist() == [0, 0]


@pytest.mark.parametrize("loss", ["missing", "cut", "empty"])
def test_a_lost_index_is_made_again(tmp_path: Path, loss: str) -> None:
    """Without its index, or with a part of it, a segment is found in as before, and the file is whole again."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}, {"event_id": "b"}, {"event_id": "l", "event_type": "label", "label_of": "a"}))
    index = tmp_path / "segments" / log.segments[0].index
    whole = index.read_bytes()
    if loss == "missing":
        index.unlink()
    else:
        index.write_bytes(whole[: len(whole) // 2] if loss == "cut" else b"")
    again = EventLog(tmp_path)
    assert again.append(rows({"event_id": "b"})).copies == 0  # other content: handed back
    assert again.locate(pa.array(["b", "c"])).tolist() == [1, -1]
    assert again.labels_of(pa.array(["a"]), ["event_id"])["event_id"].to_pylist() == ["l"]
    assert index.read_bytes() == whole


def test_rows_by_id_stop_at_an_offset(tmp_path: Path) -> None:
    """What came later is not found as of an earlier version, and a version that is not there yet is refused."""
    log = EventLog(tmp_path)
    log.append(rows({"event_id": "a"}))
    log.append(rows({"event_id": "b"}, {"event_id": "l", "event_type": "label", "label_of": "a"}))
    assert log.locate(pa.chunked_array([["a", "b"], [None]]), stop=1).tolist() == [0, -1, -1]
    assert log.labels_of(None, ["offset"], stop=2).num_rows == 0
    assert log.labels_of(None, ["offset"])["offset"].to_pylist() == [2]
    with pytest.raises(ValueError, match="the log ends at 3"):
        log.locate(pa.array(["a"]), stop=4)


def test_indices_of_replaced_segments_leave_memory(tmp_path: Path) -> None:
    """A reader that lives while others append and compact keeps the indices of the segments that there are."""
    writer, reader = EventLog(tmp_path), EventLog(tmp_path)
    for number in range(60):
        writer.append(rows({"event_id": f"e{number}"}))
        assert reader.locate(pa.array([f"e{number}"])).tolist() == [number]
    assert len(reader._folder._indices) <= 2 * 15 + 16  # noqa: SLF001 - memory shows nowhere else
