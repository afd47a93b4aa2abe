"""What does the user do next? Asked whenever something that he did has just become known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa

from clicktrail.input_spec import SequenceSpec
from training.task import Task

HORIZON, DELAY = timedelta(hours=1), timedelta(minutes=5)
ACTIONS = ("view", "click", "search", "favorite", "cart", "checkout", "purchase", "return", "review")
NOTHING = "nothing"


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """(user, t), t the first moment at which an action of his is known, to the microsecond.

    `class`: the type of the first action that happened in [t, t + 1 h), of those known by 5 minutes later; of actions
    at one moment the first by the order of a sequence.
    """
    _ = end
    hour, wait = (span // timedelta(microseconds=1) for span in (HORIZON, HORIZON + DELAY))
    types = ", ".join(f"'{name}'" for name in ACTIONS)
    return sql(
        f"""
        with action as (
            select user_id, event_type, source_seq, event_id,
                   epoch_us(event_timestamp) as happened, epoch_us(known_at) as known
            from events where user_id is not null and event_type in ({types})
        ), asked as (select distinct user_id, known + 1 as t from action),
        -- what happens within an hour of t begins in the hour of t or in the one after
        near as (select user_id, t, t // {hour} + unnest([0, 1]) as hour from asked),
        next as (
            select near.user_id, t, arg_min(event_type, (happened, known, source_seq, event_id)) as class
            from near join action on near.user_id = action.user_id and hour = happened // {hour}
                and happened >= t and happened < t + {hour} and known < t + {wait}
            group by near.user_id, t
        )
        select user_id || '@' || t as example_id, make_timestamp(t) at time zone 'UTC' as t, user_id,
               coalesce(class, '{NOTHING}') as class
        from asked left join next using (user_id, t) order by t, example_id
        """
    )


TASK = Task(
    name="next_action",
    question="What will this user do next, if anything within the hour?",
    entity_keys=("user_id",),
    feature_service="recommendation",
    head="multiclass",
    primary_metric="log_likelihood",
    examples=examples,
    horizon=HORIZON,
    label_delay=DELAY,
    sequences=(
        SequenceSpec(
            view="user_recent_v1",
            last=50,
            categories=("event_type", "item_id", "category_id"),
            numbers=("price_minor",),
            rise=True,
        ),
    ),
    baselines=("class_shares", "last_action", "gradient_boosting"),
    gates={"accuracy": 0.3},
)
