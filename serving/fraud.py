"""Fraud: the probability that a payment is fraud, at the moment of the payment, and what is best done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clicktrail.contract import AHEAD_LIMIT_SECONDS, MICROSECONDS
from serving import cold_start, costs, recent_events
from serving.decision import Decision, Read, read, run, told
from serving.drivers import Drivers
from serving.features import LiveState
from serving.model import Model
from serving.probability import curve_of
from serving.schema import InvalidRequestError, Problem

REASONS = 3


class Fraud:
    """Decides requests of a fraud bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked.

        Raises:
            RefusedError: the costs cannot be read.
        """
        self._model, self._state = model, state
        self._costs = costs.chosen(model.interface)
        self._probability = curve_of(model.interface)
        self._threshold = float(model.interface["threshold"])
        self._drivers = Drivers(model)

    def decide(self, request: dict[str, Any]) -> Decision:
        """A payment -> the probability that it is fraud, and the action of least expected cost.

        Raises:
            InvalidRequestError: the payment lies in the future, or an event that came with it breaks a rule.
        """
        at = request["event_timestamp"]
        self._refuse_the_future(at)
        recent = None
        if request["recent_events"]:
            at = self._state.moment(at).t
            recent = recent_events.table_of(request, at)
        found = read(self._state, {name: [value] for name, value in request.items()}, at=at, recent=recent)
        answers, outcomes = self._decided(found, [request])
        return Decision(answer=answers[0], request=request, read=found, outcomes=outcomes)

    def decide_rows(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answers to many payments, each at its own time, with one read of the state and one run of the model.

        Events that came with them do not count.

        Raises:
            InvalidRequestError: one of the payments lies in the future.
        """
        for one in requests:
            self._refuse_the_future(one["event_timestamp"])
        now = self._state.moment().t
        times = np.array([now if one["event_timestamp"] is None else one["event_timestamp"] for one in requests])
        found = read(self._state, {name: [one[name] for one in requests] for name in requests[0]}, at=times)
        return self._decided(found, requests)[0]

    def _decided(
        self, found: Read, requests: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Answers and outcomes of what was read, a payment a row."""
        answers, outcomes = [], []
        for row, (request, score) in enumerate(zip(requests, run(self._model, found).tolist(), strict=True)):
            probability = self._probability(score)
            expected = self._costs.expected(probability, request["price_minor"])
            action = min(costs.ACTIONS, key=expected.__getitem__)
            decided = {
                "score": score,
                "probability": probability,
                "threshold": self._threshold,
                "flagged": score >= self._threshold,
                "action": action,
            }
            # first payments are part of what the model learnt from, so it answers for them too, and says so
            reason = cold_start.of_payment(self._model, found.features, row, request)
            answer = {"event_id": request["event_id"], **decided, "expected_cost": expected}
            answer |= told(self._model, found, row, reason, "model")
            if request["reasons"] or action != costs.APPROVE:
                answer["reasons"] = self._reasons(found, row, raising=action != costs.APPROVE)
            answers.append(answer)
            outcomes.append({**decided, "expected_cost": expected[action]})
        return answers, outcomes

    def _reasons(self, found: Read, row: int, *, raising: bool) -> list[dict[str, Any]]:
        """What moved the score most; of a payment that is not approved, what raised it."""
        drivers = self._drivers.of(found, row)
        return [one.told for one in drivers if one.contribution > 0 or not raising][:REASONS]

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
