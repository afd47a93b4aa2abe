"""The 14 features of the Fraud Detection Handbook, declared.

A customer's count and mean amount hold the payment that is being looked at; a terminal's risk is known with a delay of
seven days, and 0 where no payment is due. Amounts are in minor units.
"""

from feast import Entity, FeatureService, ValueType
from feast.types import Int64

from clicktrail.views import (
    aggregate_view,
    count,
    count_with,
    days,
    due,
    is_night,
    is_weekend,
    label_rate,
    mean_with,
    request_view,
    share,
    total,
)

OWNER = "risk@example.com"
WINDOWS = (1, 7, 30)

customer = Entity(name="customer", join_keys=["user_id"], value_type=ValueType.STRING, description="who pays")
terminal = Entity(name="terminal", join_keys=["terminal_id"], value_type=ValueType.STRING, description="who is paid")

customer_v1 = aggregate_view(
    name="customer_v1",
    entity=customer,
    windows=[days(number) for number in WINDOWS],
    aggregations=[count("payment", name="count"), total("price_minor", of="payment", name="total")],
    owner=OWNER,
    description="payments of the customer before this one",
)

terminal_v1 = aggregate_view(
    name="terminal_v1",
    entity=terminal,
    windows=[days(number) for number in WINDOWS],
    aggregations=[label_rate("fraud", of="payment", delay=days(7), name="risk")],
    owner=OWNER,
    description="payments at the terminal whose label is due, and how many of them were fraud",
)

handbook_v1 = request_view(
    name="handbook_v1",
    request={"price_minor": Int64},
    inputs=[customer_v1, terminal_v1],
    features=[
        is_weekend(name="TX_DURING_WEEKEND"),
        is_night(before=7, name="TX_DURING_NIGHT"),
        *(count_with(f"count_{one}d", name=f"CUSTOMER_ID_NB_TX_{one}DAY_WINDOW") for one in WINDOWS),
        *(
            mean_with(
                total=f"total_{one}d",
                count=f"count_{one}d",
                field="price_minor",
                name=f"CUSTOMER_ID_AVG_AMOUNT_{one}DAY_WINDOW",
            )
            for one in WINDOWS
        ),
        *(due(f"risk_{one}d", name=f"TERMINAL_ID_NB_TX_{one}DAY_WINDOW") for one in WINDOWS),
        *(share(f"risk_{one}d", none=0.0, name=f"TERMINAL_ID_RISK_{one}DAY_WINDOW") for one in WINDOWS),
    ],
    owner=OWNER,
    description="the features of the Fraud Detection Handbook",
)

handbook = FeatureService(
    name="handbook", features=[handbook_v1], owner=OWNER, description="the handbook's model input"
)
