"""What each service takes and answers: one table a task, from the event contract where it speaks of an event.

The tables decide alone: requests are validated by them (serving/schema.py) and the OpenAPI description is made of
them (serving/openapi.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, LABEL, Column
from serving.schema import Field, Kind

MAX_K = 1000

MAX_USERS = 256

MAX_ITEMS = 25_600
"""Of a request about many users: users times k."""

MAX_DIVERSE = 2_560
"""The same with diversity, which takes its time for each item."""

MAX_DIVERSE_K = 200


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Path and fields of a request; `answer`: JSON schema of what an answer says beside what all answers say."""

    path: str
    summary: str
    fields: tuple[Field, ...]
    answer: Mapping[str, Any]


_FILTERS: tuple[Field, ...] = (
    Field(name="allow", kind="texts", meaning="item_ids: no others; those that nobody knows are no error", most=1000),
    Field(name="deny", kind="texts", meaning="item_ids: none of these", most=1000),
    Field(name="categories", kind="texts", meaning="category_ids: items of these alone", most=100),
    Field(
        name="price_minor",
        kind="object",
        meaning="list price (minor units); an item whose price nobody knows does not pass",
        fields=(
            Field(name="minimum", kind="integer", meaning="the least"),
            Field(name="maximum", kind="integer", meaning="the most"),
        ),
    ),
    Field(
        name="in_stock",
        kind="boolean",
        meaning="leave out what the shop's catalogue says is sold out",
        default=False,
    ),
)

RECOMMEND: tuple[Field, ...] = (
    Field(name="user_id", kind="text", meaning="who asks; this or users"),
    Field(
        name="users",
        kind="texts",
        meaning=f"many at once, in place of user_id; times k at most {MAX_ITEMS}, with diversity {MAX_DIVERSE}",
        minimum=1,
        most=MAX_USERS,
    ),
    Field(name="k", kind="integer", meaning="how many items", minimum=1, maximum=MAX_K, default=10),
    Field(
        name="exclude_seen",
        kind="boolean",
        meaning="leave out items in the user's recent history, as far as the state remembers it",
        default=False,
    ),
    Field(name="filters", kind="object", meaning="which items may be shown", fields=_FILTERS),
    Field(
        name="diversity",
        kind="number",
        meaning=f"0 as the model ranks, 1 as unlike each other as can be; above 0 k is at most {MAX_DIVERSE_K}",
        maximum=1,
        default=0,
    ),
    Field(name="reasons", kind="boolean", meaning="say because of which items of the history", default=False),
)

MAX_DRIVEN = 16
"""Users in a request that asks for drivers: each of them costs a run of the model for everything that it sees."""

SCORE_USER: tuple[Field, ...] = (
    Field(name="user_id", kind="text", meaning="who is asked about; this or users"),
    Field(
        name="users",
        kind="texts",
        meaning=f"many at once, in place of user_id; at most {MAX_DRIVEN} with drivers",
        minimum=1,
        most=MAX_USERS,
    ),
    Field(name="drivers", kind="boolean", meaning="say what moves the score", default=False),
)

_NOT_SENT = ("event_type", "ingested_at", "source_seq", "label_of", LABEL, "label_value")
_ALWAYS = ("event_id", "user_id", "price_minor")
_WHO_PAYS = ("user_id", "card_id", "terminal_id")


def _payment_field(column: Column) -> Field:
    kind: Kind = "text"
    if pa.types.is_timestamp(column.type):
        kind = "time"
    elif pa.types.is_integer(column.type):
        kind = "integer"
    # a payment without a card or terminal must say so with null: forgetting the key would hide it
    key = column.name in _WHO_PAYS
    always = column.name in _ALWAYS
    return Field(
        name=column.name,
        kind=kind,
        meaning=column.meaning + (f" ({column.unit})" if column.unit else ""),
        required=always or key,
        nullable=not always and column.nullable,
        minimum=column.minimum or 0,
    )


MAX_RECENT = 50

