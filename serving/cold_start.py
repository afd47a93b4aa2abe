"""What is answered where nothing is known, and the words for it: honest rather than a score made of padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.features import Features
from serving.model import Model


def of_user(features: Features, row: int, user: str) -> str | None:
    """Why nothing is known of the user of this row, or None where something is."""
    return None if features.anything_known(row) else f"user_id {user!r} has no event in the online state"


def of_histories(model: Model, features: Features, users: Sequence[str]) -> list[str | None]:
    """Why there is no history from which the next item of a user could follow, or None where there is one; by row."""
    sequences = [features.results[one.name].sequence for one in model.declarations if one.is_sequence]
    events = sum(one.ends - one.starts for one in sequences)
    return [
        of_user(features, row, user)
        or (None if count else f"user_id {user!r} has no recent event of those that the model reads")
        for row, (user, count) in enumerate(zip(users, np.broadcast_to(events, len(users)).tolist(), strict=True))
    ]


def of_payment(model: Model, features: Features, row: int, request: Mapping[str, Any]) -> str | None:
    """Which entities of a payment are new; the model answers on their empty histories."""
    unknown = []
    for key in dict.fromkeys(one.entity_key for one in model.declarations):
        views = [one.name for one in model.declarations if one.entity_key == key]
        if request.get(key) is None:
            unknown.append(f"the payment has no {key}")
        elif not any(features.results[view].known[row] for view in views):
            unknown.append(f"{key} {request[key]!r} has no event in the online state")
    return "; ".join(unknown) or None


def base_rate(model: Model) -> float:
    """How often the label was 1 in the training range."""
    return float(model.fallback["score"])
