"""What each service takes and answers: one table a task, from the event contract where it speaks of an event.

The tables decide alone: requests are validated by them (serving/schema.py) and the OpenAPI description is made of
them (serving/openapi.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, LABEL, Column
from serving.schema import Field, Kind

MAX_K = 1000


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Path and fields of a request; `answer`: JSON schema of what an answer says beside what all answers say."""

    path: str
    summary: str
    fields: tuple[Field, ...]
    answer: Mapping[str, Any]


_USER = Field(name="user_id", kind="text", meaning="who asks", required=True)

RECOMMEND: tuple[Field, ...] = (
    _USER,
    Field(name="k", kind="integer", meaning="how many items", minimum=1, maximum=MAX_K, default=10),
    Field(
        name="exclude_seen",
        kind="boolean",
        meaning="leave out items in the user's recent history, as far as the state remembers it",
        default=False,
    ),
)

SCORE_USER: tuple[Field, ...] = (_USER,)

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


SCORE_PAYMENT: tuple[Field, ...] = tuple(
    _payment_field(column) for column in EVENT_COLUMNS if column.name not in _NOT_SENT
)
"""A payment as the event contract writes it, without what only the log knows of it."""

_SCORE = {"score": {"type": "number", "minimum": 0, "maximum": 1}}

ENDPOINTS: dict[str, Endpoint] = {
    "recommendation": Endpoint(
        path="/recommend",
        summary="the items that a user is most likely to view next",
        fields=RECOMMEND,
        answer={
            "items": {
                "type": "array",
                "description": "best first",
                "items": {
                    "type": "object",
                    "properties": {"item_id": {"type": "string"}, "score": {"type": "number"}},
                },
            }
        },
    ),
    "retention": Endpoint(
        path="/score",
        summary="the probability that a user comes back within the task's horizon",
        fields=SCORE_USER,
        answer=_SCORE,
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
        },
    ),
}
"""By task."""
