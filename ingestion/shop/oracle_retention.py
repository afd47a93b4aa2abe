"""The retention oracle: P(active in the next 14 days) for every known user at every midnight it covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingestion.shop.oracle_visits import SeenVisits, rhythm_tables
from ingestion.shop.parameters import ShopParameters
from ingestion.shop.rhythm import LONGEST_GAP, hazard

HORIZON_DAYS = 14


@dataclass(frozen=True, kw_only=True)
class RetentionTruth:
    """Examples (user, midnight that begins `day`) and the chance that the user is active, arrays of [examples]."""

    user: np.ndarray
    day: np.ndarray
    chance: np.ndarray


def retention_truth(
    parameters: ShopParameters, visits: SeenVisits, from_day: int, fake_chance: np.ndarray
) -> RetentionTruth:
    """Chances at every midnight from `from_day` to 14 days before the end.

    `fake_chance` [users]: how sure it is that the account only exists for one fake order.
    """
    tables = rhythm_tables(parameters)
    parts: list[tuple[np.ndarray, ...]] = []
    key = visits.user * (parameters.days + 1) + visits.day
    users = np.unique(visits.user)
    for day in range(from_day, parameters.days - HORIZON_DAYS + 1):
        last = np.searchsorted(key, users * (parameters.days + 1) + day) - 1
        known = (last >= 0) & (visits.user[np.maximum(last, 0)] == users)
        last = last[known]
        silent = np.minimum(day - 1 - visits.day[last], LONGEST_GAP)
        later = np.minimum(silent + HORIZON_DAYS, LONGEST_GAP)
        leaves = hazard(parameters, visits.streak[last])[:, None]
        weight = visits.weight_k[last]
        open_ = (1 - leaves) * tables.longer_kg[:, silent].T + leaves * tables.gone_g[silent][:, None]
        silent_on = (1 - leaves) * tables.longer_kg[:, later].T + leaves * tables.gone_g[later][:, None]
        total = (weight * open_).sum(axis=1)
        chance = 1.0 - (weight * silent_on).sum(axis=1) / np.maximum(total, 1e-300)
        chance *= np.where(visits.number[last] == 0, 1.0 - fake_chance[users[known]], 1.0)
        parts.append((users[known], np.full(len(last), day), np.clip(chance, 0.0, 1.0)))
    user, days, chances = (np.concatenate(column) for column in zip(*parts, strict=True))
    return RetentionTruth(user=user, day=days, chance=chances)
