"""From planned visits to clean events: one row an event, with times, devices, cards, terminals and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clicktrail.contract import EVENT_TYPES
from ingestion.shop.catalogue import Catalogue
from ingestion.shop.fraud import draw_bursts
from ingestion.shop.parameters import DAY, MICROSECONDS, ShopParameters
from ingestion.shop.rhythm import Users
from ingestion.shop.scripts import HONEST, TAKEOVER, Chain, Sessions
from ingestion.shop.walk import Walk, searched_categories

CODE = {name: code for code, name in enumerate(EVENT_TYPES)}

DEVICES = 24
LOCKERS = 60
MERCHANTS = 40
"""Where small payments go: games, telephone credit, transport."""

SECOND_DEVICE, USE_SECOND_DEVICE = 0.5, 0.3
SECOND_CARD, USE_SECOND_CARD = 0.25, 0.2
SHARED_HOME = 0.15
LOCKER, THIEF_LOCKER = 0.3, 0.8
"""Orders sent to a parcel locker: of honest people, of takeovers. All others go to the user's home."""

LOGIN = 0.55
"""Share of visits with a login among those that pay nothing."""

MOST_GIVEN_UP, THIRD_SEARCH = 3, 0.5
"""A frustrated visit ends in two searches, or three."""

LABEL_DAYS = (1.0, 6.5)
"""A chargeback becomes known so many days after the payment, evenly."""

LOG_PAUSE, SPREAD_PAUSE = np.log(22.0), 0.8
SHORTEST_PAUSE, LONGEST_PAUSE = 4.0, 600.0
"""Seconds between events of a visit. The shortest is longer than a prompt arrival takes."""

PROMPT_DELAY = (0.3, 3.5)
"""Seconds from an event to its arrival when nothing goes wrong."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """Clean events ordered by time: arrays of [events], int64; -1 is null. Times in microseconds.

    `type` indexes EVENT_TYPES. `label_of` is the row of the payment that a label speaks of.
    """

    user: np.ndarray
    item: np.ndarray
    category: np.ndarray
    type: np.ndarray
    time: np.ndarray
    session: np.ndarray
    price: np.ndarray
    device: np.ndarray
    channel: np.ndarray
    card: np.ndarray
    terminal: np.ndarray
    label_of: np.ndarray
    kind: np.ndarray
    """Truth: HONEST, TAKEOVER, TESTING or FAKE; never leaves the simulator."""

    def __len__(self) -> int:
        """How many events."""
        return len(self.user)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Devices, cards and terminals of the sessions, arrays of [sessions]; numbers of terminals are apart by kind."""

    device: np.ndarray
    channel: np.ndarray
    card: np.ndarray
    terminal: np.ndarray


