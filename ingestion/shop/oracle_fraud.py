"""The fraud oracle: P(fraud) of each payment by the likelihood ratio of the processes that make payments.

Observable are the visit so far, the devices and days of the visits before, and who paid at the same terminal. Small
payments are weighed as card testing against top-up, orders as takeover (direct ones) or fake (a first visit) against
honest. Approximations: that the last payment of a burst was the big one is not carried on to the next; the devices of
a user are guessed from how many were seen; rates of visits are their long-run means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingestion.shop import fraud
from ingestion.shop.assembly import (
    CODE,
    DEVICES,
    LOCKER,
    LOCKERS,
    SECOND_DEVICE,
    SHARED_HOME,
    THIEF_LOCKER,
    USE_SECOND_DEVICE,
    Events,
)
from ingestion.shop.catalogue import Catalogue
from ingestion.shop.oracle_recommendation import Evidence, legit_direct_chance
from ingestion.shop.oracle_visits import SeenVisits, visit_hazard
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters
from ingestion.shop.scripts import RING_VIEWS, burst_lengths

THIEF_DAYS = 7
"""A takeover or a test follows an honest visit within so many days."""


@dataclass(frozen=True, kw_only=True)
class Payments:
    """What is observable of each payment, arrays of [payments] in the order of time.

    `visit` its row in `SeenVisits`; `index` small payments before it in the visit; `direct` row of the evidence that
    names the item of a direct order, else -1; `views` and `cart_first` of the visit so far.
    """

    event: np.ndarray
    visit: np.ndarray
    index: np.ndarray
    digital: np.ndarray
    direct: np.ndarray
    views: np.ndarray
    cart_first: np.ndarray


def fraud_truth(
    parameters: ShopParameters,
    catalogue: Catalogue,
    events: Events,
    visits: SeenVisits,
    evidence: Evidence,
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the clean events, P(fraud)) of every payment."""
    payments = _observe(events, visits, evidence)
    odds = np.zeros(len(payments.event))
    unusual = _out_of_rhythm(parameters, visits)[payments.visit]
    small = payments.digital
    odds[small] = _testing_odds(parameters, events, payments)[small] * unusual[small]
    odds[~small] += (_takeover_odds(parameters, catalogue, events, visits, evidence, payments) * unusual)[~small]
    odds[~small] += _fake_odds(parameters, events, visits, payments)[~small]
    return payments.event, odds / (1.0 + odds)


def _observe(events: Events, visits: SeenVisits, evidence: Evidence) -> Payments:
    rows = np.flatnonzero(events.type == CODE["payment"])
    session = events.session[rows]
    order = np.argsort(visits.session)
    visit = order[np.searchsorted(visits.session[order], session)]
    size = int(events.session.max()) + 1
    has_order = np.zeros(size, dtype=bool)
    has_order[events.session[events.type == CODE["checkout"]]] = True

    by_visit = np.lexsort((events.time[rows], session))
    sorted_session = session[by_visit]
    begins = np.searchsorted(sorted_session, sorted_session)
    index = np.empty(len(rows), dtype=np.int64)
    index[by_visit] = np.arange(len(rows)) - begins

    direct = np.full(size, -1)
    carts = np.flatnonzero(events.type[evidence.event] == CODE["cart"])
    direct[events.session[evidence.event[carts]]] = carts
    views = np.bincount(events.session[events.type == CODE["view"]], minlength=size)

    steps = np.flatnonzero(np.isin(events.type, (CODE["view"], CODE["cart"], CODE["favorite"])))
    steps = steps[np.lexsort((events.time[steps], events.session[steps]))]
    place = np.arange(len(steps)) - np.searchsorted(events.session[steps], events.session[steps])
    is_cart = events.type[steps] == CODE["cart"]
    is_favourite = events.type[steps] == CODE["favorite"]
    early = is_cart & ((place == 1) | ((place == 1 + 1) & np.roll(is_favourite, 1)))
    cart_first = np.zeros(size, dtype=bool)
    cart_first[events.session[steps[early]]] = True
    return Payments(
        event=rows,
        visit=visit,
        index=index,
        digital=~has_order[session],
        direct=direct[session],
        views=views[session],
        cart_first=cart_first[session],
    )


