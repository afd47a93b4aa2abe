"""Events and requests of the shop that the serving benchmark asks.

Everybody has a full history; a third of the users went quiet sooner or later, so that labels have both values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.contract import LABEL, arrow_schema

PATHS = {"recommendation": "/recommend", "retention": "/score", "fraud": "/score"}
"""Where each task is asked."""

ITEM = "item_id"
USERS = 1_500
DAY = 86_400_000_000
SECOND = 1_000_000
_DAYS, _QUIET_DAYS = 90, 80
_TERMINALS, _CATEGORIES, _DEVICES = 300, 40, 3
_PAYMENTS = 40
_FRAUDS = 0.03
_AMOUNT_MINOR, _SPREAD = 4_000, 0.5
"""Payments are log-normal, and seldom so large that one looks suspect: each that does is given its reasons."""

_MORE = 40
_TYPES = ("view", "search", "favorite", "cart", "purchase")
_SHARES = (0.7, 0.08, 0.04, 0.12, 0.06)


def days_of_events(users: int, length: int, items: int, now: int) -> Iterator[pa.Table]:
    """Batches of contract rows over the last 90 days: of every user a full sequence, payments and their labels.

    Args:
        users: how many; user u7 pays with card k7.
        length: events that the longest sequence holds; everybody did some more than that.
        items: of the catalogue, `i0` and so on; all are as likely.
        now: microseconds UTC; the last events are a minute old.
    """
    rng = np.random.default_rng(1)
    quiet = np.where(rng.random(users) < 1 / 3, rng.integers(5 * DAY, _QUIET_DAYS * DAY, users), 60 * SECOND)
    browsing = _rows(rng, quiet, length + _MORE, now)
    n = len(browsing["user"])
    item = rng.integers(0, items, n)
    yield _table(
        event_id=[f"e{one}" for one in range(n)],
        event_type=pa.array(_TYPES).take(pa.array(rng.choice(len(_TYPES), n, p=_SHARES))),
        item_id=[f"i{one}" for one in item],
        category_id=[f"c{one % _CATEGORIES}" for one in item],
        price_minor=100 + item * 7919 % 100_000,
        session_id=[f"s{user}-{at // DAY}" for user, at in zip(browsing["user"], browsing["at"], strict=True)],
        device=[f"d{one % _DEVICES}" for one in browsing["user"]],
        **_common(browsing, 0),
    )
    paying = _rows(rng, quiet, _PAYMENTS, now)
    m = len(paying["user"])
    yield _table(
        event_id=[f"p{one}" for one in range(m)],
        event_type=["payment"] * m,
        price_minor=_amounts(rng, m),
        device=[f"d{one}" for one in rng.integers(0, _DEVICES, m)],
        card_id=[f"k{one}" for one in paying["user"]],
        terminal_id=[f"t{one}" for one in rng.integers(0, _TERMINALS, m)],
        **_common(paying, n),
    )
    fraud = np.flatnonzero((rng.random(m) < _FRAUDS) & (paying["at"] < now - 2 * DAY))
    known = paying["at"][fraud] + DAY
    yield _table(
        event_id=[f"l{one}" for one in fraud],
        event_type=[LABEL] * len(fraud),
        event_timestamp=known,
        ingested_at=known,
        source_seq=n + m + np.arange(len(fraud)),
        label_of=[f"p{one}" for one in fraud],
        label=["fraud"] * len(fraud),
        label_value=np.ones(len(fraud), np.int64),
    )


def requests(task: str, users: int, count: int, more: dict[str, Any] | None = None) -> list[bytes]:
    """Bodies of requests of known users, in an order of chance; `more` fields are in each."""
    rng = np.random.default_rng(2)
    bodies = []
    for number, user in enumerate(rng.integers(0, users, count)):
        body: dict[str, Any] = {"user_id": f"u{user}"}
        if task == "recommendation":
            body["k"] = 10
        if task == "fraud":
            body |= {
                "event_id": f"asked{number}",
                "card_id": f"k{user}",
                "terminal_id": f"t{rng.integers(0, _TERMINALS)}",
                "price_minor": int(_amounts(rng, 1)[0]),
                "device": f"d{rng.integers(0, _DEVICES)}",
            }
        bodies.append(json.dumps(body | (more or {})).encode())
    return bodies


def many_users(users: int, count: int, each: int) -> list[bytes]:
    """Bodies of requests for `each` different users at once."""
    rng = np.random.default_rng(4)
    return [
        json.dumps({"users": [f"u{one}" for one in rng.choice(users, each, replace=False)], "k": 10}).encode()
        for _ in range(count)
    ]


def _amounts(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.maximum(rng.lognormal(np.log(_AMOUNT_MINOR), _SPREAD, count).astype(np.int64), 1)


def _rows(rng: np.random.Generator, quiet: np.ndarray, each: int, now: int) -> dict[str, np.ndarray]:
    """Who did something when: `each` events of everybody between 90 days ago and when he went quiet, by time."""
    user = np.repeat(np.arange(len(quiet)), each)
    at = now - quiet[user] - (rng.random(len(user)) * (_DAYS * DAY - quiet[user])).astype(np.int64)
    order = np.argsort(at, kind="stable")
    return {"user": user[order], "at": at[order]}


def _common(rows: dict[str, np.ndarray], first: int) -> dict[str, Any]:
    return {
        "user_id": [f"u{one}" for one in rows["user"]],
        "event_timestamp": rows["at"],
        "ingested_at": rows["at"] + SECOND,
        "source_seq": first + np.arange(len(rows["at"])),
    }


def _table(**columns: Any) -> pa.Table:  # noqa: ANN401 - values of columns
    rows = len(columns["event_id"])
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in arrow_schema()
    ]
    return pa.table(arrays, schema=arrow_schema())
