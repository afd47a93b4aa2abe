"""Compaction: small neighbouring segments become one, and what is hidden goes for good.

Offsets stay, and so does every digest. A merged segment is written aside and takes the place of its parts in one
manifest; then the old files go. A merge at least doubles the segment that a row lies in, so that each of n rows is
written O(log n) times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clicktrail.log_folder import LARGE, STORED, LogFolder, read_group, row_group
from clicktrail.log_hashes import from_hex, to_hex
from clicktrail.log_index import in_sorted, merge_indices
from clicktrail.log_manifest import Manifest, Segment
from clicktrail.publish import failpoint

LARGEST_AT_APPEND = 1 << 17
"""Rows that an append merges at most before it takes its own in: a fraction of a second. `compact` does the rest."""

FAN = 8
"""An append merges when so many neighbours are small."""

_FILE_COST = 4_096
"""A file costs as much as so many rows: below it, all segments are of one size."""

Plan = Callable[[Sequence[Segment]], Sequence[Segment]]


def merge_at_append(segments: Sequence[Segment]) -> Sequence[Segment]:
    """Neighbours that an append makes one of; none in most cases."""
    return _small_neighbours(segments, fan=FAN, largest=LARGEST_AT_APPEND)


def merge_all(segments: Sequence[Segment]) -> Sequence[Segment]:
    """What to write next, until nothing is small or hidden."""
    small = _small_neighbours(segments, fan=2, largest=LARGE)
    return small or [one for one in segments if one.hidden_rows][:1]


def compact(folder: LogFolder, plan: Plan = merge_all) -> None:
    """Write what `plan` chooses until it chooses nothing, and remove what no manifest needs."""
    with folder.compacting(wait=True):
        while run := plan(folder.manifest.load().segments):
            _make_one(folder, run)
        with folder.writing() as manifest:
            folder.clean(manifest)


def compact_at_append(folder: LogFolder) -> None:
    """Keep the number of small segments low; where another compaction is at work nothing happens."""
    if not merge_at_append(folder.manifest.load().segments):
        return
    with folder.compacting(wait=False) as mine:
        while mine and (run := merge_at_append(folder.manifest.load().segments)):
            _make_one(folder, run)


# ---- what to merge


def _small_neighbours(segments: Sequence[Segment], *, fan: int, largest: int) -> Sequence[Segment]:
    """The first neighbours worth to be one segment, smallest ones first."""
    for tier in _tiers(largest // 2):
        for stretch in _stretches(segments, tier):
            for start in range(len(stretch) - fan + 1):
                run = _fitting(stretch[start:], largest)
                costs = [_cost(one) for one in run]
                if len(run) > 1 and sum(costs) >= 2 * max(costs):
                    return run
    return []


def _tiers(last: int) -> Iterator[int]:
    """What is small, each time in more generous terms."""
    tier = _FILE_COST
    while tier < last:
        yield tier
        tier *= FAN
    yield last


def _stretches(segments: Sequence[Segment], tier: int) -> Iterator[Sequence[Segment]]:
    """Neighbours that cost `tier` at most, as many together as there are."""
    start = 0
    for place, one in enumerate(segments):
        if _cost(one) > tier:
            yield segments[start:place]
            start = place + 1
    yield segments[start:]


def _fitting(segments: Sequence[Segment], largest: int) -> Sequence[Segment]:
    """The first ones, together `largest` rows at most."""
    ends = np.cumsum([one.seen_rows for one in segments])
    return segments[: int(np.searchsorted(ends, largest, side="right"))]


def _cost(segment: Segment) -> int:
    return max(segment.seen_rows, _FILE_COST)


# ---- merging


def _make_one(folder: LogFolder, run: Sequence[Segment]) -> None:
    """Put one segment in the place of neighbours. Only within `compacting`: nobody else removes them meanwhile."""
    merged = _merge(folder, run, folder.manifest.load().generation + 1)
    failpoint("log.before_compaction_manifest")
    with folder.writing() as newest:
        published = _with(newest, run, merged)
        folder.manifest.publish(published, "log.compaction")
        failpoint("log.before_removal")
        folder.clean(published)


def _with(manifest: Manifest, run: Sequence[Segment], merged: Segment | None) -> Manifest:
    place = manifest.segments.index(run[0])
    assert manifest.segments[place : place + len(run)] == tuple(run)  # noqa: S101 - the lock is ours to keep
    segments = (*manifest.segments[:place], *([merged] if merged else []), *manifest.segments[place + len(run) :])
    return replace(manifest, segments=segments, generation=manifest.generation + 1)


def _merge(folder: LogFolder, run: Sequence[Segment], generation: int) -> Segment | None:
    """Write neighbours as one, without what is hidden; None where nothing is left of them."""
    seen = [one for one in run if one.seen_rows]
    if not seen:
        return None
    dropped = np.concatenate([folder.hidden(one) for one in run])
    merged = Segment(
        file=f"{run[0].start:015d}.{generation}.parquet",
        start=run[0].start,
        stop=run[-1].stop,
        rows=sum(one.seen_rows for one in seen),
        min_event=min(one.min_event for one in seen),
        max_event=max(one.max_event for one in seen),
        min_known=min(one.min_known for one in seen),
        max_known=max(one.max_known for one in seen),
        digest=to_hex(np.array([from_hex(one.digest) for one in seen]).sum(axis=0, dtype=np.uint64)),
        accepted_at=max(one.accepted_at for one in run),
    )

    def write(writer: pq.ParquetWriter) -> None:
        for group in _even_groups(_rows(folder, seen, dropped), row_group(merged.rows)):
            writer.write_table(group)

    folder.publish_segment(merged.file, write, "log.merged")
    folder.publish_index(merged, merge_indices([folder.index(one) for one in seen], dropped))
    return merged


def _rows(folder: LogFolder, segments: Sequence[Segment], dropped: np.ndarray) -> Iterator[pa.Table]:
    """Rows of segments without the dropped offsets, a row group at a time."""
    for segment in segments:
        with pq.ParquetFile(folder.segments / segment.file) as file:
            for number in range(file.num_row_groups):
                group = read_group(file, number, STORED.names)
                gone = in_sorted(group["offset"].to_numpy(), dropped)
                yield group.filter(pa.array(~gone)) if gone.any() else group


def _even_groups(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each, fewer in the last; none is empty."""
    waiting = STORED.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        whole = waiting.num_rows // rows * rows
        for start in range(0, whole, rows):
            yield waiting.slice(start, rows)
        waiting = waiting.slice(whole)
    if waiting.num_rows:
        yield waiting
