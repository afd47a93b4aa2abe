"""From a request to a decision, by the task of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.decision import Decision
from serving.features import LiveState
from serving.fraud import Fraud
from serving.many import by_users
from serving.model import Model
from serving.recommendation import Recommendation
from serving.retention import Retention

_TASKS: dict[str, Callable[[Model, LiveState], Recommendation | Retention | Fraud]] = {
    "recommendation": Recommendation,
    "retention": Retention,
    "fraud": Fraud,
}


class Predictor:
    """Decides requests of one bundle; not for use by several threads at once."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self.model, self.state = model, state
        self._task = _TASKS[model.manifest.task](model, state)

    def decide(self, request: dict[str, Any]) -> Decision:
        """Decide a request that keeps the rules of its endpoint.

        Raises:
            InvalidRequestError: it breaks one that its table of fields cannot say.
        """
        return self._task.decide(request)

    def answers(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answers to many requests, with one read of the state and one run of the model; at least one request.

        Those about users may differ in nothing but the user.

        Raises:
            InvalidRequestError: one of them breaks such a rule.
        """
        if isinstance(self._task, Fraud):
            return self._task.decide_rows(requests)
        return by_users(self._task.decide, requests)

    def ready(self) -> bool:
        """Whether the state is there and fits."""
        return self.state.ready()
