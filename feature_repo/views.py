"""The features. One declaration gives the offline value, the online state and the documentation.

A published view is never edited in place: declare `_v2` beside it and move its readers over.
"""

from feast.types import Int64

from clicktrail.views import (
    aggregate_view,
    count,
    count_with,
    days,
    difference,
    distinct,
    hour_of_day,
    hours,
    is_night,
    label_rate,
    largest,
    largest_with,
    mean_with,
    request_view,
    sequence_view,
    share,
    time_since,
    times_mean,
    top,
    total,
    total_with,
)
from feature_repo.entities import card, item, terminal, user

BROWSING = ["view", "click", "search", "favorite", "cart", "checkout", "purchase", "return", "review"]
GROWTH = "growth@example.com"
RISK = "risk@example.com"
PAYMENT = {"personal_data": "payment"}

user_recent_v1 = sequence_view(
    name="user_recent_v1",
    entity=user,
    last=100,
    within=days(180),
    events=BROWSING,
    fields=["item_id", "event_type", "category_id", "price_minor", "event_timestamp"],
    owner=GROWTH,
    description="what the user did last in the shop",
    tags=PAYMENT,
)

user_activity_v1 = aggregate_view(
    name="user_activity_v1",
    entity=user,
    windows=[days(1), days(7), days(30)],
    aggregations=[
        count("view"),
        count("cart"),
        count("purchase"),
        total("price_minor", of="purchase", windows=[days(30)]),
        distinct("item_id", of="view", windows=[days(7), days(30)]),
        distinct("session_id", windows=[days(7), days(30)]),
        distinct("event_day", windows=[days(7), days(30)]),
        time_since(),
        time_since("purchase"),
    ],
    owner=GROWTH,
    description="how much the user did over the last day, week and month",
    tags=PAYMENT,
)

user_profile_v1 = aggregate_view(
    name="user_profile_v1",
    entity=user,
    windows=[days(90)],
    aggregations=[
        top("category_id", k=3),
        total("price_minor", of="purchase"),
        count("purchase"),
        distinct("event_day"),
        distinct("session_id"),
        time_since(),
    ],
    owner=GROWTH,
    description="favourite categories, spend, rhythm and recency of the user",
    tags=PAYMENT,
)

user_session_v1 = aggregate_view(
    name="user_session_v1",
    entity=user,
    windows=[hours(1)],
    aggregations=[
        count(),
        count("login"),
        count("search"),
        count("view"),
        count("cart"),
        distinct("device", windows=[days(30)]),
        time_since("login"),
        time_since("view"),
    ],
    owner=RISK,
    description="what led up to this moment: a payment without browsing looks different",
)

card_recent_v1 = sequence_view(
    name="card_recent_v1",
    entity=card,
    last=50,
    events=["payment"],
    fields=["price_minor", "terminal_id", "device", "user_id", "event_timestamp"],
    owner=RISK,
    description="the last payments with the card",
    tags=PAYMENT,
)

card_activity_v1 = aggregate_view(
    name="card_activity_v1",
    entity=card,
    windows=[hours(1), days(1), days(7), days(30)],
    aggregations=[
        count("payment"),
        total("price_minor", of="payment"),
        largest("price_minor", of="payment", windows=[days(30)]),
        distinct("terminal_id", of="payment", windows=[days(7), days(30)]),
        distinct("device", of="payment", windows=[days(30)]),
        time_since("payment"),
    ],
    owner=RISK,
    description="how the card was used over the last hour, day, week and month",
    tags=PAYMENT,
)

terminal_risk_v1 = aggregate_view(
    name="terminal_risk_v1",
    entity=terminal,
    windows=[days(1), days(7), days(30)],
    aggregations=[
        count("payment"),
        total("price_minor", of="payment"),
        label_rate("fraud", of="payment", delay=days(7)),
        distinct("card_id", of="payment", windows=[days(1), days(7)]),
    ],
    owner=RISK,
    description="traffic at the terminal, and how much of it turned out to be fraud a week later",
    tags=PAYMENT,
)

payment_context_v1 = request_view(
    name="payment_context_v1",
    request={"price_minor": Int64},
    inputs=[card_activity_v1, terminal_risk_v1],
    features=[
        count_with("card_activity_v1__count_payment_1d"),
        count_with("card_activity_v1__count_payment_30d"),
        total_with("card_activity_v1__total_price_minor_payment_1d", "price_minor"),
        mean_with(
            total="card_activity_v1__total_price_minor_payment_30d",
            count="card_activity_v1__count_payment_30d",
            field="price_minor",
            name="mean_price_minor_30d_with_request",
        ),
        times_mean(
            "price_minor",
            total="card_activity_v1__total_price_minor_payment_30d",
            count="card_activity_v1__count_payment_30d",
            name="price_times_mean_30d",
        ),
        largest_with("max_price_minor_payment_30d", "price_minor"),
        difference("price_minor", "max_price_minor_payment_30d", name="price_above_largest_30d"),
        share("label_rate_fraud_payment_30d", name="terminal_fraud_share_30d"),
        hour_of_day(),
        is_night(before=7),
    ],
    owner=RISK,
    description="the payment that is being scored beside what the card did before, the payment itself included",
    tags=PAYMENT,
)

item_activity_v1 = aggregate_view(
    name="item_activity_v1",
    entity=item,
    windows=[days(1), days(7)],
    hop=hours(1),
    aggregations=[count("view"), count("purchase"), distinct("user_id", of="view", windows=[days(7)])],
    owner=GROWTH,
    description="how much the item is looked at and bought",
)
