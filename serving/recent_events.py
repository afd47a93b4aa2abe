"""Events that come with a payment, since the log may not have them yet: checked, and as a table to be joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES, ITEM_EVENT_TYPES, MICROSECONDS
from clicktrail.recent_events import event_table
from serving.schema import InvalidRequestError, Problem

RECENT_SECONDS = 86_400
"""What happened longer before the payment is the log's to tell."""

PAYMENT = "payment"


def table_of(request: Mapping[str, Any], t: int) -> pa.Table | None:
    """The events that came with a payment at `t`, as if they had become known just before; None where none did.

    Raises:
        InvalidRequestError: an event breaks a rule of the contract, is the payment itself, or did not happen in the
            day before it.
    """
    sent: Sequence[Mapping[str, Any]] | None = request["recent_events"]
    if not sent:
        return None
    problems = [problem for place, event in enumerate(sent) for problem in _problems(event, place, request, t)]
    ids = [event["event_id"] for event in sent]
    problems += [
        _problem(place, "event_id", "once", "is that of an event before it; send each once")
        for place, one in enumerate(ids)
        if one in ids[:place]
    ]
    if problems:
        raise InvalidRequestError(problems)
    # an event of the payment's own user need not name him
    own = [{**event, "user_id": event["user_id"] or request["user_id"]} for event in sent]
    return event_table(own, t - 1)


def _problems(event: Mapping[str, Any], place: int, payment: Mapping[str, Any], t: int) -> list[Problem]:
    kind, happened = event["event_type"], event["event_timestamp"]
    if kind not in BEHAVIOUR_TYPES:
        return [_problem(place, "event_type", "known", f"is {kind!r}; send one of {', '.join(BEHAVIOUR_TYPES)}")]
    found = []
    if kind in ITEM_EVENT_TYPES and event["item_id"] is None:
        found.append(_problem(place, "item_id", "required", f"is missing; a {kind} event is about an item"))
    if kind == PAYMENT and event["price_minor"] is None:
        found.append(_problem(place, "price_minor", "required", "is missing; send the amount of the payment"))
    if event["event_id"] == payment["event_id"]:
        found.append(_problem(place, "event_id", "not_itself", "is the payment's own; a payment does not see itself"))
    if not t - RECENT_SECONDS * MICROSECONDS <= happened < t:
        wanted = "send events from the day before the payment, and not from its own moment"
        found.append(_problem(place, "event_timestamp", "recent", f"is not of then; {wanted}"))
    return found


def _problem(place: int, column: str, rule: str, what: str) -> Problem:
    field = f"recent_events[{place}].{column}"
    return Problem(field=field, rule=rule, message=f"{field} {what}")
