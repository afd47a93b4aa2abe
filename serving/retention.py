"""Retention: the probability that a user comes back."""

from __future__ import annotations

from typing import Any

from serving import cold_start
from serving.decision import Decision, read, run, told
from serving.features import LiveState
from serving.model import Model


class Retention:
    """Decides requests of a retention bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self._model, self._state = model, state

    def decide(self, request: dict[str, Any]) -> Decision:
        """`user_id` -> the probability that he comes back."""
        found = read(self._state, {"user_id": [request["user_id"]]})
        reason = cold_start.of_user(found.features, 0, request["user_id"])
        score = cold_start.base_rate(self._model) if reason else float(run(self._model, found)[0])
        answer = {"score": score, **told(self._model, found, 0, reason, "base_rate" if reason else "model")}
        return Decision(answer=answer, request=request, read=found, outcomes=[{"score": score}])
