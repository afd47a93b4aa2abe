"""Units and personal data follow from the declaration."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from clicktrail import declaring
from clicktrail.contract import PersonalData
from clicktrail.declarations import Declaration
from clicktrail.declaring import Aggregation, count, days, distinct, label_rate, mean, mean_gap, ratio, time_since, top
from clicktrail.feature_facts import (
    CLASSES,
    highest,
    personal_data_of,
    request_personal_data_of,
    request_unit_of,
    unit_of,
)
from clicktrail.request_declarations import RequestView, count_with, difference, hour_of_day, request_declaration


def aggregates(*aggregations: Aggregation, entity_key: str = "user_id") -> Declaration:
    return declaring.aggregates(name="a_v1", entity_key=entity_key, aggregations=aggregations, windows=[days(7)])


def sequence(*fields: str, entity_key: str = "user_id") -> Declaration:
    return declaring.sequence(name="s_v1", entity_key=entity_key, last=5, fields=fields)


@pytest.mark.parametrize(
    ("aggregation", "unit"),
    [
        (count("view"), "events"),
        (mean("price_minor"), "minor units of `currency` (cents)"),
        (mean("quantity"), "items"),
        (distinct("item_id"), "different values of item_id"),
        (top("category_id", k=3), "id"),
        (time_since("view"), "seconds"),
        (mean_gap("view"), "seconds"),
        (label_rate("fraud", of="payment", delay=timedelta(0)), "events: [labelled fraud, all]"),
        (ratio(count("view"), window=days(1), over=days(7)), "ratio"),
    ],
)
def test_an_aggregate_is_counted_in_what_it_counts(aggregation: Aggregation, unit: str) -> None:
    """Events, the column's own unit, seconds, or none at all for a ratio."""
    declaration = aggregates(aggregation)
    (feature,) = declaration.outputs
    assert unit_of(declaration, feature) == unit


def test_a_field_has_the_unit_of_its_column() -> None:
    """Of the contract's events or of the catalogue; ids and texts are called that."""
    declaration = sequence("item_id", "device", "price_minor", "event_timestamp", "event_day", "item_launched_at")
    assert [unit_of(declaration, name) for name in declaration.outputs] == [
        "id",
        "text",
        "minor units of `currency` (cents)",
        "UTC, microseconds",
        "days since 1970-01-01, UTC",
        "UTC, microseconds",
    ]


def test_what_cannot_be_derived_is_said_by_a_tag() -> None:
    """Of a SQL expression nothing is known until the view says it."""
    declaration = aggregates(declaring.sql("max(price_minor) - min(price_minor)", name="spread"))
    assert unit_of(declaration, "spread", {}) == unit_of(declaration, "spread") == ""
    assert unit_of(declaration, "spread", {"unit.spread": "cents"}) == "cents"
    with pytest.raises(KeyError, match="width"):
        unit_of(declaration, "width")


def test_personal_data_is_the_most_telling_class() -> None:
    """Keys and what the events were count too: an item's views are behaviour, a user's are under a pseudonym."""
    assert personal_data_of(aggregates(count("view"), entity_key="item_id")) == "behaviour"
    assert personal_data_of(aggregates(count("view"))) == "pseudonym"
    assert personal_data_of(aggregates(distinct("user_id"), entity_key="item_id")) == "pseudonym"
    assert personal_data_of(sequence("price_minor", "item_id")) == "payment"
    assert personal_data_of(sequence("price_minor", "item_id").only({"item_id"})) == "pseudonym"
    assert highest([]) == "none"


def test_the_contracts_classes_are_in_order() -> None:
    """Each class of the contract has its place in the order."""
    assert sorted(CLASSES) == sorted(get_args(PersonalData))


def test_a_request_view_takes_after_what_it_reads() -> None:
    """Units of stored features and of the request's fields; personal data of both."""
    stored = aggregates(count("view"), entity_key="item_id")

    def view(*request: str) -> RequestView:
        return request_declaration(
            name="r_v1",
            request=request,
            inputs={"a_v1": stored.outputs},
            features=[
                count_with("count_view_7d"),
                difference("a_v1__count_view_7d", "a_v1__count_view_7d", name="none"),
                hour_of_day(),
                *([difference("price_minor", "a_v1__count_view_7d", name="less")] if request else []),
            ],
        )

    by_name = {"a_v1": stored}
    units = {one.name: request_unit_of(view("price_minor"), one.name, by_name) for one in view("price_minor").features}
    assert units == {
        "count_view_7d_with_request": "events",
        "none": "events",
        "hour_of_day": "hours, UTC",
        "less": "minor units of `currency` (cents)",
    }
    assert request_unit_of(view(), "none", by_name, {"unit.none": "nothing"}) == "nothing"
    assert request_personal_data_of(view(), by_name) == "behaviour"
    assert request_personal_data_of(view("price_minor"), by_name) == "payment"
