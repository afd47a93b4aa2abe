"""A shop for the parity benchmark: views of every kind, and events as they come, which is in no good order.

Ties to the microsecond, copies, conflicts, events that are hours late or dated ahead of their arrival, rows that reach
the log long after they arrived, labels before what they speak of and labels that are taken back.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail import declaring as d
from clicktrail.contract import arrow_schema
from clicktrail.declarations import Declaration
from clicktrail.declaring import days, hours, minutes
from clicktrail.entity_ids import SEPARATOR

SECOND, HOUR = 1_000_000, 3_600_000_000
START = 1_770_000_000 * SECOND
USERS, ITEMS, CATEGORIES, TERMINALS = 3_000, 800, 20, 250
_GAP_SECONDS = 12
_TYPES = ("view", "cart", "purchase", "payment", "search")
_SHARES = (0.45, 0.1, 0.1, 0.25, 0.1)

RECENT = d.sequence(
    name="recent_v1",
    entity_key="user_id",
    last=50,
    within=days(30),
    fields=["item_id", "event_type", "price_minor", "event_timestamp"],
)
VISIT = d.sequence(
    name="visit_v1",
    entity_key="user_id",
    last=20,
    session=hours(6),
    drop_repeats=["item_id"],
    fields=["item_id", "category_id"],
    events=["view", "cart", "purchase"],
)
SESSION = d.sequence(name="session_v1", entity_key="user_id", last=10, session=True, fields=["event_type", "device"])
CARD = d.sequence(
    name="card_recent_v1", entity_key="card_id", last=30, events=["payment"], fields=["price_minor", "terminal_id"]
)
ACTIVITY = d.aggregates(
    name="activity_v1",
    entity_key="user_id",
    windows=[days(1), days(7)],
    aggregations=[
        d.count("view"),
        d.total("price_minor", of="purchase"),
        d.mean("price_minor", of="payment"),
        d.std("price_minor"),
        d.smallest("price_minor"),
        d.largest("price_minor", hop=hours(1)),
        d.distinct("item_id"),
        d.first("item_id"),
        d.last("category_id"),
        d.most_frequent("category_id"),
        d.top("item_id", k=3),
        d.time_since("cart"),
        d.mean_gap(),
        d.std_gap("view"),
        d.ratio(d.count("view"), window=hours(12), over=days(3)),
    ],
)
TERMINAL = d.aggregates(
    name="terminal_v1",
    entity_key="terminal_id",
    windows=[days(1), days(5)],
    aggregations=[
        d.count("payment"),
        d.total("price_minor", of="payment"),
        d.distinct("card_id", of="payment"),
        d.label_rate("fraud", of="payment", delay=days(1)),
        d.label_rate("fraud", of="payment", delay=minutes(10), hop=hours(1), windows=[days(2)], name="soon"),
    ],
)
PAIR = d.aggregates(
    name="pair_v1",
    entity_key=["user_id", "category_id"],
    windows=[days(2)],
    aggregations=[d.count(), d.total("price_minor"), d.last("item_id")],
)
SQL = d.aggregates(
    name="sql_v1",
    entity_key="item_id",
    windows=[hours(6)],
    aggregations=[d.sql("count(distinct item_id) filter (where price_minor > 500)", name="dear")],
)
VIEWS = (RECENT, VISIT, SESSION, CARD, ACTIVITY, TERMINAL, PAIR)
RARE = (SQL,)
"""Views that cost a millisecond a row: read once in a while."""


class Shop:
    """Events without end, in the order in which they reach the log."""

    def __init__(self, seed: int) -> None:
        """The same seed gives the same events."""
        self._rng = np.random.default_rng(seed)
        self._clock = START
        self._number = self._sent = 0
        self._waiting: list[tuple[int, int, dict[str, Any]]] = []
        self._users = _zipf(USERS)
        self._terminals = _zipf(TERMINALS)
        self._items = _zipf(ITEMS)

    def batch(self, rows: int) -> pa.Table:
        """So many rows that reach the log next, in contract form."""
        while len(self._waiting) < rows + 500:  # others stay under way
            self._make(rows)
        some = [heapq.heappop(self._waiting)[2] for _ in range(rows)]
        nothing = dict.fromkeys(arrow_schema().names)
        return pa.Table.from_pylist([{**nothing, **one} for one in some], schema=arrow_schema())

    def _make(self, rows: int) -> None:
        rng = self._rng
        users, items = rng.choice(USERS, rows, p=self._users), rng.choice(ITEMS, rows, p=self._items)
        terminals = rng.choice(TERMINALS, rows, p=self._terminals)
        types = rng.choice(len(_TYPES), rows, p=_SHARES)
        steps = np.where(rng.random(rows) < 0.3, 0, rng.integers(0, 2 * _GAP_SECONDS, rows))  # noqa: PLR2004 - 3 of 10
        events = self._clock + np.cumsum(steps) * SECOND
        self._clock = int(events[-1])
        late = self._lateness(rows)
        for row in range(rows):
            user, event = int(users[row]), int(events[row])
            self._number += 1
            one: dict[str, Any] = {
                "event_id": f"e{self._number}",
                "user_id": f"u{user}",
                "item_id": f"i{items[row]}",
                "category_id": f"c{items[row] % CATEGORIES}",
                "event_type": _TYPES[types[row]],
                "event_timestamp": event,
                "ingested_at": event + int(late[row]),
                "source_seq": int(rng.integers(0, 3)),
                "session_id": f"s{user}:{event // (4 * HOUR)}",
                "price_minor": None if row % 11 == 0 else int(rng.integers(0, 20)) * 100,
                "device": ("phone", "laptop", None)[user % 3],
            }
            if one["event_type"] == "payment":
                one |= {"card_id": f"k{user}", "terminal_id": f"t{terminals[row]}", "price_minor": int(late[row]) % 977}
                for label in self._labels(one):
                    self._send(label)
            self._send(one)
            if row % 83 == 0:  # sent twice, and now and then with other content
                again = {**one, "ingested_at": one["ingested_at"] + int(rng.integers(0, HOUR))}
                self._send(again | ({"price_minor": 1} if row % 5 == 0 else {}))

    def _lateness(self, rows: int) -> np.ndarray:
        """From an event to its arrival, microseconds: mostly at once, one in fifty hours late, some ahead of time."""
        rng = self._rng
        kind = rng.random(rows)
        late = np.where(kind < 0.6, 0, rng.integers(1, 5 * SECOND, rows))  # noqa: PLR2004
        late = np.where(kind > 0.98, rng.integers(0, 40 * HOUR, rows), late)  # noqa: PLR2004
        return np.where((kind > 0.95) & (kind < 0.97), -rng.integers(0, 299 * SECOND, rows), late)  # noqa: PLR2004

    def _labels(self, payment: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Perhaps what is said of a payment: minutes to days later, or before it arrives; some is taken back."""
        rng = self._rng
        known = payment["event_timestamp"]
        values = (1, 0) if rng.random() < 0.2 else (1,)  # noqa: PLR2004
        for number, value in enumerate(values if rng.random() < 0.3 else ()):  # noqa: PLR2004
            known += int(rng.choice([0, 60 * SECOND, HOUR, 30 * HOUR]) + rng.integers(0, HOUR))
            yield {
                "event_id": f"{payment['event_id']}/{number}",
                "event_type": "label",
                "event_timestamp": known,
                "ingested_at": known,
                "source_seq": number,
                "label_of": payment["event_id"],
                "label": "fraud",
                "label_value": value,
            }

    def _send(self, one: dict[str, Any]) -> None:
        """On its way to the log: there when it arrives, one in thirty up to two hours later."""
        rng = self._rng
        there = one["ingested_at"] + (int(rng.integers(0, 2 * HOUR)) if rng.random() < 1 / 30 else 0)
        self._sent += 1  # decides between equals, since rows can't be compared
        heapq.heappush(self._waiting, (there, self._sent, one))


def keys(view: Declaration, rng: np.random.Generator, n: int) -> list[str | None]:
    """Entities to read: well-known ones and others alike, some that nobody knows, nobody at all."""
    numbers = {
        "user_id": [f"u{one}" for one in rng.integers(0, USERS, n)],
        "card_id": [f"k{one}" for one in rng.integers(0, USERS, n)],
        "terminal_id": [f"t{one}" for one in rng.integers(0, TERMINALS, n)],
        "item_id": [f"i{one}" for one in rng.integers(0, ITEMS, n)],
        "category_id": [f"c{one}" for one in rng.integers(0, CATEGORIES, n)],
    }
    parts = zip(*(numbers[key] for key in view.entity_keys), strict=True)
    found: list[str | None] = [SEPARATOR.join(one) for one in parts]
    found[int(rng.integers(0, n))] = "nobody"
    if rng.random() < 0.1:  # noqa: PLR2004
        found[int(rng.integers(0, n))] = None
    return found


def _zipf(n: int) -> np.ndarray:
    weight = 1 / np.arange(1, n + 1)
    return weight / weight.sum()
