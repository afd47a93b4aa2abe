"""The thieves: account takeover, card testing and rings of fake orders, put between the visits of the honest.

Each hides in what honest people do. A takeover is a direct order (search, cart, then looks that look like anybody's)
of dear, resellable goods, mostly from a strange device. Card testing is a burst of small payments like a top-up, but
rising and hurrying. A ring is some fresh accounts that order the same item to one address.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ingestion.shop.parameters import ShopParameters
from ingestion.shop.scripts import (
    FAKE,
    RING_VIEWS,
    TAKEOVER,
    TESTING,
    Sessions,
    burst_length,
    look_count,
    time_of_day,
)

RING_DAYS = 4
RING_SIZES = (4, 5, 6, 7, 8, 9)

LOG_FIRST_AMOUNT, SPREAD_FIRST_AMOUNT = np.log(150.0), 0.4
LOG_BIG_AMOUNT, SPREAD_BIG_AMOUNT = np.log(22_000.0), 0.5
LOG_FIRST_GAP, SPREAD_FIRST_GAP = np.log(200.0), 0.5
TYPICAL_BURST = 6.0


@dataclass(frozen=True, kw_only=True)
class Rings:
    """Rings of fake orders: arrays of [rings]; `users` accounts opened for them all, numbered after the honest."""

    item: np.ndarray
    accounts: np.ndarray


def pooled(parameters: ShopParameters) -> tuple[float, float, float, float]:
    """Mean and spread of the logarithm of amounts (cents) and of gaps (seconds) of an honest burst.

    Set so that bursts of both kinds agree in them: what tells them apart is the order.
    """
    rungs = np.arange(TYPICAL_BURST)
    noise = parameters.ladder_noise**2 * rungs.mean()
    amount = LOG_FIRST_AMOUNT + parameters.ladder_step * rungs
    gap = LOG_FIRST_GAP - parameters.ladder_hurry * rungs[:-1]
    return (
        float(amount.mean()),
        float(np.sqrt(amount.var() + SPREAD_FIRST_AMOUNT**2 + noise)),
        float(gap.mean()),
        float(np.sqrt(gap.var() + SPREAD_FIRST_GAP**2 + noise)),
    )


def draw_bursts(
    parameters: ShopParameters, sessions: Sessions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Small payments of all sessions in order: (session, index in the burst, cents, seconds since the one before)."""
    session = np.repeat(np.arange(len(sessions)), sessions.payments)
    starts = np.cumsum(sessions.payments) - sessions.payments
    index = np.arange(len(session)) - starts[session]
    count = len(session)
    testing = sessions.kind[session] == TESTING
    amount_mean, amount_spread, gap_mean, gap_spread = pooled(parameters)

    def climb(first_mean: float, first_spread: float, step: float, origin: int) -> np.ndarray:
        """A random walk with drift along each burst that begins at row `origin` of it."""
        begins = index <= origin
        moves = np.where(
            begins, rng.normal(first_mean, first_spread, count), rng.normal(step, parameters.ladder_noise, count)
        )
        total = np.cumsum(moves)
        base = starts[session] + np.minimum(index, origin)
        return total - total[base] + moves[base]

    ladder = climb(float(LOG_FIRST_AMOUNT), SPREAD_FIRST_AMOUNT, parameters.ladder_step, 0)
    hurry = climb(float(LOG_FIRST_GAP), SPREAD_FIRST_GAP, -parameters.ladder_hurry, 1)
    log_amount = np.where(testing, ladder, rng.normal(amount_mean, amount_spread, count))
    log_gap = np.where(testing, hurry, rng.normal(gap_mean, gap_spread, count))
    last = index == sessions.payments[session] - 1
    log_amount = np.where(
        last & sessions.big[session], rng.normal(LOG_BIG_AMOUNT, SPREAD_BIG_AMOUNT, count), log_amount
    )
    amount = np.maximum(np.round(np.exp(log_amount)), 20).astype(np.int64)
    return session, index, amount, np.clip(np.exp(log_gap), 5.0, 1800.0)


def with_fraud(
    parameters: ShopParameters, honest: Sessions, users: int, weights: np.ndarray, rng: np.random.Generator
) -> tuple[Sessions, Rings]:
    """Honest sessions with the thieves' among them, in the order of (user, day).

    `weights` [items]: which items a ring pushes.
    """
    second = np.flatnonzero(honest.user[1:] == honest.user[:-1]) + 1
    taken = np.unique(honest.user * parameters.days + honest.day)
    parts = [honest]
    for kind, rate in ((TAKEOVER, parameters.takeover), (TESTING, parameters.card_testing)):
        count = rng.binomial(len(honest), rate)
        after = rng.choice(second, min(count, len(second)), replace=False)
        user, day = honest.user[after], honest.day[after] + rng.integers(1, 8, len(after))
        key = user * parameters.days + day
        free = (day < parameters.days) & ~np.isin(key, taken)
        _, unique = np.unique(key[free], return_index=True)
        user, day = user[free][unique], day[free][unique]
        taken = np.union1d(taken, user * parameters.days + day)
        parts.append(_plan(parameters, user, day, kind, rng))

    rings = max(1, rng.binomial(len(honest), parameters.fake_rings))
    accounts = rng.choice(RING_SIZES, rings)
    first_day = rng.integers(0, parameters.days, rings)
    ring = np.repeat(np.arange(rings), accounts)
    day = np.minimum(first_day[ring] + rng.integers(0, RING_DAYS, len(ring)), parameters.days - 1)
    fake = _plan(parameters, users + np.arange(len(ring)), day, FAKE, rng)
    parts.append(_merge([fake], ring=ring))
    merged = _merge(parts)
    order = np.lexsort((merged.start, merged.day, merged.user))
    return merged.take(order), Rings(item=rng.choice(len(weights), rings, p=weights), accounts=accounts)


def _plan(
    parameters: ShopParameters, user: np.ndarray, day: np.ndarray, kind: int, rng: np.random.Generator
) -> Sessions:
    count = len(user)
    no = np.zeros(count, dtype=bool)
    views = look_count(parameters, rng, count)
    return Sessions(
        user=user,
        day=day,
        start=time_of_day(rng, count),
        kind=np.full(count, kind),
        frustrated=no,
        views=np.minimum(views, RING_VIEWS) if kind == FAKE else views,
        buys=no | (kind in (TAKEOVER, FAKE)),
        direct=no | (kind == TAKEOVER),
        payments=burst_length(rng, count) if kind == TESTING else np.zeros(count, dtype=np.int64),
        big=(rng.random(count) < parameters.testing_big) & (kind == TESTING),
        ring=np.full(count, -1),
    )


def _merge(parts: list[Sessions], **replaced: np.ndarray) -> Sessions:
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Sessions)}
    return Sessions(**{**columns, **replaced})
