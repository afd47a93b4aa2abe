"""Which item does the user look at next? One example a view, asked at the moment of the view."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from clicktrail.input_spec import SequenceSpec
from training.task import Task


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """Every view: the target is its item, the history is what was known before it."""
    _ = end
    return sql(
        """
        select event_id as example_id, event_timestamp as t, user_id, item_id as target
        from events where event_type = 'view' order by t, example_id
        """
    )


TASK = Task(
    name="recommendation",
    question="Which item does this user look at next?",
    entity_keys=("user_id",),
    feature_service="recommendation",
    head="next_item",
    primary_metric="ndcg@10",
    examples=examples,
    sequences=(
        SequenceSpec(
            view="user_recent_v1",
            last=50,
            categories=("item_id", "event_type", "category_id"),
            numbers=("price_minor",),
            rise=True,  # dearer or cheaper than the item before: the direction of a comparison
        ),
    ),
    skip_scalars=True,  # measured: aggregates at every view of every user cost a minute and add nothing to next-item
    baselines=("popularity", "covisitation"),
    gates={"ndcg@10": 0.01},
)