RECENT_EVENT: tuple[Field, ...] = (
    Field(name="event_type", kind="text", meaning="what was done", required=True),
    *(
        replace(
            _payment_field(column),
            required=column.name in ("event_id", "event_timestamp"),
            nullable=column.nullable,
        )
        for column in EVENT_COLUMNS
        if column.name not in _NOT_SENT
    ),
)
"""An event that comes with a payment, which is of the payment's user unless it says otherwise."""

SCORE_PAYMENT: tuple[Field, ...] = (
    *(_payment_field(column) for column in EVENT_COLUMNS if column.name not in _NOT_SENT),
    Field(
        name="recent_events",
        kind="objects",
        meaning="events of the day before the payment that the log may not have yet; those that it has count once",
        most=MAX_RECENT,
        fields=RECENT_EVENT,
    ),
    Field(
        name="reasons",
        kind="boolean",
        meaning="say what moved the score; it is said anyway of a payment that is not to be approved",
        default=False,
    ),
)
"""A payment as the event contract writes it, without what only the log knows of it, and what comes with it."""

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_SCORE = {
    "score": {**_PROBABILITY, "description": "what the model says"},
    "probability": {**_PROBABILITY, "description": "the score as validation corrects it"},
}
_DRIVERS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "field, aggregate or history"},
            "direction": {"type": "string", "enum": ["raises", "lowers"]},
            "contribution": {"type": "number", "description": "change of the log odds"},
            "text": {"type": "string"},
        },
    },
}
_RETURNS: dict[str, Any] = {
    **_SCORE,
    "expected_value_minor": {
        "type": ["integer", "null"],
        "description": "spend to be expected within the horizon, minor units; null where the run learned of none",
    },
    "drivers": {**_DRIVERS, "description": "with drivers: what raises and lowers the score most"},
}

_ITEM_ID = {"type": "string"}
_REASON = {"item_id": _ITEM_ID, "contribution": {"type": "number"}}
_RECOMMENDED: dict[str, Any] = {
    "items": {
        "type": "array",
        "description": "best first",
        "items": {
            "type": "object",
            "properties": {
                "item_id": _ITEM_ID,
                "score": {"type": "number", "description": "logarithm of the item's share, or the network's logit"},
                "because_of": {
                    "type": "array",
                    "description": "with reasons: items of the user's history, and by how much they raised the score",
                    "items": {"type": "object", "properties": _REASON},
                },
            },
        },
    },
    "candidates": {"type": "integer", "description": "how many items might have been shown"},
}


def _of_one_or_many(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the user of a request, and, where it is about users, of each."""
    of_each = {"type": "object", "properties": {"user_id": {"type": "string"}, **said}}
    described = "asked about users: what is said of each, in their order"
    return {**said, "answers": {"type": "array", "description": described, "items": of_each}}


ENDPOINTS: dict[str, Endpoint] = {
    "recommendation": Endpoint(
        path="/recommend",
        summary="the items that a user is most likely to view next",
        fields=RECOMMEND,
        answer=_of_one_or_many(_RECOMMENDED),
    ),
    "retention": Endpoint(
        path="/score",
        summary="the probability that a user comes back within the task's horizon",
        fields=SCORE_USER,
        answer=_of_one_or_many(_RETURNS),
    ),
    "fraud": Endpoint(
        path="/score",
        summary="the probability that a payment is fraud",
        fields=SCORE_PAYMENT,
        answer={
            "event_id": {"type": "string", "description": "the payment's"},
            **_SCORE,
            "threshold": {"type": "number", "description": "stated threshold of the run"},
            "flagged": {"type": "boolean", "description": "score >= threshold"},
            "action": {"type": "string", "enum": ["approve", "review", "decline"], "description": "the cheapest"},
            "expected_cost": {
                "type": "object",
                "description": "of each action, minor units of the payment's currency",
                "properties": {name: {"type": "number"} for name in ("approve", "review", "decline")},
            },
            "reasons": {**_DRIVERS, "description": "what moved the score most"},
        },
    ),
}
"""By task."""
