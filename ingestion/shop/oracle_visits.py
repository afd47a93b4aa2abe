"""What the visits so far say of a user's rhythm: exact filtering over (period, regularity) and gone or not.

Observable are the days of the visits and which of them ended in frustration. Approximations: visits that arrived late
are left out, and the visits of thieves count as the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingestion.shop.assembly import CODE, Events
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters
from ingestion.shop.rhythm import LONGEST_GAP, gap_table, hazard, revival_table


@dataclass(frozen=True, kw_only=True)
class SeenVisits:
    """Visits as anybody can see them, in the order of (user, day), arrays of [visits]; K kinds of rhythm.

    `streak` frustrated visits in a row up to and with this one, `number` visits of the user before it, `gap` days
    since the visit before (0 for the first), `weight_k` posterior of the kinds after this visit, `before_k` before it.
    """

    user: np.ndarray
    day: np.ndarray
    session: np.ndarray
    frustrated: np.ndarray
    streak: np.ndarray
    number: np.ndarray
    gap: np.ndarray
    weight_k: np.ndarray
    before_k: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RhythmTables:
    """P(gap = g), P(gap > g) for each kind of rhythm and for those who left, g from 0 to LONGEST_GAP."""

    gap_kg: np.ndarray
    longer_kg: np.ndarray
    back_g: np.ndarray
    gone_g: np.ndarray


def rhythm_tables(parameters: ShopParameters) -> RhythmTables:
    """The tables that the parameters imply."""
    gap = gap_table(parameters).reshape(-1, LONGEST_GAP + 1)
    back = revival_table(parameters)
    return RhythmTables(
        gap_kg=gap,
        longer_kg=np.maximum(1.0 - np.cumsum(gap, axis=1), 0.0),
        back_g=back,
        gone_g=np.maximum(1.0 - np.cumsum(back), 0.0),
    )


def see_visits(parameters: ShopParameters, events: Events, late: np.ndarray) -> SeenVisits:
    """Visits and what they say of their users."""
    rows = np.flatnonzero(~late & (events.type != CODE["label"]))
    rows = rows[np.lexsort((events.time[rows], events.session[rows]))]
    session, kind = events.session[rows], events.type[rows]
    ends = np.flatnonzero(np.append(session[1:] != session[:-1], values=True))
    begins = np.concatenate([[0], ends[:-1] + 1])
    frustrated = (kind[ends] == CODE["search"]) & (kind[np.maximum(ends - 1, begins)] == CODE["search"])
    user = events.user[rows[begins]]
    day = (events.time[rows[begins]] - parameters.start_us) // (DAY * MICROSECONDS)
    order = np.lexsort((day, user))
    user, day, frustrated, session = user[order], day[order], frustrated[order], session[begins][order]

    index = np.arange(len(user))
    again = np.concatenate([[False], user[1:] == user[:-1]])
    first = np.maximum.accumulate(np.where(again, 0, index))
    calm = np.maximum(np.maximum.accumulate(np.where(frustrated, -1, index)), first - 1)
    streak = np.where(frustrated, index - calm, 0)
    gap = np.where(again, day - np.roll(day, 1), 0)

    tables = rhythm_tables(parameters)
    leaves = hazard(parameters, np.roll(streak, 1))[:, None]
    chance = (1.0 - leaves) * tables.gap_kg[:, gap].T + leaves * tables.back_g[gap][:, None]
    chance[~again] = _first_visit(parameters, day[~again])
    log_weight = np.cumsum(np.log(chance + 1e-300), axis=0)
    log_weight -= np.where(first > 0, 1, 0)[:, None] * log_weight[first - 1]
    weight = _normalised(log_weight)
    before = np.where(again[:, None], np.roll(weight, 1, axis=0), _normalised(np.log(chance)))
    return SeenVisits(
        user=user,
        day=day,
        session=session,
        frustrated=frustrated,
        streak=streak,
        number=index - first,
        gap=gap,
        weight_k=weight,
        before_k=before,
    )


def visit_hazard(parameters: ShopParameters, visits: SeenVisits) -> np.ndarray:
    """P(honest visit on the very day of each visit | none since the one before), [visits]; 1 for first visits."""
    tables = rhythm_tables(parameters)
    leaves = hazard(parameters, np.roll(visits.streak, 1))[:, None]
    gap = np.maximum(visits.gap, 1)
    now = (1.0 - leaves) * tables.gap_kg[:, gap].T + leaves * tables.back_g[gap][:, None]
    open_ = (1.0 - leaves) * tables.longer_kg[:, gap - 1].T + leaves * tables.gone_g[gap - 1][:, None]
    chance = (visits.before_k * now).sum(axis=1) / np.maximum((visits.before_k * open_).sum(axis=1), 1e-300)
    return np.where(visits.number == 0, 1.0, chance)


def _first_visit(parameters: ShopParameters, day: np.ndarray) -> np.ndarray:
    """Joint chance of a kind of rhythm and of the day of its first visit, [n, K]."""
    spread = np.ceil(np.asarray(parameters.periods))
    old = parameters.existing_share * (day[:, None] < spread) / spread
    new = (1.0 - parameters.existing_share) / parameters.days
    period = np.asarray(parameters.period_weights) / sum(parameters.period_weights)
    regularity = np.asarray(parameters.regularity_weights) / sum(parameters.regularity_weights)
    return (((old + new) * period)[:, :, None] * regularity).reshape(len(day), -1)


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)
