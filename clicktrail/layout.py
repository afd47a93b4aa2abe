"""Ranges laid out as (row, position) pairs, whole or in pieces that bound memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 8_000_000
"""Positions that are laid out at once: some hundred MB."""


def lay_out(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, position) of everything in the ranges start[r]..end[r], int64."""
    lengths = end - start
    rows = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return rows, np.arange(len(rows)) + np.repeat(start - before, lengths)


def chunks(start: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`lay_out` in pieces of whole rows, each of about CHUNK positions."""
    total = np.cumsum(end - start)
    first = 0
    while first < len(total):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + CHUNK, "right")), first + 1)
        rows, positions = lay_out(start[first:last], end[first:last])
        if len(rows):
            yield rows + first, positions
        first = last
