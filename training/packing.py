"""Packing: windows of events stand one behind the other in rows of one length, so that next to nothing is padding.

Best fit, longest first: each window goes where the least room is left over, and what is left of a row is filled by
short windows, of which sets of user histories have plenty. The loops are compiled: 25,000 windows take milliseconds, so
that a batch can be planned when its turn comes.

Shapes: W windows, B rows, L length of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

ENOUGH = 0.97
"""Rows of which so much is real are not made longer."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where windows stand in B rows of L places.

    `row`, `offset` and `number` (in its row, from 1 on) of each window, int64 [W]; of an empty one they mean nothing.
    """

    row: np.ndarray
    offset: np.ndarray
    number: np.ndarray
    rows: int
    length: int


def pack(lengths: np.ndarray, length: int) -> Layout:
    """Put windows of `lengths`, int64 [W], into as few rows as best fit finds.

    Raises:
        ValueError: a window is longer than a row.
    """
    if lengths.max(initial=0) > length:
        message = f"a window of {lengths.max()} events does not fit into a row of {length}"
        raise ValueError(message)
    row, offset, number = (np.zeros(len(lengths), np.int64) for _ in range(3))
    rows = int(_best_fit(lengths, np.argsort(-lengths, kind="stable"), length, row, offset, number))
    return Layout(row=row, offset=offset, number=number, rows=max(1, rows), length=length)


def one_a_row(lengths: np.ndarray) -> Layout:
    """Each window in a row of its own, padded to the longest."""
    return Layout(
        row=np.arange(len(lengths)),
        offset=np.zeros(len(lengths), np.int64),
        number=np.ones(len(lengths), np.int64),
        rows=len(lengths),
        length=max(1, int(lengths.max(initial=0))),
    )


def row_length(batches: Sequence[np.ndarray], longest: int = 1) -> int:
    """The shortest row that such batches fill, from the longest window on; `batches`: lengths of their windows.

    Where none of them fills it, the one up to twice the longest window of which the largest share is real.
    `longest`: of all windows, where these batches are a sample.
    """
    longest = max(1, longest, *(int(lengths.max(initial=0)) for lengths in batches))
    real = sum(int(lengths.sum()) for lengths in batches)
    best, most = longest, 0.0
    for quarters in range(4, 9):
        length = longest * quarters // 4
        share = real / (length * sum(pack(lengths, length).rows for lengths in batches))
        if share > most:
            best, most = length, share
        if share >= ENOUGH:
            break
    return best


def places(starts: np.ndarray, lengths: np.ndarray, layout: Layout, nothing: int) -> tuple[np.ndarray, np.ndarray]:
    """What stands at each place of a layout.

    Args:
        starts: position of each window's first event among all events, int64 [W].
        lengths: int64 [W].
        layout: of these windows.
        nothing: the position that padding gets.

    Returns:
        Position of the event at each place, int64 [B, L], and the number of its window in the row, int64 [B, L]:
        1, 2, ... from left to right, 0 for padding.
    """
    position_BL = np.full((layout.rows, layout.length), nothing, np.int64)
    segment_BL = np.zeros((layout.rows, layout.length), np.int64)
    _fill(starts, lengths, layout.row, layout.offset, layout.number, position_BL, segment_BL)
    return position_BL, segment_BL


@njit(cache=True)
def _best_fit(
    lengths: np.ndarray, order: np.ndarray, length: int, row: np.ndarray, offset: np.ndarray, number: np.ndarray
) -> int:
    # rows with equal room left are a stack: `top` by room, `below` by row
    top, below = np.full(length + 1, -1, np.int64), np.empty(len(lengths), np.int64)
    held = np.zeros(len(lengths), np.int64)
    rows = 0
    for window in order:
        size = lengths[window]
        if size == 0:
            continue
        room = size
        while room <= length and top[room] < 0:
            room += 1
        if room <= length:
            chosen = top[room]
            top[room] = below[chosen]
        else:
            room, chosen = length, rows
            rows += 1
        held[chosen] += 1
        row[window], offset[window], number[window] = chosen, length - room, held[chosen]
        below[chosen] = top[room - size]
        top[room - size] = chosen
    return rows


@njit(cache=True)
def _fill(
    starts: np.ndarray,
    lengths: np.ndarray,
    row: np.ndarray,
    offset: np.ndarray,
    number: np.ndarray,
    position_BL: np.ndarray,
    segment_BL: np.ndarray,
) -> None:
    for window in range(len(starts)):
        for step in range(lengths[window]):
            position_BL[row[window], offset[window] + step] = starts[window] + step
            segment_BL[row[window], offset[window] + step] = number[window]
