"""Diversity: of the best candidates those that are also unlike each other (maximal marginal relevance)."""

from __future__ import annotations

import numpy as np

POOL = 5
"""The candidates are so many times as many as the items asked for."""


def spread(vectors: np.ndarray, scores: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Which candidates to show, in order; of equal ones the earlier candidate.

    One after the other is taken that has the largest
    (1 - diversity) * relevance - diversity * largest cosine with what is taken already,
    where relevance is the score, brought to 0 (the least of the candidates) to 1 (the largest).

    Args:
        vectors: of the candidates, best first; float32 [C, D].
        scores: float [C].
        k: how many.
        diversity: 0 leaves the order as it is, 1 looks at the likeness alone.

    Returns:
        Places among the candidates, int64 [min(k, C)].
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)  # a vector of zeros is like nothing
    low = scores.min(initial=np.inf)
    relevance = (1 - diversity) * (scores - low) / max(float(np.ptp(scores)) if len(scores) else 0.0, 1e-12)
    likeness = np.zeros(len(scores))
    taken: list[int] = []
    for _ in range(min(k, len(scores))):
        one = int(np.argmax(relevance - diversity * likeness))
        likeness = units @ units[one] if not taken else np.maximum(likeness, units @ units[one])
        relevance[one] = -np.inf
        taken.append(one)
    return np.array(taken, np.int64)
