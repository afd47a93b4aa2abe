"""The event log against the naive one: batches, copies, conflicts, forgetting and compaction in any order."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.label_events import read_labels
from clicktrail.log_hashes import RowHashes, id_hashes, row_hashes, row_sum, to_hex, wide_hashes
from tests.oracles import NaiveLog, known_at

SECOND = 1_000_000
IDS = [f"e{number}" for number in range(10)]
LABEL_IDS = [f"l{number}" for number in range(10)]
TYPES = ["view", "payment"]


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    arrived = draw(st.integers(0, 5)) * SECOND
    row = dict.fromkeys(arrow_schema().names) | {
        "event_id": draw(st.sampled_from(IDS)),
        "user_id": draw(st.sampled_from("abc")),
        "item_id": "i",
        "event_type": draw(st.sampled_from(TYPES)),
        "event_timestamp": draw(st.sampled_from([0, SECOND, 2 * SECOND, 310 * SECOND])),
        "ingested_at": arrived,
        "source_seq": draw(st.integers(0, 2)),
        "price_minor": draw(st.integers(0, 1)),
    }
    if draw(st.booleans()):
        return row
    said = {"event_type": "label", "label": draw(st.sampled_from(["fraud", "returned"])), "label_value": 1}
    of = draw(st.sampled_from([*IDS, *IDS, *LABEL_IDS]))
    label_id = draw(st.sampled_from([*LABEL_IDS, *LABEL_IDS, *IDS]))
    return row | said | {"event_id": label_id, "label_of": of, "user_id": draw(st.sampled_from(["a", None, None]))}


STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(events(), max_size=8)),
    st.tuples(st.just("forget"), st.sets(st.sampled_from("abcx"), max_size=2)),
    st.tuples(st.just("compact"), st.none()),
)


@contextmanager
def colliding_hashes() -> Iterator[None]:
    """Three hashes for all ids: almost everything collides."""

    def rows(table: pa.Table) -> RowHashes:
        whole = row_hashes(table)
        return RowHashes(ids=whole.ids % 3, contents=whole.contents, label_of=whole.label_of % 3)

    def ids(column: pa.ChunkedArray) -> np.ndarray:
        return id_hashes(column) % 3

    def wide(column: pa.ChunkedArray) -> np.ndarray:
        low, high = wide_hashes(column)
        return np.stack([low % 3, high])

    with (
        mock.patch("clicktrail.event_log.row_hashes", rows),
        mock.patch("clicktrail.log_folder.row_hashes", rows),
        mock.patch("clicktrail.log_reading.id_hashes", ids),
        mock.patch("clicktrail.forgetting.id_hashes", ids),
        mock.patch("clicktrail.forgetting.wide_hashes", wide),
    ):
        yield


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema())


def expected_digest(naive: NaiveLog, stop: int) -> str:
    """As the log defines it: a sum over the rows that are seen, the offset, and who is forgotten."""
    seen = naive.read(0, stop)
    table = table_of([row for _, row in seen])
    stored = table.append_column("offset", pa.array([offset for offset, _ in seen], pa.int64()))
    total = row_sum(stored.append_column("content", pa.array(row_hashes(table).contents)))
    return hashlib.sha256(f"{to_hex(total)}|{stop}|{','.join(sorted(naive.forgotten))}".encode()).hexdigest()


def carry_out(log: EventLog, naive: NaiveLog, step: tuple[str, Any]) -> None:
    """One step in both, with the same outcome."""
    what, given_ = step
    if what == "append":
        done = log.append(table_of(given_))
        accepted, copies, rejected = naive.append(given_)
        assert (done.accepted, done.version) == (len(accepted), len(naive.rows))
        assert done.copied.tolist() == copies
        assert list(zip(done.rejected["row"].to_pylist(), done.rejected["rule"].to_pylist(), strict=True)) == rejected
    elif what == "forget":
        log.forget(given_)
        naive.forget(given_)
    else:
        log.compact()
        assert all(segment.hidden_rows == 0 for segment in log.segments)


def check(log: EventLog, naive: NaiveLog) -> None:
    """Every read, at every version."""
    end = len(naive.rows)
    for stop in range(end + 1):
        assert log.digest(stop) == expected_digest(naive, stop)
        seen = naive.read(0, stop)
        assert log.end_time(stop) == max((known_at(row) for _, row in seen), default=0)
    for start in range(0, end, 3):
        seen = naive.read(start, min(end, start + 5))
        found = log.read(start=start, stop=min(end, start + 5))
        assert found["offset"].to_pylist() == [offset for offset, _ in seen]
        assert found.drop_columns("offset").equals(table_of([row for _, row in seen]))
    seen = naive.read(0, end)
    found = log.query("select * exclude known_at from events").sort_by("offset")
    assert found["offset"].to_pylist() == [offset for offset, _ in seen]
    place = {row["event_id"]: offset for offset, row in seen}
    assert log.locate(pa.array([*IDS, *LABEL_IDS, None])).tolist() == [
        place.get(one, -1) for one in [*IDS, *LABEL_IDS, None]
    ]
    for stop, of in ((end, None), (end, IDS[:5]), (end // 2, IDS)):
        found = read_labels(log, "fraud", TYPES, stop=stop, of=None if of is None else pa.array(of))
        pairs = list(zip(found["offset"].to_pylist(), found["target"].to_pylist(), strict=True))
        assert pairs == naive.labels("fraud", TYPES, stop, of)


@pytest.mark.slow
@pytest.mark.parametrize("hashing", [nullcontext, colliding_hashes])
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=16))
def test_it_does_what_the_naive_log_does(hashing: Any, steps: list[tuple[str, Any]]) -> None:  # noqa: ANN401
    """However batches, wishes to be forgotten and compactions follow, outcome, digests and reads are the naive ones."""
    with hashing(), tempfile.TemporaryDirectory() as folder:
        log, naive = EventLog(Path(folder)), NaiveLog()
        for step in steps:
            carry_out(log, naive, step)
        check(log, naive)
        check(EventLog(Path(folder)), naive)
        log.compact()
        check(log, naive)
