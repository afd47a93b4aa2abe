"""What this user chose before, chosen again: counts of the own history that fade with age.

Where people come back to the same few things (groceries, merchants, terminals) nothing simple is stronger
(Anderson et al. 2014, the dynamics of repeat consumption). The decay is chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.baselines import RankingExamples, subsample
from training.baselines.histories import query, worth

_DECAYS = (1.0, 0.98, 0.95, 0.9, 0.8, 0.5)
_MOST_VALIDATION = 4_000


@dataclass(frozen=True, kw_only=True)
class OwnHistory:
    """`decay` ^ age by event of the history, the newest of age 0."""

    decay: float
    items: int

    def scores(self, examples: RankingExamples) -> Any:  # noqa: ANN401 - scipy's matrices are untyped
        """CSR float32 [n, items], 0 for what the user never chose."""
        return query(examples, self.items, None, self.decay)


def fit(validation: RankingExamples, *, items: int) -> OwnHistory:
    """Choose the decay on validation; nothing else is learnt.

    Raises:
        ValueError: there is no validation example.
    """
    validation = validation.take(subsample(len(validation), _MOST_VALIDATION, 0))
    candidates = [OwnHistory(decay=decay, items=items) for decay in _DECAYS]
    return max(candidates, key=lambda one: worth(one.scores(validation), validation))
