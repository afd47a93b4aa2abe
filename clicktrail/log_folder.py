"""The files of an event log: who may write them, and how rows are found and read by id or offset."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clicktrail.contract import EVENT_COLUMNS, arrow_schema
from clicktrail.log_hashes import row_hashes
from clicktrail.log_index import Found, SegmentIndex, build_index, find, in_sorted, read_index, write_index
from clicktrail.log_manifest import Manifest, ManifestFile, Segment
from clicktrail.publish import alive, publish_file

STORED = (
    arrow_schema()
    .append(pa.field("offset", pa.int64(), nullable=False))
    .append(pa.field("content", pa.uint64(), nullable=False))
)
"""Columns of a segment."""

LARGE = 1 << 20
"""Above so many rows a segment came as one batch, a history: it is read whole more often than by row."""

_STRINGS = [column.name for column in EVENT_COLUMNS if pa.types.is_string(column.type)]

_NO_ROWS = np.zeros(0, np.int64)


class LogFolder:
    """`manifest.json`, and `segments/` with Parquet files, their indices and lists of hidden rows.

    Safe to share between threads: what is kept in memory is never changed, only replaced.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the log's folder; it need not exist yet."""
        self.path = path
        self.segments = path / "segments"
        self.manifest = ManifestFile(path / "manifest.json")
        self._indices: dict[str, SegmentIndex] = {}
        self._hidden: dict[str, np.ndarray] = {}
        self._room = 16

    # ---- writers take turns

    @contextmanager
    def writing(self) -> Iterator[Manifest]:
        """Nobody else changes the manifest meanwhile; gives the newest one."""
        with self._lock(".lock", wait=True):
            yield self.manifest.load()

    @contextmanager
    def compacting(self, *, wait: bool) -> Iterator[bool]:
        """Nobody else replaces segments meanwhile, though some may be added. Comes before `writing`.

        Gives False, without waiting, where another is at it and `wait` is not set.
        """
        with self._lock(".compaction.lock", wait=wait) as got:
            yield got

    @contextmanager
    def _lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / name).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    # ---- segments

    def publish_segment(self, file: str, write: Callable[[pq.ParquetWriter], None], name: str) -> None:
        """Let `write` fill a segment's file; readers see it once a manifest names it. `name` is of the failpoints."""

        def fill(aside: Path) -> None:
            with pq.ParquetWriter(aside, STORED, compression="zstd", use_dictionary=_STRINGS) as writer:
                write(writer)

        publish_file(self.segments / file, fill, name)

    def publish_index(self, segment: Segment, index: SegmentIndex) -> None:
        """Put an index beside its segment."""
        publish_file(self.segments / segment.index, lambda aside: write_index(index, aside), "log.index")

    def index(self, segment: Segment) -> SegmentIndex:
        """The index of a segment; made again where it is missing."""
        known = self._indices.get(segment.file)
        if known is None:
            known = read_index(self.segments / segment.index, segment.rows)
            if known is None:
                known = self._made_again(segment)
                self.publish_index(segment, known)
            self._indices[segment.file] = known
            if len(self._indices) > self._room:
                self._drop_stale(self.manifest.load())
        return known

    def hidden(self, segment: Segment) -> np.ndarray:
        """Offsets of the rows that readers do not see; int64, ascending."""
        if not segment.hidden:
            return _NO_ROWS
        known = self._hidden.get(segment.hidden)
        if known is None:
            known = self._hidden[segment.hidden] = np.load(self.segments / segment.hidden)
        return known

    def clean(self, manifest: Manifest) -> None:
        """Remove the files that the newest manifest does not name. Only within `compacting` and `writing`."""
        needed = {name for one in manifest.segments for name in (one.file, one.index, one.hidden)}
        needed |= {manifest.gone, manifest.batches}
        for path in (*self.segments.glob("*"), *self.path.glob("*gone.*"), *self.path.glob("*batches.*")):
            writer = path.name.split(".")[-2] if path.name.endswith(".tmp") else ""
            if path.name not in needed and not (writer.isdigit() and alive(int(writer))):
                path.unlink(missing_ok=True)
        self._drop_stale(manifest)

    def _drop_stale(self, manifest: Manifest) -> None:
        """Of files that compaction replaced, nothing stays in memory."""
        needed = {name for one in manifest.segments for name in (one.file, one.hidden)}
        for cache in (self._indices, self._hidden):
            for name in cache.keys() - needed:
                cache.pop(name, None)
        self._room = 2 * len(manifest.segments) + 16

    # ---- rows by id and by offset

    def find(
        self, segments: Iterable[Segment], hashes: np.ndarray, *, labels: bool = False, hidden: bool = False
    ) -> Found:
        """Rows whose event_id (with `labels`, whose label_of) has one of these hashes.

        Args:
            segments: where to look.
            hashes: uint64 [wanted].
            labels: look for the labels of these ids, not for the ids.
            hidden: also rows that readers do not see.
        """
        order = np.argsort(hashes)  # neighbours lie on the same pages
        ascending = hashes[order]
        wanted, offsets, contents = [_NO_ROWS], [_NO_ROWS], [_NO_ROWS.view(np.uint64)]
        for segment in segments:
            index = self.index(segment)
            needle, place = find(index.label_of if labels else index.ids, ascending)
            if not len(needle):
                continue
            found = (index.label_offsets if labels else index.offsets)[place]
            if segment.hidden and not hidden:
                seen = ~in_sorted(found, self.hidden(segment))
                needle, place, found = needle[seen], place[seen], found[seen]
            wanted.append(order[needle])
            offsets.append(found)
            if not labels:
                contents.append(index.contents[place])
        return Found(wanted=np.concatenate(wanted), offsets=np.concatenate(offsets), contents=np.concatenate(contents))

    def labels(self, segments: Iterable[Segment]) -> np.ndarray:
        """Offsets of all labels that readers see, int64."""
        parts = [_NO_ROWS]
        for segment in segments:
            offsets = self.index(segment).label_offsets
            parts.append(offsets[~in_sorted(offsets, self.hidden(segment))])
        return np.concatenate(parts)

    def take(self, manifest: Manifest, offsets: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Rows at these offsets (int64, each of which there is), in their order; hidden ones too."""
        ascending, back = np.unique(offsets, return_inverse=True)
        starts = np.array([segment.start for segment in manifest.segments], np.int64)
        owner = np.searchsorted(starts, ascending, side="right") - 1
        parts = [STORED.empty_table().select(columns)]
        for number in np.unique(owner).tolist():
            parts += self._taken(manifest.segments[number], ascending[owner == number], columns)
        return pa.concat_tables(parts).take(pa.array(back))

    def _taken(self, segment: Segment, offsets: np.ndarray, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some rows of a segment, row group by row group; `offsets` ascending."""
        with pq.ParquetFile(self.segments / segment.file) as file:
            firsts = _first_offsets(file)
            group = np.searchsorted(firsts, offsets, side="right") - 1
            for number in np.unique(group).tolist():
                mine = offsets[group == number]
                table = read_group(file, number, list(dict.fromkeys(["offset", *columns])))
                rows = np.searchsorted(table["offset"].to_numpy(), mine)
                yield table.select(columns).take(pa.array(rows))

    def times(self, segment: Segment) -> pa.Table:
        """`offset` and the times of all rows of a segment."""
        return pq.read_table(self.segments / segment.file, columns=["offset", *_TIMES])

    def _made_again(self, segment: Segment) -> SegmentIndex:
        with pq.ParquetFile(self.segments / segment.file) as file:
            table = pa.concat_tables(read_group(file, number, STORED.names) for number in range(file.num_row_groups))
        labels = pc.is_valid(table["label_of"]).to_numpy()
        return build_index(row_hashes(table.select(arrow_schema().names)), table["offset"].to_numpy(), labels)


_TIMES = ("event_timestamp", "ingested_at")


def known_at(table: pa.Table) -> np.ndarray:
    """known_at = max(event_timestamp, ingested_at) of each row, int64 microseconds UTC."""
    event, arrived = (table[name].cast(pa.int64()).to_numpy() for name in _TIMES)
    return np.maximum(event, arrived)


class Spans(TypedDict):
    """First and last times of some rows, microseconds, as a `Segment` has them."""

    min_event: int
    max_event: int
    min_known: int
    max_known: int


def spans(table: pa.Table) -> Spans:
    """When some rows happened and became known; 0 where there are none."""
    if not table.num_rows:
        return {"min_event": 0, "max_event": 0, "min_known": 0, "max_known": 0}
    event, known = table["event_timestamp"].cast(pa.int64()).to_numpy(), known_at(table)
    return {
        "min_event": int(event.min()),
        "max_event": int(event.max()),
        "min_known": int(known.min()),
        "max_known": int(known.max()),
    }


def row_group(rows: int) -> int:
    """Rows that are written together in a segment of so many: who reads one of them reads all.

    A dozen columns of 32,768 rows take 9 ms, of 131,072 rows 32 ms; a string column read whole as a dictionary takes
    twice as long with the small ones.
    """
    return 131_072 if rows > LARGE else 32_768


def read_group(file: pq.ParquetFile, number: int, columns: Sequence[str]) -> pa.Table:
    """One row group of a segment; columns that the contract gained since it was written are null."""
    present = set(file.schema_arrow.names)
    table = file.read_row_group(number, [name for name in columns if name in present])
    for name in columns:
        if name not in present:
            table = table.append_column(STORED.field(name), pa.nulls(table.num_rows, STORED.field(name).type))
    return table.select(columns).cast(pa.schema([STORED.field(name) for name in columns]))


def _first_offsets(file: pq.ParquetFile) -> np.ndarray:
    """Offset of the first row of each row group, int64."""
    place = file.metadata.schema.to_arrow_schema().get_field_index("offset")
    return np.array(
        [file.metadata.row_group(number).column(place).statistics.min for number in range(file.num_row_groups)],
        np.int64,
    )