def _out_of_rhythm(parameters: ShopParameters, visits: SeenVisits) -> np.ndarray:
    """Rate of a thief's visit on this day for every honest visit's rate of 1, as a factor on the rates, [visits]."""
    soon = (visits.gap >= 1) & (visits.gap <= THIEF_DAYS) & (visits.number > 1)
    chance = np.where(soon, 1.0, parameters.late_visits)  # the honest visit before may have arrived late
    return chance / THIEF_DAYS / np.maximum(visit_hazard(parameters, visits), 1e-6)


def _calm(parameters: ShopParameters) -> float:
    """Long-run share of visits without frustration."""
    return 1.0 - parameters.frustration / (1.0 + parameters.frustration - parameters.frustration_again)


def _testing_odds(parameters: ShopParameters, events: Events, payments: Payments) -> np.ndarray:
    order = np.lexsort((payments.index, events.session[payments.event]))
    rows = payments.event[order]
    index = payments.index[order]
    amount = np.log(events.price[rows].astype(np.float64))
    time = events.time[rows] / MICROSECONDS
    before = np.roll(amount, 1)
    gap = np.log(np.maximum(time - np.roll(time, 1), 1.0))
    amount_mean, amount_spread, gap_mean, gap_spread = fraud.pooled(parameters)

    noise = parameters.ladder_noise
    ladder = np.where(
        index == 0,
        _normal(amount, float(fraud.LOG_FIRST_AMOUNT), fraud.SPREAD_FIRST_AMOUNT),
        _normal(amount, before + parameters.ladder_step, noise),
    )
    big = _normal(amount, float(fraud.LOG_BIG_AMOUNT), fraud.SPREAD_BIG_AMOUNT)
    lengths = burst_lengths()
    at_least = np.cumsum(lengths[::-1])[::-1]
    number = np.minimum(index + 1, len(lengths) - 1)
    ends = lengths[number] / np.maximum(at_least[number], 1e-12)
    testing = (1 - ends * parameters.testing_big) * ladder + ends * parameters.testing_big * big
    honest = _normal(amount, amount_mean, amount_spread)
    honest = (1 - ends * parameters.topup_big) * honest + ends * parameters.topup_big * big
    hurry = np.where(
        index == 1,
        _normal(gap, float(fraud.LOG_FIRST_GAP), fraud.SPREAD_FIRST_GAP),
        _normal(gap, np.roll(gap, 1) - parameters.ladder_hurry, noise),
    )
    steady = _normal(gap, gap_mean, gap_spread)
    ratio = np.log(testing + 1e-30) - np.log(honest + 1e-30)
    ratio += np.where(index > 0, np.log(hurry + 1e-30) - np.log(steady + 1e-30), 0.0)

    total = np.cumsum(ratio)
    start = np.maximum.accumulate(np.where(index == 0, np.arange(len(index)), 0))
    total = total - total[start] + ratio[start]
    odds = np.empty(len(order))
    odds[order] = parameters.card_testing / (_calm(parameters) * parameters.topup) * np.exp(np.clip(total, -50, 50))
    return odds


def _takeover_odds(
    parameters: ShopParameters,
    catalogue: Catalogue,
    events: Events,
    visits: SeenVisits,
    evidence: Evidence,
    payments: Payments,
) -> np.ndarray:
    row = np.maximum(payments.direct, 0)
    item = np.maximum(events.item[evidence.event[row]], 0)
    thief = catalogue.thief_weights()[item]
    honest = legit_direct_chance(catalogue, evidence.before_zb[row], evidence.looks.day[row], item)
    strange, usual = _device_chances(parameters, events, visits)
    locker = events.terminal[payments.event] < LOCKERS
    place = np.where(locker, THIEF_LOCKER / LOCKER, (1 - THIEF_LOCKER) / (1 - LOCKER))
    prior = parameters.takeover / (_calm(parameters) * parameters.buy * parameters.direct)
    odds = prior * place * thief / np.maximum(honest, 1e-12) * (strange / usual)[payments.visit]
    return np.where(payments.direct >= 0, odds, 0.0)


