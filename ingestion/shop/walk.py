"""Items for every row of every visit: all users walk at once, one look each a round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ingestion.shop import moves
from ingestion.shop.catalogue import COMPLEMENT_SHARES, Catalogue
from ingestion.shop.moves import Looks
from ingestion.shop.parameters import ShopParameters
from ingestion.shop.rhythm import Users
from ingestion.shop.scripts import TAKEOVER, Chain, Sessions

MOST_SEARCHES = 2
_FIRST_COMPLEMENT = float(COMPLEMENT_SHARES[0])


def pick(chances_nk: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column a row, drawn by the row's chances, [n]."""
    cumulative = np.cumsum(chances_nk, axis=1)
    draw = rng.random(len(chances_nk)) * cumulative[:, -1]
    return np.minimum((draw[:, None] >= cumulative).sum(axis=1), chances_nk.shape[1] - 1)


def fresh_slots(
    catalogue: Catalogue, band: np.ndarray, day: np.ndarray, category: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A fresh look into a category, by price band, popularity and launches, [n]."""
    return pick(catalogue.fresh_bdcj[band, day, category], rng)


def searched_categories(
    parameters: ShopParameters,
    catalogue: Catalogue,
    taste: np.ndarray,
    last_category: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """What is searched for: a complement of the last item, or what the user likes, [n]."""
    liked = pick(catalogue.taste_zc[taste], rng)
    which = (rng.random(len(taste)) >= _FIRST_COMPLEMENT).astype(np.int64)
    goes_with = catalogue.complements_c2[np.maximum(last_category, 0), which]
    for_complement = rng.random(len(taste)) < moves.search_chances(parameters, last_category)
    return np.where(for_complement, goes_with, liked)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What the walk chose: item of each row, categories of the searches before it, [rows] and [rows, 2]."""

    item: np.ndarray
    searched: np.ndarray


def walk(
    parameters: ShopParameters,
    catalogue: Catalogue,
    users: Users,
    sessions: Sessions,
    chain: Chain,
    pushed: np.ndarray,
    rng: np.random.Generator,
) -> Walk:
    """Choose the item of every row. `pushed` [sessions]: the item that a fake order names, else -1."""
    slots = catalogue.slots
    session = chain.session
    user = sessions.user[session]
    day = sessions.day[session]
    first = chain.index == 0
    gap, bought = _visit_before(sessions)
    forced = _forced(catalogue, users, sessions, chain, pushed, rng)
    cart_before = np.concatenate([[False], chain.cart[:-1]]) & ~first

    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    ordinal = np.arange(len(user)) - np.repeat(starts, np.diff(np.append(starts, len(user))))
    by_round = np.argsort(ordinal, kind="stable")
    bounds = np.searchsorted(ordinal[by_round], np.arange(ordinal.max() + 2))

    item = np.full(len(user), -1)
    searched = np.full((len(user), MOST_SEARCHES), -1)
    last = np.full(len(users), -1)
    other = np.full(len(users), -1)
    run = np.zeros(len(users), dtype=np.int64)
    up = np.zeros(len(users), dtype=bool)
    for number in tqdm(range(len(bounds) - 1), desc="shop: looks", leave=False, disable=None):
        rows = by_round[bounds[number] : bounds[number + 1]]
        who = user[rows]
        last_category = np.where(last[who] >= 0, last[who] // slots, -1)
        for column in range(MOST_SEARCHES):
            asks = np.flatnonzero(chain.searches[rows] > column)
            searched[rows[asks], column] = searched_categories(
                parameters, catalogue, users.taste[who[asks]], last_category[asks], rng
            )
        named = forced[rows] >= 0
        searched[rows[named], 0] = forced[rows[named]] // slots
        looks = Looks(
            last=last[who],
            run=run[who],
            up=up[who],
            other=np.where(first[rows], -1, other[who]),
            first=first[rows],
            gap=gap[session[rows]],
            bought=bought[session[rows]],
            cart=cart_before[rows],
            searched=np.where(chain.searches[rows] > 1, searched[rows, 1], searched[rows, 0]),
            day=day[rows],
        )
        chosen = _choose(parameters, catalogue, users, who, looks, rng)
        chosen = np.where(named, forced[rows], chosen)
        item[rows] = chosen
        same = (chosen // slots == last_category) & ~looks.first
        run[who] = np.where(same, run[who] + 1, 1)
        up[who] = chosen > last[who]
        other[who] = np.where(same, looks.other, np.where(looks.first, -1, last[who]))
        last[who] = chosen
    return Walk(item=item, searched=searched)


def _choose(
    parameters: ShopParameters,
    catalogue: Catalogue,
    users: Users,
    who: np.ndarray,
    looks: Looks,
    rng: np.random.Generator,
) -> np.ndarray:
    """One item a look, [n]."""
    slots = catalogue.slots
    move = pick(moves.move_weights(parameters, looks), rng)
    band = users.band[who]
    goes_up = rng.random(len(who)) < moves.up_chance(parameters, looks)[np.arange(len(who)), band]
    item = np.full(len(who), -1)

    rows = np.flatnonzero(move == moves.STAY)
    slot = pick(moves.step_rows(parameters, catalogue, looks, rows, goes_up[rows]), rng)
    item[rows] = looks.last[rows] // slots * slots + slot

    rows = np.flatnonzero(move == moves.COMPLEMENT)
    which = (rng.random(len(rows)) >= _FIRST_COMPLEMENT).astype(np.int64)
    category, chances = moves.complement_rows(parameters, catalogue, looks, rows, which)
    item[rows] = category * slots + pick(chances, rng)

    rows = np.flatnonzero(move == moves.BACK)
    item[rows] = looks.other[rows] // slots * slots + pick(moves.back_rows(parameters, catalogue, looks, rows), rng)

    rows = np.flatnonzero((move == moves.TASTE) | (move == moves.SEARCHED))
    category = np.where(
        move[rows] == moves.SEARCHED, looks.searched[rows], pick(catalogue.taste_zc[users.taste[who[rows]]], rng)
    )
    item[rows] = category * slots + fresh_slots(catalogue, band[rows], looks.day[rows], category, rng)
    return item


def _forced(
    catalogue: Catalogue,
    users: Users,
    sessions: Sessions,
    chain: Chain,
    pushed: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Items that are named before the walk: of direct orders and of fake ones, [rows]; else -1."""
    forced = np.where(chain.index == 0, pushed[chain.session], -1)
    rows = np.flatnonzero(chain.direct)
    session = chain.session[rows]
    user = sessions.user[session]
    category = pick(catalogue.taste_zc[users.taste[user]], rng)
    slot = fresh_slots(catalogue, users.band[user], sessions.day[session], category, rng)
    weights = catalogue.thief_weights()
    stolen = rng.choice(len(weights), len(rows), p=weights)
    forced[rows] = np.where(sessions.kind[session] == TAKEOVER, stolen, category * catalogue.slots + slot)
    return forced


def _visit_before(sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """Days since the user's visit before (large for the first) and whether it bought, [sessions]."""
    again = np.concatenate([[False], sessions.user[1:] == sessions.user[:-1]])
    gap = np.where(again, sessions.day - np.roll(sessions.day, 1), 10_000)
    return gap, again & np.roll(sessions.buys, 1)
