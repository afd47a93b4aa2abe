"""The k largest of many scores, row by row, exactly and without sorting what cannot be among them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_BLOCKS = 2
"""So many blocks a wanted position there are at least: with fewer the bound would let too much through."""


def best(scores: np.ndarray, k: int) -> list[np.ndarray]:
    """Positions of the k largest of each row, largest first, of equal ones the earlier; -inf is nobody's.

    Args:
        scores: float32 or float64 [B, n].
        k: how many.

    Returns:
        B times int64 [up to k].
    """
    rows, n = scores.shape
    if not n or k < 1:
        return [np.zeros(0, np.int64)] * rows
    row, place = np.nonzero(scores >= _bound(scores, min(k, n)))
    order = np.lexsort((-scores[row, place], row))  # stable: equal ones stay in the order of their positions
    row, place = row[order], place[order]
    return [place[start : min(stop, start + k)] for start, stop in pairwise(np.searchsorted(row, np.arange(rows + 1)))]


def _bound(scores: np.ndarray, k: int) -> np.ndarray:
    """A finite score of each row that at least its k largest reach, or all that are not -inf; [B, 1]."""
    rows, n = scores.shape
    width = min(int(n**0.5), n // (_BLOCKS * k))
    if width > 1:
        # the k-th largest of the blocks' maxima is reached k times: one pass, where a partition takes many
        blocks = n // width
        scores = scores[:, : blocks * width].reshape(rows, blocks, width).max(2)
    found = np.partition(scores, scores.shape[1] - k, axis=1)[:, [scores.shape[1] - k]]
    return np.maximum(found, np.finfo(scores.dtype).min)
