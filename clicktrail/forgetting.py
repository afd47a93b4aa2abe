"""Forgetting users: which rows readers no longer see, and what must never enter again.

Hidden are the rows of a forgotten user and every label that speaks of a hidden row. They lie in their segments until
these are written next (`clicktrail.compaction`). What is left of them is the MD5 of each event_id (`gone`, uint64
[2, ids], ascending): a label that speaks of it is refused, and the id stays taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from clicktrail.log_folder import STORED, LogFolder, spans
from clicktrail.log_hashes import RowHashes, from_hex, id_hashes, row_sum, to_hex, wide_hashes
from clicktrail.log_index import find, in_sorted
from clicktrail.log_manifest import Manifest, Segment
from clicktrail.publish import publish_file

_NO_ROWS = np.zeros(0, np.int64)


def forget(folder: LogFolder, manifest: Manifest, users: Collection[str]) -> Manifest:
    """The next manifest, in which these users are forgotten; its files are there, itself is not published.

    Only within `compacting` and `writing`.
    """
    generation = manifest.generation + 1
    offsets, ids = _rows_to_hide(folder, manifest, sorted(users))
    segments = tuple(_hide(folder, manifest, segment, offsets, generation) for segment in manifest.segments)
    gone = np.concatenate([_gone(folder, manifest), wide_hashes(ids)], axis=1)
    name = f"gone.{generation}.npy"
    _save(folder.path / name, gone[:, np.argsort(gone[0], kind="stable")])
    return replace(
        manifest,
        generation=generation,
        segments=segments,
        forgotten=tuple(sorted({*manifest.forgotten, *users})),
        gone=name,
    )


def refused(folder: LogFolder, manifest: Manifest, table: pa.Table, hashes: RowHashes) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a batch must not enter, and which come under the id of a hidden or erased row; bool [rows] each."""
    if not manifest.forgotten:
        return np.zeros(table.num_rows, bool), np.zeros(table.num_rows, bool)
    gone = _gone(folder, manifest)
    theirs = pc.is_in(table["user_id"], value_set=pa.array(manifest.forgotten, pa.string())).to_numpy()
    return theirs | _among(gone, table["label_of"], hashes.label_of), _among(gone, table["event_id"], hashes.ids)


def _among(gone: np.ndarray, ids: pa.ChunkedArray, hashes: np.ndarray) -> np.ndarray:
    """Which ids (with their hashes) are gone; bool [ids]."""
    rows = np.flatnonzero(in_sorted(hashes, gone[0]))
    low, high = wide_hashes(ids.take(pa.array(rows)))
    row, place = find(gone[0], low)
    out = np.zeros(len(ids), bool)
    out[rows[row[gone[1][place] == high[row]]]] = True
    return out


def _gone(folder: LogFolder, manifest: Manifest) -> np.ndarray:
    return np.load(folder.path / manifest.gone, mmap_mode="r") if manifest.gone else np.zeros((2, 0), np.uint64)


def _rows_to_hide(folder: LogFolder, manifest: Manifest, users: Sequence[str]) -> tuple[np.ndarray, pa.Array]:
    """Offsets (int64, ascending) and event_ids of what readers see of these users, labels included."""
    if not manifest.segments:
        return _NO_ROWS, pa.array([], pa.string())
    events = ds.dataset(
        [str(folder.segments / segment.file) for segment in manifest.segments], schema=STORED, format="parquet"
    ).to_table(columns=["offset", "event_id"], filter=ds.field("user_id").isin(users))
    seen = ~np.isin(events["offset"].to_numpy(), np.concatenate([_NO_ROWS, *map(folder.hidden, manifest.segments)]))
    offsets, ids = [events["offset"].to_numpy()[seen]], [events["event_id"].filter(pa.array(seen)).combine_chunks()]
    while len(ids[-1]):
        found = np.unique(folder.find(manifest.segments, id_hashes(ids[-1]), labels=True).offsets)
        labels = folder.take(manifest, np.setdiff1d(found, np.concatenate(offsets)), ["offset", "event_id", "label_of"])
        labels = labels.filter(pc.is_in(labels["label_of"], value_set=ids[-1]))
        offsets.append(labels["offset"].to_numpy())
        ids.append(labels["event_id"].combine_chunks())
    return np.sort(np.concatenate(offsets)), pa.concat_arrays(ids)


def _hide(folder: LogFolder, manifest: Manifest, segment: Segment, offsets: np.ndarray, generation: int) -> Segment:
    """The segment without the rows of these offsets, as far as they are its own."""
    first, last = np.searchsorted(offsets, [segment.start, segment.stop])
    if first == last:
        return segment
    hidden = np.union1d(folder.hidden(segment), offsets[first:last])
    name = f"{segment.file.removesuffix('.parquet')}.hidden.{generation}.npy"
    _save(folder.segments / name, hidden)
    rows = folder.take(manifest, offsets[first:last], ["content", "ingested_at", "source_seq", "offset"])
    times = folder.times(segment)
    return replace(
        segment,
        hidden=name,
        hidden_rows=len(hidden),
        digest=to_hex(from_hex(segment.digest) - row_sum(rows)),
        **spans(times.filter(pa.array(~in_sorted(times["offset"].to_numpy(), hidden)))),
    )


def _save(path: Path, array: np.ndarray) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, array)

    publish_file(path, write, "log.hidden")
