"""How the values of a feature lie in a sample."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from clicktrail import declaring as do
from clicktrail.distributions import BINS, distribution, plain

VIEW = do.aggregates(
    name="a_v1",
    entity_key="user_id",
    windows=[do.days(1)],
    aggregations=[
        do.count("view", name="views"),
        do.last("device", name="device"),
        do.label_rate("fraud", of="payment", delay=do.days(1), name="risk"),
    ],
)
RECENT = do.sequence(name="r_v1", entity_key="user_id", last=3, fields=["item_id", "event_timestamp"])


def test_numbers_have_shares_of_nulls_edges_and_bins() -> None:
    """Nulls are counted apart; bins go from the lowest to the highest value, that one included."""
    found = distribution(VIEW, "views", pa.array([0, 1, None, 1, 100]))
    assert (found.rows, found.nulls, found.null_share) == (5, 1, 1 / 5)
    assert (found.low, found.mean, found.high) == (0, (0 + 1 + 1 + 100) / 4, 100)
    assert found.bins == (3, *([0] * (BINS - 2)), 1)
    assert found.examples == ("1", "0", "100")


def test_of_nothing_nothing_is_measured() -> None:
    """No row, or nulls alone."""
    for column in (pa.array([], pa.int64()), pa.array([None], pa.int64())):
        found = distribution(VIEW, "views", column)
        assert (found.low, found.mean, found.high, found.bins, found.examples) == (None, None, None, (), ())
    assert distribution(VIEW, "views", pa.array([], pa.int64())).null_share == 0


def test_texts_show_the_most_frequent() -> None:
    """Three at most, whether each is written out or they are codes of a dictionary."""
    texts = pa.array(["a", "b", "b", "c", "c", "c", "d"])
    for column in (texts, texts.dictionary_encode()):
        found = distribution(VIEW, "device", column)
        assert (found.measured, found.examples, found.bins) == ("text", ("c", "b", "a"), ())


def test_a_label_rate_is_measured_as_the_share_that_is_labelled() -> None:
    """Pairs without an event to divide by are left out."""
    found = distribution(VIEW, "risk", pa.array([[0, 0], [1, 4], [1, 1]]))
    assert (found.measured, found.low, found.high, found.mean) == ("share", 1 / 4, 1, (1 / 4 + 1) / 2)
    assert found.examples == ("[0, 0]", "[1, 4]", "[1, 1]")


def test_lists_are_measured_by_their_length() -> None:
    """The example is the longest one, its newest elements."""
    found = distribution(RECENT, "item_id", pa.array([[], ["a"], list("abcde")]))
    assert (found.measured, found.low, found.high, found.mean) == ("length", 0, 5, 2)
    assert found.examples == ("[... b, c, d, e]",)


def test_values_are_shown_shortly() -> None:
    """Times to the minute, numbers to four digits."""
    assert plain([datetime(2026, 3, 1, 10, 5, 59, tzinfo=UTC), None, 1 / 3, 7]) == "[2026-03-01 10:05, None, 0.3333, 7]"
