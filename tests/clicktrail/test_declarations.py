"""What a data engineer writes: what is refused, and the test helper of the library."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from clicktrail.declaring import aggregates, count, days, hours, label_rate, sequence, top
from clicktrail.testing import World, event, label

PAID = aggregates(
    name="paid_v1",
    entity_key="terminal_id",
    windows=[days(7)],
    aggregations=[label_rate("fraud", of="payment", delay=days(1))],
)


@pytest.mark.parametrize(
    "bad",
    [
        {"aggregations": [label_rate("fraud", of="payment", delay=-days(1))]},
        {"aggregations": [top("item_id", k=0)]},
        {"aggregations": [count()], "hop": -hours(1)},
        {"aggregations": [count(windows=[timedelta(0)])]},
        {"aggregations": [count(), count()]},
        {"aggregations": []},
    ],
)
def test_an_aggregate_that_has_no_meaning_is_refused(bad: dict[str, Any]) -> None:
    """Negative delays and hops, empty windows, doubled names, nothing at all: the error names the view."""
    with pytest.raises(ValueError, match="bad_v1"):
        aggregates(**{"name": "bad_v1", "entity_key": "user_id", "windows": [days(1)], **bad})


@pytest.mark.parametrize("bad", [{"within": timedelta(0)}, {"last": 0}, {"fields": []}, {"entity_key": "device"}])
def test_a_sequence_that_has_no_meaning_is_refused(bad: dict[str, Any]) -> None:
    """No time, no events, no fields or no entity: the error names the view."""
    with pytest.raises(ValueError, match="bad_v1"):
        sequence(**{"name": "bad_v1", "entity_key": "user_id", "last": 3, "fields": ["item_id"], **bad})


def test_a_label_counts_whenever_it_came() -> None:
    """Labels known before their event, several of one event, taken back, given again: the newest known one counts."""
    shop = World(
        event("payment", "2026-03-01", arrives=hours(3), event_id="a", user_id="u", terminal_id="T"),
        event("payment", "2026-03-01", event_id="b", user_id="u", terminal_id="T"),
        label("fraud", "a", "2026-03-01 01:00"),  # before anybody could know the payment
        label("fraud", "b", "2026-03-03"),
        label("fraud", "b", "2026-03-04", value=0),
        label("fraud", "b", "2026-03-05"),
    )
    rate = "label_rate_fraud_payment_7d"
    reads = {"2026-03-02 00:00:01": [1, 2], "2026-03-03 01:00": [2, 2], "2026-03-04 01:00": [1, 2]}
    for at, expected in {**reads, "2026-03-05 01:00": [2, 2], "2026-03-10": [0, 0], "2026-03-01 02:00": [0, 0]}.items():
        assert shop.value(PAID, rate, "T", at) == expected, at


def test_the_test_helper_refuses_what_no_feature_could_see() -> None:
    """A misspelt event type or column is an error, not a zero."""
    with pytest.raises(ValueError, match="'viev'"):
        event("viev", "2026-03-01", user_id="u")
    with pytest.raises(ValueError, match="'user'"):
        event("view", "2026-03-01", user="u")
