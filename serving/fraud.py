"""Fraud: the probability that a payment is fraud, at the moment of the payment."""

from __future__ import annotations

from typing import Any

from clicktrail.contract import AHEAD_LIMIT_SECONDS, MICROSECONDS
from serving import cold_start
from serving.decision import Decision, read, run, told
from serving.features import LiveState
from serving.model import Model
from serving.schema import InvalidRequestError, Problem


class Fraud:
    """Decides requests of a fraud bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self._model, self._state = model, state

    def decide(self, request: dict[str, Any]) -> Decision:
        """A payment -> the probability that it is fraud, and whether that reaches the stated threshold."""
        self._refuse_the_future(request["event_timestamp"])
        fields = {name: [value] for name, value in request.items()}
        found = read(self._state, fields, at=request["event_timestamp"])
        # first payments are part of what the model learnt from, so it answers for them too, and says so
        reason = cold_start.of_payment(self._model, found.features, request)
        score = float(run(self._model, found)[0])
        threshold = float(self._model.interface["threshold"])
        decided = {"score": score, "threshold": threshold, "flagged": score >= threshold}
        answer = {"event_id": request["event_id"], **decided, **told(self._model, found, 0, reason, "model")}
        return Decision(answer=answer, request=request, read=found, outcomes=[decided])

    def _refuse_the_future(self, t: int | None) -> None:
        """By the log's own rule: an event dated far ahead of its arrival is a broken clock, not a payment."""
        if t is None or not self._state.on_the_wall:
            return
        now = self._state.moment().t
        if t > now + AHEAD_LIMIT_SECONDS * MICROSECONDS:
            message = (
                f"event_timestamp lies {(t - now) / MICROSECONDS:.0f} s ahead of now; send the payment's own time, "
                "or leave it out"
            )
            raise InvalidRequestError([Problem(field="event_timestamp", rule="ahead_of_arrival", message=message)])
