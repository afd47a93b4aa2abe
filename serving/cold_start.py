"""What is answered where nothing is known, and the words for it: honest rather than a score made of padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from serving.features import Features
from serving.model import Model


def of_user(features: Features, row: int, user: str) -> str | None:
    """Why nothing is known of the user of this row, or None where something is."""
    return None if features.anything_known(row) else f"user_id {user!r} has no event in the online state"


def of_history(model: Model, features: Features, user: str) -> str | None:
    """Why there is no history from which the next item could follow, or None where there is one."""
    sequences = [one for one in model.declarations if one.is_sequence]
    if all(len(features.views[one.name][one.fields[0]].flatten()) == 0 for one in sequences):
        return f"user_id {user!r} has no recent event of those that the model reads"
    return None


def of_payment(model: Model, features: Features, request: Mapping[str, Any]) -> str | None:
    """Which entities of a payment are new; the model answers on their empty histories."""
    unknown = []
    for key in dict.fromkeys(one.entity_key for one in model.declarations):
        views = [one.name for one in model.declarations if one.entity_key == key]
        if request.get(key) is None:
            unknown.append(f"the payment has no {key}")
        elif not any(features.known[view][0] for view in views):
            unknown.append(f"{key} {request[key]!r} has no event in the online state")
    return "; ".join(unknown) or None


def popular(model: Model, k: int, seen: Iterable[str]) -> list[dict[str, Any]]:
    """The k most popular items of the training range, without `seen`; the scores are their shares of all views."""
    left_out = set(seen)
    share = model.popularity / max(1, model.popularity.sum())
    order = np.argsort(-model.popularity, kind="stable")[: k + len(left_out)]
    found = [{"item_id": model.items[place], "score": float(share[place])} for place in order]
    return [one for one in found if one["item_id"] not in left_out][:k]


def base_rate(model: Model) -> float:
    """How often the label was 1 in the training range."""
    return float(model.fallback["score"])
