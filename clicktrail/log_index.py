"""The index beside a segment: hashes of its event ids and of what its labels speak of, sorted, with offsets.

Derived: without it, it is made again from the segment. A hash is a hint; whoever needs to be sure reads the row
(`clicktrail.log_folder`), so equal hashes of different ids cost time and change nothing. The file is one `.npy` of
uint64, memory-mapped where it is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from clicktrail.log_hashes import RowHashes

_FORM = 1
_HEAD = 3
_NONE = np.zeros(0, np.int64)
_MAPPED_BYTES = 1 << 21
"""A map keeps a file descriptor open: smaller files are read, of which there are many."""


@dataclass(frozen=True, kw_only=True)
class SegmentIndex:
    """Rows by hash of event_id, and labels by hash of label_of.

    `ids` uint64 [rows] ascending, `offsets` int64 [rows] and `contents` uint64 [rows] beside them; `label_of` uint64
    [labels] ascending, `label_offsets` int64 [labels] beside it. Equal hashes lie in the order of their offsets.
    """

    ids: np.ndarray
    offsets: np.ndarray
    contents: np.ndarray
    label_of: np.ndarray
    label_offsets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows whose hash is that of something looked for: which one (its index, int64), which row (its offset, int64).

    `contents` (uint64) are there where events were looked for, not where labels were.
    """

    wanted: np.ndarray
    offsets: np.ndarray
    contents: np.ndarray


def build_index(hashes: RowHashes, offsets: np.ndarray, labels: np.ndarray) -> SegmentIndex:
    """Index of rows in the order of their offsets; `labels` (bool [rows]) says which have a label_of."""
    order = np.argsort(hashes.ids, kind="stable")
    said = np.flatnonzero(labels)
    said = said[np.argsort(hashes.label_of[said], kind="stable")]
    return SegmentIndex(
        ids=hashes.ids[order],
        offsets=offsets[order],
        contents=hashes.contents[order],
        label_of=hashes.label_of[said],
        label_offsets=offsets[said],
    )


def merge_indices(parts: Sequence[SegmentIndex], dropped: np.ndarray) -> SegmentIndex:
    """Index of neighbouring segments as one, without the rows of the `dropped` offsets (int64, ascending)."""
    ids, offsets, contents, label_of, label_offsets = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("ids", "offsets", "contents", "label_of", "label_offsets")
    )
    rows = np.flatnonzero(~in_sorted(offsets, dropped))
    rows = rows[np.argsort(ids[rows], kind="stable")]
    said = np.flatnonzero(~in_sorted(label_offsets, dropped))
    said = said[np.argsort(label_of[said], kind="stable")]
    return SegmentIndex(
        ids=ids[rows],
        offsets=offsets[rows],
        contents=contents[rows],
        label_of=label_of[said],
        label_offsets=label_offsets[said],
    )


def find(hashes: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (index into `wanted`, index into `hashes`) of equal values; `hashes` ascending, `wanted` best so too."""
    if not len(hashes):
        return _NONE, _NONE
    left = hashes.searchsorted(wanted)
    found = hashes[left.clip(max=len(hashes) - 1)] == wanted  # past the end: the last one is smaller
    if not found.any():  # the most common case, many times for each append
        return _NONE, _NONE
    hit = np.flatnonzero(found)
    counts = hashes.searchsorted(wanted[hit], side="right") - left[hit]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(hit, counts), np.repeat(left[hit], counts) + within


def in_sorted(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which values are among the ascending ones; bool [values]."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values


def write_index(index: SegmentIndex, path: Path) -> None:
    """Write an index file."""
    head = np.array([_FORM, len(index.ids), len(index.label_of)], np.uint64)
    parts = (index.ids, index.offsets, index.contents, index.label_of, index.label_offsets)
    with path.open("wb") as file:
        np.save(file, np.concatenate([head, *(part.view(np.uint64) for part in parts)]))


def read_index(path: Path, rows: int) -> SegmentIndex | None:
    """The index in a file; None where there is none of so many rows, and it has to be made again."""
    try:
        whole = np.load(path, mmap_mode="r" if path.stat().st_size > _MAPPED_BYTES else None)
    except (FileNotFoundError, ValueError, EOFError):  # missing, or cut off
        return None
    if (
        len(whole) < _HEAD
        or whole[0] != _FORM
        or whole[1] != rows
        or len(whole) != _HEAD + 3 * rows + 2 * int(whole[2])
    ):
        return None
    labels = int(whole[2])
    ends = np.cumsum([_HEAD, rows, rows, rows, labels, labels]).tolist()
    ids, offsets, contents, label_of, label_offsets = (np.asarray(whole[start:end]) for start, end in pairwise(ends))
    return SegmentIndex(
        ids=ids,
        offsets=offsets.view(np.int64),
        contents=contents,
        label_of=label_of,
        label_offsets=label_offsets.view(np.int64),
    )
