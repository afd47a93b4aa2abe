"""Recommendation: the items that a user is most likely to view next."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving import cold_start
from serving.decision import Decision, read, run, told
from serving.features import Features, LiveState
from serving.model import Model

ITEM = "item_id"


class Recommendation:
    """Decides requests of a recommendation bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self._model, self._state = model, state
        self._place = {item: place for place, item in enumerate(model.items)}

    def decide(self, request: dict[str, Any]) -> Decision:
        """`user_id`, `k`, `exclude_seen` -> up to k items, best first."""
        user = request["user_id"]
        found = read(self._state, {"user_id": [user]})
        seen = _seen(found.features) if request["exclude_seen"] else []
        reason = cold_start.of_user(found.features, 0, user) or cold_start.of_history(self._model, found.features, user)
        if reason:
            items = cold_start.popular(self._model, request["k"], seen)
        else:
            scores = run(self._model, found)[0]
            scores[[self._place[item] for item in seen if item in self._place]] = -np.inf
            items = [
                {ITEM: self._model.items[place], "score": float(scores[place])}
                for place in best(scores, request["k"])
                if np.isfinite(scores[place])
            ]
        answer = {"items": items, **told(self._model, found, 0, reason, "popularity" if reason else "model")}
        return Decision(answer=answer, request=request, read=found, outcomes=[_outcome(items)])


def _outcome(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": [one[ITEM] for one in items], "scores": [one["score"] for one in items]}


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k largest scores, largest first; of equal scores the earlier position. int64 [min(k, n)]."""
    k = min(k, len(scores))
    # a stable sort of all costs five times as much; only what may be among the k is sorted
    bound = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= bound)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def _seen(features: Features) -> list[str]:
    """Items of the user's recent history, as far as the state remembers it."""
    found: dict[str, None] = {}
    for view in features.views.values():
        if ITEM in view:
            found.update(dict.fromkeys(view[ITEM].flatten().to_pylist()))
    return [item for item in found if item is not None]
