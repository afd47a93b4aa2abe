"""From a request to an answer: read the state, run the model, and say what the answer rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clicktrail.clock import moment as as_datetime
from clicktrail.contract import AHEAD_LIMIT_SECONDS, ENTITY_KEYS, MICROSECONDS
from serving import cold_start
from serving.features import Features, LiveState, Moment
from serving.model import Model
from serving.schema import InvalidRequestError, Problem

ITEM = "item_id"


class Predictor:
    """Answers requests of one bundle; not for use by several threads at once."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        self._model = model
        self._state = state
        self._place = {item: place for place, item in enumerate(model.items)}
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "recommendation": self._recommend,
            "retention": self._retention,
            "fraud": self._fraud,
        }
        self.answer = answers[model.manifest.task]

    def ready(self) -> bool:
        """Whether the state is there and fits."""
        return self._state.ready()

    def _recommend(self, request: dict[str, Any]) -> dict[str, Any]:
        """`user_id`, `k`, `exclude_seen` -> up to k items, best first."""
        moment, features = self._read(request)
        user = request["user_id"]
        seen = _seen(features) if request["exclude_seen"] else []
        reason = cold_start.of_user(features, user) or cold_start.of_history(self._model, features, user)
        if reason:
            items = cold_start.popular(self._model, request["k"], seen)
            return {"items": items, **self._told(moment, features, reason, "popularity")}
        scores = self._run(request, features, moment)
        scores[[self._place[item] for item in seen if item in self._place]] = -np.inf
        items = [
            {ITEM: self._model.items[place], "score": float(scores[place])}
            for place in best(scores, request["k"])
            if np.isfinite(scores[place])
        ]
        return {"items": items, **self._told(moment, features, None, "model")}

    def _retention(self, request: dict[str, Any]) -> dict[str, Any]:
        """`user_id` -> the probability that he comes back."""
        moment, features = self._read(request)
        reason = cold_start.of_user(features, request["user_id"])
        if reason:
            return {"score": cold_start.base_rate(self._model), **self._told(moment, features, reason, "base_rate")}
        return {"score": float(self._run(request, features, moment)), **self._told(moment, features, None, "model")}

    def _fraud(self, request: dict[str, Any]) -> dict[str, Any]:
        """A payment -> the probability that it is fraud, and whether that reaches the stated threshold."""
        self._refuse_the_future(request["event_timestamp"])
        moment, features = self._read(request, at=request["event_timestamp"])
        # first payments are part of what the model learnt from, so it answers for them too, and says so
        reason = cold_start.of_payment(self._model, features, request)
        score = float(self._run(request, features, moment))
        threshold = float(self._model.interface["threshold"])
        return {
            "event_id": request["event_id"],
            "score": score,
            "threshold": threshold,
            "flagged": score >= threshold,
            **self._told(moment, features, reason, "model"),
        }

    # ---- parts

    def _read(self, request: dict[str, Any], at: int | None = None) -> tuple[Moment, Features]:
        moment = self._state.moment(at)
        keys = {key: request.get(key) for key in ENTITY_KEYS}
        return moment, self._state.read(keys, moment.t)

    def _run(self, request: dict[str, Any], features: Features, moment: Moment) -> np.ndarray:
        fields = {name: [value] for name, value in request.items()}
        return self._model.run(features.views, fields, np.array([moment.t], np.int64))[0]

    def _told(self, moment: Moment, features: Features, reason: str | None, answered_by: str) -> dict[str, Any]:
        """What every answer says about itself."""
        return {
            "cold_start": reason is not None,
            "cold_start_reason": reason,
            "answered_by": answered_by,
            "features_as_of": as_datetime(features.as_of).isoformat().replace("+00:00", "Z"),
            # a payment may lie before the newest that is known of others
            "feature_age_seconds": max(features.as_of - moment.watermark, 0) / MICROSECONDS,
            "feature_offset": moment.offset,
            "model": self._model.manifest.tag,
        }

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
