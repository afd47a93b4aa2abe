"""Does the user come back within 14 days? Asked every week at midnight UTC for every user known by then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa

from clicktrail.contract import BEHAVIOUR_TYPES
from training.task import Task
from training.tasks._weekly import HISTORY

HORIZON = timedelta(days=14)
_DAY = 86_400_000_000


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """(user, t) for each week back from the last midnight that lies a horizon before the log's end.

    The label is 1 from the moment at which the first event of the user in [t, t + 14 d) is known. `value_minor` is what
    he bought for in that time, as far as it was known by its end.
    """
    horizon = HORIZON // timedelta(microseconds=1)
    last = (end - horizon) // _DAY * _DAY
    types = ", ".join(f"'{name}'" for name in BEHAVIOUR_TYPES)
    return sql(
        f"""
        with behaviour as (
            select user_id, epoch_us(event_timestamp) as happened, epoch_us(known_at) as known,
                   case event_type when 'purchase' then price_minor * coalesce(quantity, 1) end as spent
            from events where user_id is not null and event_type in ({types})
        ), first_known as (select user_id, min(known) as first_known from behaviour group by user_id),
        weeks as (
            select {last} - 7 * {_DAY} * unnest(range(
                0, greatest(0, ({last} - (select min(first_known) from first_known)) // (7 * {_DAY}) + 1))) as week
        ), asked as (
            select user_id, week from weeks join first_known on first_known < week
        ), answered as (
            -- an event answers at most two weekly questions whose 14 days hold it
            select user_id, week, min(known) as known, sum(spent) filter (where known < week + {horizon}) as spent
                from behaviour join weeks
                on happened >= week and happened < week + {horizon} group by user_id, week
        )
        select asked.user_id || '@' || strftime(make_timestamp(week), '%Y-%m-%d') as example_id,
               make_timestamp(week) at time zone 'UTC' as t, asked.user_id,
               make_timestamp(answered.known) at time zone 'UTC' as label_known_at,
               coalesce(answered.spent, 0)::bigint as value_minor
        from asked left join answered using (user_id, week) order by t, example_id
        """
    )


TASK = Task(
    name="retention",
    question="Will this user do anything in the shop within the next 14 days?",
    entity_keys=("user_id",),
    feature_service="retention",
    head="binary",
    primary_metric="auc",
    examples=examples,
    horizon=HORIZON,
    sequences=(HISTORY,),
    baselines=("recency_frequency", "gradient_boosting"),
    gates={"auc": 0.55},
)
