"""What tasks share that ask every week at midnight UTC: of whom, and what they read of the past."""

from __future__ import annotations

from datetime import timedelta

from clicktrail.contract import BEHAVIOUR_TYPES
from clicktrail.input_spec import SequenceSpec

ACTIVE = timedelta(days=30)
_DAY = 86_400_000_000


def asked_weekly(end: int, wait: timedelta) -> str:
    """SQL of (user_id, week): midnights, microseconds, back from the last one that lies `wait` before the log's end.

    Asked of users of whom an event of the 30 days before was known by then.
    """
    last = (end - wait // timedelta(microseconds=1)) // _DAY * _DAY
    active = ACTIVE // timedelta(microseconds=1)
    types = ", ".join(f"'{name}'" for name in BEHAVIOUR_TYPES)
    return f"""
        with behaviour as (
            select user_id, epoch_us(event_timestamp) as happened, epoch_us(known_at) as known
            from events where user_id is not null and event_type in ({types})
        ), weeks as (
            select {last} - 7 * {_DAY} * unnest(range(
                0, greatest(0, ({last} - (select min(known) from behaviour)) // (7 * {_DAY}) + 1))) as week
        )
        select distinct user_id, week from behaviour join weeks on known < week and happened >= week - {active}
    """


ID = "user_id || '@' || strftime(make_timestamp(week), '%Y-%m-%d')"
"""SQL of an example's id."""

HISTORY = SequenceSpec(
    view="user_recent_v1",
    last=100,
    categories=("event_type", "category_id"),
    numbers=("price_minor",),
    age=True,
    visits=30,  # a rhythm of visits, not of clicks, says whether somebody is due or gone
    rhythm=30,
)
"""What the user did lately."""
