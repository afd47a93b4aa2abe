"""Recommendation: the items that users are most likely to view next, of those that may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from serving import cold_start
from serving.blend_kernels import Met
from serving.decision import Decision, Read, read, run_met, told
from serving.diversity import POOL, spread
from serving.endpoints import MAX_DIVERSE, MAX_DIVERSE_K, MAX_ITEMS
from serving.features import LiveState
from serving.filters import Eligible, Filters
from serving.items import ITEM
from serving.many import refuse, together, users_of
from serving.model import Model
from serving.offers import LiveOffers
from serving.reasons import because
from serving.retrieval import Ranked, Retrieval

_NOTHING = np.zeros(0, np.int64)


class Recommendation:
    """Decides requests of a recommendation bundle."""

    def __init__(self, model: Model, state: LiveState) -> None:
        """`model` and `state` have been checked."""
        assert model.items is not None  # noqa: S101 - a bundle for recommendation has items
        self._model, self._state, self._items = model, state, model.items
        self._with_items = [one.name for one in model.declarations if one.is_sequence and ITEM in one.fields]
        self._offers = LiveOffers(state.item_history, model.items)
        self._filters = Filters(model.items)
        self._retrieval = Retrieval(model.items, model.item_index(), model.blend)

    def decide(self, request: dict[str, Any]) -> Decision:
        """The best items for one user or many, as the request wants them (serving/endpoints.py).

        Raises:
            InvalidRequestError: the fields do not go together.
        """
        users = users_of(request)
        _check_size(request, len(users))
        found = read(self._state, {"user_id": users})
        eligible = self._filters.all
        if request["filters"] is not None:
            eligible = self._filters.eligible(request["filters"], self._offers.at(found.moment.t))
        seen = [self._seen(found, row) if request["exclude_seen"] else _NOTHING for row in range(len(users))]
        unknown = cold_start.of_histories(self._model, found.features, users)
        queries, met = (np.zeros((len(users), 0)), None) if all(unknown) else run_met(self._model, found)
        ranked = self._ranked(queries, met, unknown, request, eligible, seen)
        answers, outcomes = [], []
        for row, (reason, mine) in enumerate(zip(unknown, ranked, strict=True)):
            ids, scores = [self._items.ids[place] for place in mine.places.tolist()], mine.scores.tolist()
            items: list[dict[str, Any]] = [
                {ITEM: item, "score": score} for item, score in zip(ids, scores, strict=True)
            ]
            if request["reasons"]:
                scored = partial(self._retrieval.scores_of, mine.places, eligible, seen[row])
                why = [[]] * len(items) if reason else because(self._model, found, row, scored)
                items = [{**item, "because_of": one} for item, one in zip(items, why, strict=True)]
            by = "popularity" if reason else "model"
            candidates = eligible.count - int(np.count_nonzero(eligible.among(seen[row])))
            answers.append({"items": items, "candidates": candidates, **told(self._model, found, row, reason, by)})
            outcome = {"items": ids, "scores": scores, "candidates": candidates, "answered_by": by}
            outcomes.append({**outcome, "propensity": 1.0})  # nothing is left to chance
        answer = answers[0] if request["users"] is None else together(users, answers)
        return Decision(answer=answer, request=request, read=found, outcomes=outcomes)

    def _ranked(
        self,
        queries: np.ndarray,
        met: Met | None,
        unknown: list[str | None],
        request: Mapping[str, Any],
        eligible: Eligible,
        seen: list[np.ndarray],
    ) -> list[Ranked]:
        """Items for each user: by the model for those that are known, else by popularity."""
        diversity, k = request["diversity"], request["k"]
        wanted = POOL * k if diversity else k
        known = np.array([reason is None for reason in unknown])
        by_model, by_popularity = np.flatnonzero(known), np.flatnonzero(~known)
        found: dict[int, Ranked] = {}
        if len(by_model):
            his = None if met is None else met.rows(by_model)
            mine = self._retrieval.best(queries[by_model], wanted, eligible, [seen[row] for row in by_model], his)
            found |= dict(zip(by_model.tolist(), mine, strict=True))
        if len(by_popularity):
            mine = self._retrieval.popular(wanted, eligible, [seen[row] for row in by_popularity])
            found |= dict(zip(by_popularity.tolist(), mine, strict=True))
        if diversity:
            found = {row: self._diverse(one, k, diversity) for row, one in found.items()}
        return [found[row] for row in range(len(known))]

    def _diverse(self, ranked: Ranked, k: int, diversity: float) -> Ranked:
        chosen = spread(self._items.vectors[ranked.places], ranked.scores, k, diversity)
        return Ranked(ranked.places[chosen], ranked.scores[chosen])

    def _seen(self, found: Read, row: int) -> np.ndarray:
        """Places of the items in a user's recent history, as far as the state remembers it; rising."""
        met: set[str] = set()
        for view in self._with_items:
            one = found.features.results[view].sequence
            codes = set(one.values[ITEM][one.starts[row] : one.ends[row]].tolist())
            met.update(one.dictionaries[ITEM][code] for code in codes if code >= 0)
        return self._items.places(met)


def _check_size(request: Mapping[str, Any], users: int) -> None:
    """Keep the work of one request bounded.

    Raises:
        InvalidRequestError: its fields do not go together.
    """
    k, diverse = request["k"], request["diversity"] > 0
    limit = MAX_DIVERSE if diverse else MAX_ITEMS
    if diverse and k > MAX_DIVERSE_K:
        refuse("k", "range", f"is {k}; with diversity send at most {MAX_DIVERSE_K}")
    if users > 1 and users * k > limit:
        refuse("users", "range", f"times k is {users * k}; send at most {limit}")
    price = (request["filters"] or {}).get("price_minor") or {}
    if price.get("maximum") is not None and price["maximum"] < (price["minimum"] or 0):
        refuse("filters.price_minor.maximum", "range", "is below the minimum; send one that is not")
