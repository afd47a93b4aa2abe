"""How often will the user buy within 14 days? Asked every week of every user who did something lately."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa

from training.task import Task
from training.tasks._weekly import HISTORY, ID, asked_weekly

HORIZON = timedelta(days=14)


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """(user, t) by week; `count`: purchases in [t, t + 14 d) that were known by its end."""
    horizon = HORIZON // timedelta(microseconds=1)
    return sql(
        f"""
        with asked as ({asked_weekly(end, HORIZON)}), bought as (
            select user_id, epoch_us(event_timestamp) as happened, epoch_us(known_at) as known
            from events where event_type = 'purchase'
        ), counted as (
            select asked.user_id, week, count(happened) as count
            from asked left join bought on asked.user_id = bought.user_id
                and happened >= week and happened < week + {horizon} and known < week + {horizon}
            group by asked.user_id, week
        )
        select {ID} as example_id, make_timestamp(week) at time zone 'UTC' as t, user_id, count
        from counted order by t, example_id
        """
    )


TASK = Task(
    name="purchase_count",
    question="How often will this user buy within the next 14 days?",
    entity_keys=("user_id",),
    feature_service="retention",
    head="count",
    primary_metric="log_likelihood",
    examples=examples,
    horizon=HORIZON,
    sequences=(HISTORY,),
    baselines=("mean_count", "gradient_boosting"),
    gates={"auc_of_any": 0.55},
    validation=0.1,
    test=0.1,
)
