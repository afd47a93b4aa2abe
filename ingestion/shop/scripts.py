"""What happens in a visit, before any item is chosen: how many looks, searches, carts, an order, small payments.

A visit is a chain of rows. A row is a look (a view event), or the cart of a direct order, which names an item without
a view. Searches come before a row, a favourite and a cart after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ingestion.shop.parameters import ShopParameters
from ingestion.shop.rhythm import Visits

HONEST, TAKEOVER, TESTING, FAKE = range(4)
"""What kind of visit it is."""

MOST_VIEWS, RING_VIEWS = 16, 3
SECOND_SEARCH = 0.25
AT_NOON, EARLIEST_HOUR, LATEST_HOUR = 0.35, 5.0, 21.5
FEWEST_PAYMENTS, MORE_PAYMENTS, LONGEST_BURST = 4, 2.0, 9


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Visits with their plan, ordered by (user, day): arrays of [sessions]. Starts are seconds of the day."""

    user: np.ndarray
    day: np.ndarray
    start: np.ndarray
    kind: np.ndarray
    frustrated: np.ndarray
    views: np.ndarray
    buys: np.ndarray
    direct: np.ndarray
    payments: np.ndarray
    """Small payments at the end."""
    big: np.ndarray
    """The last of them is big."""
    ring: np.ndarray
    """Number of the ring of fake orders, -1 for none."""

    def __len__(self) -> int:
        """How many sessions."""
        return len(self.user)

    def take(self, index: np.ndarray) -> Sessions:
        """These sessions, in this order."""
        return replace(self, **{name: values[index] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Rows of all visits in the order of (user, day, row): arrays of [rows]."""

    session: np.ndarray
    index: np.ndarray
    """Row number within its session."""
    searches: np.ndarray
    favourite: np.ndarray
    cart: np.ndarray
    direct: np.ndarray

    def __len__(self) -> int:
        """How many rows."""
        return len(self.session)


def burst_length(rng: np.random.Generator, count: int) -> np.ndarray:
    """Small payments of a burst, honest or not, [count]."""
    return np.minimum(FEWEST_PAYMENTS + rng.poisson(MORE_PAYMENTS, count), LONGEST_BURST)


def burst_lengths() -> np.ndarray:
    """P(a burst has n payments), n from 0."""
    chances = np.zeros(LONGEST_BURST + 1)
    for more in range(40):
        chance = math.exp(-MORE_PAYMENTS + more * math.log(MORE_PAYMENTS) - math.lgamma(more + 1))
        chances[min(FEWEST_PAYMENTS + more, LONGEST_BURST)] += chance
    return chances


def look_count(parameters: ShopParameters, rng: np.random.Generator, count: int) -> np.ndarray:
    """Views of a visit, honest or not, [count]."""
    more = rng.geometric(1.0 / max(parameters.views_mean, 1.01), count) - 1
    return np.minimum(1 + more, MOST_VIEWS)


def time_of_day(rng: np.random.Generator, count: int) -> np.ndarray:
    """Starts in seconds of the day, around noon and in the evening; never so late that a visit passes midnight."""
    hours = np.where(rng.random(count) < AT_NOON, rng.normal(12.0, 2.0, count), rng.normal(18.5, 2.2, count))
    outside = (hours < EARLIEST_HOUR) | (hours > LATEST_HOUR)
    hours[outside] = rng.uniform(8.0, LATEST_HOUR, int(outside.sum()))
    return hours * 3600.0


def plan_honest(parameters: ShopParameters, visits: Visits, rng: np.random.Generator) -> Sessions:
    """The plan of every honest visit."""
    count = len(visits)
    buys = ~visits.frustrated & (rng.random(count) < parameters.buy)
    tops_up = ~visits.frustrated & ~buys & (rng.random(count) < parameters.topup / (1.0 - parameters.buy))
    return Sessions(
        user=visits.user,
        day=visits.day,
        start=time_of_day(rng, count),
        kind=np.full(count, HONEST),
        frustrated=visits.frustrated,
        views=look_count(parameters, rng, count),
        buys=buys,
        direct=buys & (rng.random(count) < parameters.direct),
        payments=np.where(tops_up, burst_length(rng, count), 0),
        big=tops_up & (rng.random(count) < parameters.topup_big),
        ring=np.full(count, -1),
    )


def make_chain(parameters: ShopParameters, sessions: Sessions, rng: np.random.Generator) -> Chain:
    """Rows of every visit, still without items."""
    lengths = sessions.views + sessions.direct
    session = np.repeat(np.arange(len(sessions)), lengths)
    starts = np.cumsum(lengths) - lengths
    index = np.arange(len(session)) - starts[session]
    count = len(session)
    direct = sessions.direct[session] & (index == 0)
    chance = np.where(index == 0, parameters.search_first, parameters.search_next)
    searches = (rng.random(count) < chance) * (1 + (rng.random(count) < SECOND_SEARCH))
    searches = np.where(direct | (sessions.ring[session] >= 0) & (index == 0), 1, searches)

    buys = sessions.buys[session]
    chosen = starts + (rng.random(len(sessions)) * lengths).astype(np.int64)
    chosen = np.where(sessions.direct | (sessions.kind == FAKE), starts, chosen)
    cart = rng.random(count) < np.where(buys, parameters.second_cart / sessions.views[session], parameters.stray_cart)
    cart[chosen[sessions.buys]] = True
    return Chain(
        session=session,
        index=index,
        searches=searches,
        favourite=(rng.random(count) < parameters.favourite) & ~direct,
        cart=cart,
        direct=direct,
    )
