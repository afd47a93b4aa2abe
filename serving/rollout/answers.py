"""What an answer says that two bundles can be compared by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Whether nothing was known of the user, the score, the items; each None where the answer has none."""

    cold: bool | None = None
    score: float | None = None
    items: frozenset[str] | None = None


NOTHING = Reading()


def reading(body: bytes) -> Reading:
    """Read an answer. One for several users, or none of ours, says nothing."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return NOTHING
    if not isinstance(said, dict):
        return NOTHING
    cold, score = said.get("cold_start"), said.get("score")
    return Reading(
        cold=cold if isinstance(cold, bool) else None,
        score=float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None,
        items=_items(said.get("items")),
    )


def difference(one: Reading, other: Reading) -> float | None:
    """How far two answers to the same request are apart, 0 to 1; None where they can't be compared.

    Scores by their difference, recommendations by the share of the one's items that the other has not:
    their scores rank within one answer and mean nothing beside another's.
    """
    if one.score is not None and other.score is not None:
        return abs(one.score - other.score)
    if one.items and other.items is not None:
        return len(one.items - other.items) / len(one.items)
    return None


def _items(listed: Any) -> frozenset[str] | None:  # noqa: ANN401 - JSON data
    if not isinstance(listed, list):
        return None
    return frozenset(str(item["item_id"]) for item in listed if isinstance(item, dict) and "item_id" in item)
