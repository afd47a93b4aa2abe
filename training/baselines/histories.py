"""The histories of examples as flat arrays and sparse queries: what neighbours are asked with."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from training.baselines import Ints, RankingExamples
from training.evaluation import ranking_metrics


def history(examples: RankingExamples, items: int, last: int | None) -> tuple[Ints, Ints, Ints]:
    """Known items of the histories, newest `last` of each: example, code and age (0 = newest), flat."""
    lengths = examples.ends - examples.starts
    lengths = lengths if last is None else np.minimum(lengths, last)
    line = np.repeat(np.arange(len(examples)), lengths)
    age = np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    codes = examples.items[examples.ends[line] - 1 - age].astype(np.int64)
    known = (codes >= 0) & (codes < items)
    return line[known], codes[known], age[known]


def query(examples: RankingExamples, items: int, last: int | None, decay: float) -> Any:  # noqa: ANN401 - scipy is untyped
    """CSR float32 [n, items]: decay^age of the last items (None: of all); an item met twice counts twice."""
    line, codes, age = history(examples, items, last)
    weights = (decay ** age.astype(np.float64)).astype(np.float32)
    return sparse.coo_matrix((weights, (line, codes)), shape=(len(examples), items)).tocsr()


def strongest(matrix: Any, most: int) -> Any:  # noqa: ANN401 - scipy is untyped
    """Keep the `most` largest entries of each row of a CSR matrix."""
    drop = np.zeros(matrix.nnz, dtype=bool)
    for row in np.flatnonzero(np.diff(matrix.indptr) > most):
        begin, end = matrix.indptr[row], matrix.indptr[row + 1]
        weakest = np.argpartition(matrix.data[begin:end], end - begin - most)[: end - begin - most]
        drop[begin + weakest] = True
    if drop.any():
        matrix.data[drop] = 0
        matrix.eliminate_zeros()
    return matrix


def worth(scores: Any, examples: RankingExamples) -> float:  # noqa: ANN401 - scipy is untyped
    """NDCG@10 of CSR scores [n, items] of which only those above 0 rank; ties count against the target."""
    items, known = scores.shape[1], examples.targets >= 0
    own = np.asarray(scores[np.arange(len(examples)), np.where(known, examples.targets, 0)]).ravel()
    row = np.repeat(np.arange(len(examples)), np.diff(scores.indptr))
    rank = np.bincount(row[scores.data >= own[row]], minlength=len(examples))
    named = known & (own > 0)
    return ranking_metrics(np.where(named, np.maximum(rank, 1), items + 1))["ndcg@10"]
