"""Will this payment turn out to be fraud? Asked at the moment of each payment; the truth takes a week to come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa

from clicktrail.input_spec import SequenceSpec
from training.task import Task


def examples(sql: Callable[[str], pa.Table], end: int) -> pa.Table:
    """Every payment; its label is 1 from the moment at which a chargeback is known."""
    _ = end
    return sql(
        """
        with said as (
            select label_of as payment, min(known_at) as label_known_at from events
            where event_type = 'label' and label = 'fraud' and label_value = 1 group by payment
        )
        select event_id as example_id, event_timestamp as t, user_id, card_id, terminal_id, price_minor, device,
               label_known_at
        from events left join said on payment = event_id where event_type = 'payment' order by t, example_id
        """
    )


TASK = Task(
    name="fraud",
    question="Will this payment be charged back as fraud?",
    entity_keys=("user_id", "card_id", "terminal_id"),
    feature_service="fraud",
    head="binary",
    primary_metric="average_precision",
    examples=examples,
    label_delay=timedelta(days=7),
    sequences=(
        SequenceSpec(
            view="card_recent_v1",
            last=30,
            categories=("device",),
            numbers=("price_minor",),
            same=("terminal_id", "device", "user_id"),
            seen=("terminal_id", "device"),
            age=True,
            steps=True,
            request=True,
        ),
        SequenceSpec(
            view="user_recent_v1",
            last=100,
            seen=("category_id",),
            rhythm=30,
            categories=("event_type", "category_id"),
            numbers=("price_minor",),
            age=True,
        ),
    ),
    request_categories=("device",),
    request_numbers=("price_minor",),
    baselines=("gradient_boosting",),
    gates={"average_precision": 0.05},
    costs={
        "review": {"fixed_minor": 500, "finds": 0.9},
        "missed_fraud": {"share": 1.0, "fixed_minor": 1500},
        "false_decline": {"share": 0.2, "fixed_minor": 500},
    },
    group="card_id",
    validation=0.1,
    test=0.15,
)
