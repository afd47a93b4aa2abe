"""Retention: the probability that users come back, and what they are expected to spend."""

from __future__ import annotations

from typing import Any

import numpy as np

from clicktrail.value_table import ValueTable
from serving import cold_start
from serving.decision import Decision, Read, read, run, told
from serving.drivers import Drivers
from serving.endpoints import MAX_DRIVEN
from serving.features import LiveState
from serving.many import refuse, together, users_of
from serving.model import Model
from serving.probability import curve_of

DRIVERS = 3
"""So many that raise the score, and so many that lower it."""


class Retention:
    """Decides requests of a retention bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self._model, self._state = model, state
        self._probability = curve_of(model.interface)
        value = model.interface.get("value")
        self._value = ValueTable.from_json(value) if value else None
        self._drivers = Drivers(model)

    def decide(self, request: dict[str, Any]) -> Decision:
        """`user_id`, or `users` -> the probability that each comes back, and the spend to be expected of him.

        Raises:
            InvalidRequestError: the fields do not go together.
        """
        users = users_of(request)
        if request["drivers"] and len(users) > MAX_DRIVEN:
            refuse("users", "range", f"has {len(users)} entries; send at most {MAX_DRIVEN} with drivers")
        found = read(self._state, {"user_id": users})
        unknown = [cold_start.of_user(found.features, row, user) for row, user in enumerate(users)]
        scores = [0.0] * len(users) if all(unknown) else run(self._model, found).tolist()
        values = self._values(found)
        answers, outcomes = [], []
        for row, (reason, score, value) in enumerate(zip(unknown, scores, values, strict=True)):
            decided = self._known(score, value) if reason is None else self._unknown()
            answer = decided | told(self._model, found, row, reason, "base_rate" if reason else "model")
            if request["drivers"]:
                answer["drivers"] = [] if reason else self._told(found, row)
            answers.append(answer)
            outcomes.append(decided)
        answer = answers[0] if request["users"] is None else together(users, answers)
        return Decision(answer=answer, request=request, read=found, outcomes=outcomes)

    def _known(self, score: float, value: float | None) -> dict[str, Any]:
        probability = self._probability(score)
        expected = None if value is None else round(probability * value)
        return {"score": score, "probability": probability, "expected_value_minor": expected}

    def _unknown(self) -> dict[str, Any]:
        """What is said of somebody of whom nothing is known: what was so of all in the training range."""
        rate = cold_start.base_rate(self._model)
        expected = None if self._value is None else round(rate * self._value.mean)
        return {"score": rate, "probability": rate, "expected_value_minor": expected}

    def _values(self, found: Read) -> list[float | None]:
        """Spend of each user if he comes back, minor units; None where the run knows of none."""
        if self._value is None:
            return [None] * found.rows
        scalars = found.features.rows(self._model.encoding.spec, found.fields, found.times).scalars
        columns = [np.asarray(scalars[name], np.float64) for name in self._value.features]
        return list(self._value(columns, found.rows).tolist())

    def _told(self, found: Read, row: int) -> list[dict[str, Any]]:
        """What raises the score most and what lowers it most, the largest effect first."""
        drivers = self._drivers.of(found, row)
        up = [one for one in drivers if one.contribution > 0][:DRIVERS]
        down = [one for one in drivers if one.contribution < 0][:DRIVERS]
        return [one.told for one in drivers if one in up or one in down]
