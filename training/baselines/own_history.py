"""What this user chose before, chosen again: counts of the own history that fade with age.

Where people come back to the same few things (groceries, merchants, terminals) nothing simple is stronger
(Anderson et al. 2014, the dynamics of repeat consumption). The decay is chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from training.baselines import RankingExamples, subsample
from training.baselines.histories import history
from training.evaluation import ranking_metrics

_DECAYS = (1.0, 0.98, 0.95, 0.9, 0.8, 0.5)
_MOST_VALIDATION = 4_000


@dataclass(frozen=True, kw_only=True)
class OwnHistory:
    """`decay` ^ age by event of the history, the newest of age 0."""

    decay: float
    items: int

    def scores(self, examples: RankingExamples) -> Any:  # noqa: ANN401 - scipy's matrices are untyped
        """CSR float32 [n, items], 0 for what the user never chose."""
        line, codes, age = history(examples, self.items, None)
        weights = (self.decay ** age.astype(np.float64)).astype(np.float32)
        return sparse.coo_matrix((weights, (line, codes)), shape=(len(examples), self.items)).tocsr()


def fit(validation: RankingExamples, *, items: int) -> OwnHistory:
    """Choose the decay on validation; nothing else is learnt.

    Raises:
        ValueError: there is no validation example.
    """
    validation = validation.take(subsample(len(validation), _MOST_VALIDATION, 0))
    return max((OwnHistory(decay=decay, items=items) for decay in _DECAYS), key=lambda one: _worth(one, validation))


def _worth(fitted: OwnHistory, examples: RankingExamples) -> float:
    scores = fitted.scores(examples)
    rows = np.repeat(np.arange(len(examples)), np.diff(scores.indptr))
    target = np.where(examples.targets >= 0, examples.targets, 0)
    own = np.asarray(scores[np.arange(len(examples)), target]).ravel()
    rank = np.bincount(rows[scores.data >= own[rows]], minlength=len(examples))
    return ranking_metrics(np.where((own > 0) & (examples.targets >= 0), np.maximum(rank, 1), fitted.items + 1))[
        "ndcg@10"
    ]
