"""When will the user buy next? Asked every week of every user who did something lately."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa

from training.task import Task
from training.tasks._weekly import HISTORY, ID, asked_weekly

HORIZON, DELAY = timedelta(days=7), timedelta(hours=1)
_DAY = 86_400.0


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """(user, t) by week; `happened_at`: his first purchase at t or later."""
    return sql(
        f"""
        with asked as ({asked_weekly(end, HORIZON + DELAY)}), bought as (
            select user_id, epoch_us(event_timestamp) as happened, epoch_us(known_at) as known
            from events where event_type = 'purchase'
        ), next as (
            select asked.user_id, week, min(happened) as happened, arg_min(known, (happened, known)) as known
            from asked left join bought on asked.user_id = bought.user_id and happened >= week
            group by asked.user_id, week
        )
        select {ID} as example_id, make_timestamp(week) at time zone 'UTC' as t, user_id,
               make_timestamp(happened) at time zone 'UTC' as happened_at,
               make_timestamp(known) at time zone 'UTC' as label_known_at
        from next order by t, example_id
        """
    )


TASK = Task(
    name="time_to_purchase",
    question="When will this user buy next?",
    entity_keys=("user_id",),
    feature_service="retention",
    head="time",
    primary_metric="log_likelihood",
    examples=examples,
    horizon=HORIZON,
    label_delay=DELAY,
    edges=tuple(_DAY * days for days in (1, 3, 7, 14, 30)),
    sequences=(HISTORY,),
    baselines=("constant_hazards", "gradient_boosting"),
    gates={"concordance": 0.55},
    validation=0.12,  # of weekly questions a range must hold one
    test=0.12,
)