def draw_places(
    parameters: ShopParameters, sessions: Sessions, users: int, honest_users: int, rng: np.random.Generator
) -> Places:
    """Where every session happens, on what, and who pays how. Terminals: lockers, then merchants, then homes."""
    count, user = len(sessions), sessions.user
    own = rng.integers(0, DEVICES, users)
    second = np.where(rng.random(users) < SECOND_DEVICE, rng.integers(0, DEVICES, users), own)
    device = np.where(rng.random(count) < USE_SECOND_DEVICE, second[user], own[user])
    strange = rng.random(count) < np.where(sessions.kind == TAKEOVER, parameters.new_device, parameters.traveller)
    device = np.where(strange, rng.integers(0, DEVICES, count), device)
    has_second_card = rng.random(users) < SECOND_CARD
    other_card = has_second_card[user] & (rng.random(count) < USE_SECOND_CARD)

    home = np.arange(users)
    shares = np.flatnonzero(rng.random(users) < SHARED_HOME)
    shares = shares[shares < honest_users]
    home[shares] = rng.integers(0, honest_users, len(shares))
    locker_rank = rng.zipf(1.6, count) % LOCKERS
    to_locker = rng.random(count) < np.where(sessions.kind == TAKEOVER, THIEF_LOCKER, LOCKER)
    terminal = np.where(to_locker, locker_rank, LOCKERS + MERCHANTS + home[user])
    terminal = np.where(sessions.ring >= 0, LOCKERS + MERCHANTS + users + sessions.ring, terminal)
    return Places(
        device=device,
        channel=(device >= DEVICES // 2).astype(np.int64),
        card=np.where(other_card, users + user, user),
        terminal=terminal,
    )


def assemble(
    parameters: ShopParameters,
    catalogue: Catalogue,
    users: Users,
    honest_users: int,
    sessions: Sessions,
    chain: Chain,
    chosen: Walk,
    rng: np.random.Generator,
) -> Events:
    """All clean events of the shop, labels among them. Labels may lie past the last day."""
    slots = catalogue.slots
    pieces: list[tuple[np.ndarray, ...]] = []

    def add(
        session: np.ndarray, step: np.ndarray | int, sub: np.ndarray | int, kind: str, **values: np.ndarray
    ) -> None:
        count = len(session)
        none = np.full(count, -1)
        pieces.append(
            (
                session,
                np.broadcast_to(step, count),
                np.broadcast_to(sub, count),
                np.full(count, CODE[kind]),
                values.get("item", none),
                values.get("category", none),
                values.get("price", none),
                values.get("pause", np.full(count, np.nan)),
            )
        )

    every = np.arange(len(sessions))
    paying = sessions.buys | (sessions.payments > 0)
    add(every[paying | (rng.random(len(every)) < LOGIN)], -2, 0, "login")
    last_purchase = _last_purchase(sessions, chain, chosen)
    returning = every[(last_purchase >= 0) & (rng.random(len(every)) < parameters.returns) & (sessions.kind == HONEST)]
    add(returning, -1, 0, "return", **_of(catalogue, last_purchase[returning]))

    for column in range(chosen.searched.shape[1]):
        rows = np.flatnonzero(chosen.searched[:, column] >= 0)
        add(chain.session[rows], chain.index[rows], column, "search", category=chosen.searched[rows, column])
    for flag, sub, name in ((~chain.direct, 2, "view"), (chain.favourite, 3, "favorite"), (chain.cart, 4, "cart")):
        rows = np.flatnonzero(flag)
        add(chain.session[rows], chain.index[rows], sub, name, **_of(catalogue, chosen.item[rows]))

    final = chosen.item[np.cumsum(sessions.views + sessions.direct) - 1]
    for number in range(MOST_GIVEN_UP):
        asks_again = (rng.random(len(every)) < THIRD_SEARCH) | (number < MOST_GIVEN_UP - 1)
        given_up = every[sessions.frustrated & asks_again]
        category = searched_categories(
            parameters, catalogue, users.taste[sessions.user[given_up]], final[given_up] // slots, rng
        )
        add(given_up, 100, number, "search", category=category)

    rows = np.flatnonzero(chain.cart & sessions.buys[chain.session])
    total = np.bincount(chain.session[rows], catalogue.price[chosen.item[rows]], len(sessions)).astype(np.int64)
    buying = every[sessions.buys]
    add(buying, 101, 0, "checkout", price=total[buying])
    add(buying, 101, 1, "payment", price=total[buying])
    add(chain.session[rows], 102, chain.index[rows], "purchase", **_of(catalogue, chosen.item[rows]))
    burst_session, burst_index, amount, pause = draw_bursts(parameters, sessions, rng)
    add(burst_session, 103, burst_index, "payment", price=amount, pause=pause)

    session, steps, subs, kind, item, category, price, pause = (
        np.concatenate(column) for column in zip(*pieces, strict=True)
    )
    order = np.lexsort((subs, steps, session))
    session, kind, item, category, price, pause = (
        values[order] for values in (session, kind, item, category, price, pause)
    )
    drawn = np.clip(np.exp(rng.normal(LOG_PAUSE, SPREAD_PAUSE, len(pause))), SHORTEST_PAUSE, LONGEST_PAUSE)
    pause = np.where(np.isnan(pause), drawn, pause)
    pause = np.where(kind == CODE["purchase"], SHORTEST_PAUSE + 1.0, pause)
    elapsed = np.cumsum(pause)
    begins = np.concatenate([[True], session[1:] != session[:-1]])
    elapsed -= np.repeat(elapsed[begins], np.diff(np.append(np.flatnonzero(begins), len(session))))
    seconds = sessions.day[session] * DAY + sessions.start[session] + elapsed
    time = parameters.start_us + (seconds * MICROSECONDS).astype(np.int64)

    places = draw_places(parameters, sessions, len(users), honest_users, rng)
    pays = kind == CODE["payment"]
    digital = pays & (sessions.payments[session] > 0)
    terminal = np.where(digital, LOCKERS + rng.integers(0, MERCHANTS, len(session)), places.terminal[session])
    clean = Events(
        user=sessions.user[session],
        item=item,
        category=category,
        type=kind,
        time=time,
        session=session,
        price=price,
        device=places.device[session],
        channel=places.channel[session],
        card=np.where(pays, places.card[session], -1),
        terminal=np.where(pays, terminal, -1),
        label_of=np.full(len(session), -1),
        kind=sessions.kind[session],
    )
    return _with_labels(_take(clean, np.argsort(clean.time, kind="stable")), rng)


def _of(catalogue: Catalogue, item: np.ndarray) -> dict[str, np.ndarray]:
    return {"item": item, "category": item // catalogue.slots, "price": catalogue.price[item]}


def _last_purchase(sessions: Sessions, chain: Chain, chosen: Walk) -> np.ndarray:
    """The item last bought by the user before each session, -1 for none, [sessions]."""
    rows = np.flatnonzero(chain.cart & sessions.buys[chain.session])
    bought = np.full(len(sessions), -1)
    bought[chain.session[rows]] = chosen.item[rows]
    buyer = np.where(bought >= 0, np.arange(len(sessions)), -1)
    latest = np.concatenate([[-1], np.maximum.accumulate(buyer)[:-1]])
    same = (latest >= 0) & (sessions.user[np.maximum(latest, 0)] == sessions.user)
    return np.where(same, bought[np.maximum(latest, 0)], -1)


def _with_labels(events: Events, rng: np.random.Generator) -> Events:
    """Chargebacks as events of their own, put in by the time they became known."""
    payments = np.flatnonzero((events.type == CODE["payment"]) & (events.kind != HONEST))
    known = events.time[payments] + (rng.uniform(*LABEL_DAYS, len(payments)) * DAY * MICROSECONDS).astype(np.int64)
    none = np.full(len(payments), -1)
    columns: dict[str, np.ndarray] = dict.fromkeys(vars(events), none)
    columns |= {"user": events.user[payments], "card": events.card[payments], "terminal": events.terminal[payments]}
    columns |= {
        "time": known,
        "type": np.full(len(payments), CODE["label"]),
        "label_of": payments,
        "kind": events.kind[payments],
    }
    merged = {name: np.concatenate([values, columns[name]]) for name, values in vars(events).items()}
    order = np.argsort(merged["time"], kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    merged["label_of"] = np.where(merged["label_of"] >= 0, position[np.maximum(merged["label_of"], 0)], -1)
    return _take(Events(**merged), order)


def _take(events: Events, index: np.ndarray) -> Events:
    return Events(**{name: values[index] for name, values in vars(events).items()})