def _device_chances(parameters: ShopParameters, events: Events, visits: SeenVisits) -> tuple[np.ndarray, np.ndarray]:
    """P(this device | takeover), P(this device | honest) of each visit, by the devices of the user's visits before."""
    device_of = np.zeros(int(events.session.max()) + 1, dtype=np.int64)
    device_of[events.session[events.session >= 0]] = events.device[events.session >= 0]
    device = device_of[visits.session]
    counts = np.zeros((len(device), DEVICES), dtype=np.int32)
    counts[np.arange(len(device)), device] = 1
    running = np.cumsum(counts, axis=0) - counts
    start = np.arange(len(device)) - visits.number
    running -= running[start]
    seen = running[np.arange(len(device)), device]
    kinds = (running > 0).sum(axis=1)
    number = visits.number

    one_device = SECOND_DEVICE * (1 - USE_SECOND_DEVICE) ** number
    hidden = one_device / (one_device + (1 - SECOND_DEVICE))
    hidden = np.where(kinds > 1, 0.15 * hidden, hidden)
    own = np.where(
        seen > 0,
        np.where(2 * seen >= number, 1 - USE_SECOND_DEVICE / 2, np.maximum(seen / np.maximum(number, 1), 0.05)),
        hidden * USE_SECOND_DEVICE / DEVICES,
    )
    own = np.where(number == 0, 1.0 / DEVICES, own)
    usual = parameters.traveller / DEVICES + (1 - parameters.traveller) * own
    strange = parameters.new_device / DEVICES + (1 - parameters.new_device) * own
    return strange, usual


def _fake_odds(parameters: ShopParameters, events: Events, visits: SeenVisits, payments: Payments) -> np.ndarray:
    """Odds that a first order is one of a ring: a short, straight visit; others pay at the same address that week."""
    day = visits.day[payments.visit]
    spread = np.ceil(np.asarray(parameters.periods))
    weights = np.asarray(parameters.period_weights) / sum(parameters.period_weights)
    old = (weights * (day[:, None] < spread) / spread).sum(axis=1) * parameters.existing_share
    first_visits = old + (1 - parameters.existing_share) / parameters.days
    people = len(np.unique(visits.user))
    accounts = parameters.fake_rings * len(visits.user) * float(np.mean(fraud.RING_SIZES))
    prior = accounts / parameters.days / (people * first_visits * _calm(parameters) * parameters.buy)

    views = np.maximum(payments.views, 1)
    more = 1.0 - 1.0 / parameters.views_mean
    length = (1 - more) * more ** (views - 1)
    ring_length = np.where(views < RING_VIEWS, length, more ** (RING_VIEWS - 1))
    path = ring_length / length * views / parameters.search_first
    odds = prior * path * _terminal_ratio(events, payments)
    straight = payments.cart_first & (views <= RING_VIEWS) & (payments.direct < 0)
    return np.where(straight & (visits.number[payments.visit] == 0), odds, 0.0)


def _terminal_ratio(events: Events, payments: Payments) -> np.ndarray:
    """How much likelier a ring than an honest first order sees this many others pay at its terminal before."""
    terminal, user = events.terminal[payments.event], events.user[payments.event]
    order = np.lexsort((events.time[payments.event], terminal))
    t, u = terminal[order], user[order]
    time = events.time[payments.event][order]
    strangers = np.concatenate([[False], (t[1:] == t[:-1]) & (u[1:] != u[:-1])])
    near = np.concatenate([[False], np.diff(time) < fraud.RING_DAYS * DAY * MICROSECONDS])
    crowded = np.empty(len(order), dtype=bool)
    crowded[order] = strangers & near
    size = float(np.mean(fraud.RING_SIZES))
    home = 1 - LOCKER
    ratio = np.where(crowded, (1 - 1 / size) / (home * SHARED_HOME * 0.1), (1 / size) / home)
    return np.where(terminal < LOCKERS, 0.0, ratio)


def _normal(value: np.ndarray, mean: np.ndarray | float, spread: float) -> np.ndarray:
    return np.exp(-0.5 * ((value - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
