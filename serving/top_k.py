"""The k largest of many scores, row by row, exactly, in one pass over all of them.

The scores are cut into blocks. The k-th largest of the blocks' maxima is reached by k scores at least, so the best k
are in the blocks that reach it: a few, where a partition would go over everything several times.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_BLOCKS = 4
"""So many blocks a wanted position there are at least: with fewer, too much would have to be looked at again."""


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
    row, place = _candidates(scores, min(k, n))
    order = np.lexsort((place, -scores[row, place], row))
    row, place = row[order], place[order]
    return [place[start : min(stop, start + k)] for start, stop in pairwise(np.searchsorted(row, np.arange(rows + 1)))]


def _candidates(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and places of finite scores with the k best of each row among them."""
    rows, n = scores.shape
    width = max(1, min(int(n**0.5), n // (_BLOCKS * k)))
    blocks = n // width
    cut = scores[:, : blocks * width].reshape(rows, blocks, width)
    heads = cut.max(2)
    bound = np.partition(heads, blocks - k, axis=1)[:, blocks - k]
    bound = np.maximum(bound, np.finfo(scores.dtype).min)
    row, block = np.nonzero(heads >= bound[:, None])
    which, column = np.nonzero(cut[row, block] >= bound[row, None])
    # what was left over behind the last block
    late_row, late = np.nonzero(scores[:, blocks * width :] >= bound[:, None])
    place = np.concatenate([block[which] * width + column, late + blocks * width])
    return np.concatenate([row[which], late_row]), place
