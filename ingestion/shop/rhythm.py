"""Who visits on which day: users with a period, a regularity and a hazard to leave that frustration raises.

Gaps between visits are whole days, so that what the oracle knows of them is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ingestion.shop.catalogue import BAND_SHARES, BANDS
from ingestion.shop.parameters import ShopParameters

LONGEST_GAP = 400


@dataclass(frozen=True, kw_only=True)
class Users:
    """Latent truth of every honest user, arrays of [users]."""

    period: np.ndarray
    regularity: np.ndarray
    taste: np.ndarray
    band: np.ndarray
    first_day: np.ndarray
    is_new: np.ndarray

    def __len__(self) -> int:
        """How many users."""
        return len(self.period)


@dataclass(frozen=True, kw_only=True)
class Visits:
    """Visits in the order of (user, day): arrays of [visits]."""

    user: np.ndarray
    day: np.ndarray
    frustrated: np.ndarray

    def __len__(self) -> int:
        """How many visits."""
        return len(self.user)


def gap_table(parameters: ShopParameters) -> np.ndarray:
    """P(gap = g days), [periods, regularities, LONGEST_GAP + 1]; the last entry holds the whole tail."""
    fine = 48
    edges = (np.arange(LONGEST_GAP * fine) + 0.5) / fine
    table = np.zeros((len(parameters.periods), len(parameters.regularities), LONGEST_GAP + 1))
    for i, period in enumerate(parameters.periods):
        for j, shape in enumerate(parameters.regularities):
            scale = period / shape
            log_density = (shape - 1) * np.log(edges / scale) - edges / scale - math.lgamma(shape) - math.log(scale)
            mass = np.exp(log_density).reshape(LONGEST_GAP, fine).sum(axis=1) / fine
            mass /= max(1.0, mass.sum())
            table[i, j, 1:] = mass
            table[i, j, LONGEST_GAP] += 1.0 - mass.sum()
    return table


def revival_table(parameters: ShopParameters) -> np.ndarray:
    """P(somebody who left is back after g days), [LONGEST_GAP + 1]; the last entry holds the tail."""
    stay = math.exp(-1.0 / parameters.revival_days)
    table = np.zeros(LONGEST_GAP + 1)
    table[1:] = (1.0 - stay) * stay ** np.arange(LONGEST_GAP)
    table[LONGEST_GAP] += 1.0 - table.sum()
    return table


def hazard(parameters: ShopParameters, streak: np.ndarray) -> np.ndarray:
    """Chance to leave after a visit, by frustrated visits in a row."""
    return np.asarray(parameters.hazards)[np.minimum(streak, len(parameters.hazards) - 1)]


def draw_users(parameters: ShopParameters, count: int, rng: np.random.Generator) -> Users:
    """Draw the latent truth of `count` users."""
    period = rng.choice(len(parameters.periods), count, p=_normal(parameters.period_weights))
    is_new = rng.random(count) >= parameters.existing_share
    spread = np.ceil(np.asarray(parameters.periods)[period])
    first_day = np.where(is_new, rng.random(count) * parameters.days, rng.random(count) * spread)
    return Users(
        period=period,
        regularity=rng.choice(len(parameters.regularities), count, p=_normal(parameters.regularity_weights)),
        taste=rng.integers(0, parameters.tastes, count),
        band=rng.choice(BANDS, count, p=BAND_SHARES),
        first_day=np.minimum(first_day.astype(np.int64), parameters.days - 1),
        is_new=is_new,
    )


def draw_visits(parameters: ShopParameters, users: Users, rng: np.random.Generator) -> Visits:
    """Let every user visit, be frustrated, leave and come back until the days are over."""
    gaps = np.cumsum(gap_table(parameters), axis=2)
    revival = np.cumsum(revival_table(parameters))
    who = np.arange(len(users))
    day = users.first_day.copy()
    streak = np.zeros(len(users), dtype=np.int64)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(who):
        chance = np.where(streak > 0, parameters.frustration_again, parameters.frustration)
        frustrated = rng.random(len(who)) < chance
        parts.append((who, day, frustrated))
        streak = np.where(frustrated, streak + 1, 0)
        leaves = rng.random(len(who)) < hazard(parameters, streak)
        cdf = gaps[users.period[who], users.regularity[who]]
        cdf[leaves] = revival
        gap = np.maximum((rng.random(len(who))[:, None] > cdf).sum(axis=1), 1)
        day = day + gap
        stays = day < parameters.days
        who, day, streak = who[stays], day[stays], streak[stays]
    user, all_days, frustrated = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((all_days, user))
    return Visits(user=user[order], day=all_days[order], frustrated=frustrated[order])


def _normal(weights: tuple[float, ...]) -> np.ndarray:
    return np.asarray(weights) / sum(weights)
