"""What a feature means, in a sentence."""

from __future__ import annotations

import pytest

from clicktrail.contract import BEHAVIOUR_TYPES
from clicktrail.declarations import Aggregate, Declaration
from clicktrail.feature_meaning import meaning_of, request_meaning_of, span_text
from clicktrail.request_declarations import RequestFeature, RequestView

HOUR = 3_600_000_000
DAY = 24 * HOUR


def said(**given: object) -> str:
    one = Aggregate(**{"name": "f", "events": ("view",), "window_us": 7 * DAY, **given})  # type: ignore[arg-type]
    view = Declaration(name="v_v1", entity_keys=("user_id",), events=one.events, aggregates=(one,))
    return meaning_of(view, "f")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "count"}, "Number of view events over the last 7 days"),
        ({"kind": "count", "window_us": HOUR}, "Number of view events over the last hour"),
        ({"kind": "count", "events": BEHAVIOUR_TYPES}, "Number of events of any kind over the last 7 days"),
        ({"kind": "sum", "field": "quantity"}, "Sum of quantity of view events over the last 7 days"),
        (
            {"kind": "distinct", "field": "item_id", "events": ("cart", "view")},
            "Number of different item_id among cart or view events over the last 7 days",
        ),
        ({"kind": "last", "field": "device"}, "device of the last view event over the last 7 days"),
        (
            {"kind": "top", "field": "category_id", "k": 3},
            "The 3 most frequent category_id of view events over the last 7 days, the most frequent first",
        ),
        ({"kind": "time_since", "window_us": None}, "Seconds since the last view event"),
        (
            {"kind": "time_since", "events": BEHAVIOUR_TYPES, "window_us": None},
            "Seconds since the last event of any kind",
        ),
        (
            {
                "kind": "label_rate",
                "label": "fraud",
                "events": ("payment",),
                "delay_us": 7 * DAY,
                "window_us": 30 * DAY,
            },
            "Of payment events of the 30 days up to 7 days ago: how many are labelled 'fraud' by now, of how many",
        ),
        (
            {"kind": "ratio", "part": "count", "window_us": DAY, "over_us": 7 * DAY},
            "Number of view events over the last day, divided by that over 7 days",
        ),
        (
            {"kind": "count", "hop_us": HOUR},
            "Number of view events over the last 7 days; the window begins at a whole multiple of 1 hour",
        ),
    ],
)
def test_an_aggregate_in_a_sentence(given: dict[str, object], expected: str) -> None:
    """What is counted, of which events, over what time, and every option that changes the value."""
    assert said(**given) == expected


def test_a_sequence_in_a_sentence() -> None:
    """How many, of what, within what, in which order, and what is left out."""
    view = Declaration(
        name="v_v1", entity_keys=("user_id",), events=("view",), last=5, within_us=DAY, fields=("item_id",)
    )
    assert meaning_of(view, "item_id") == "item_id of the last 5 view events within 1 day, oldest first"
    session = Declaration(
        name="v_v1",
        entity_keys=("user_id",),
        events=("view",),
        last=5,
        session_us=HOUR // 2,
        drop_repeats=("item_id",),
        fields=("item_id",),
    )
    assert meaning_of(session, "item_id") == (
        "item_id of the last 5 view events of the visit that is under way, which a pause of 30 minutes ends, "
        "oldest first; an event with the same item_id as the one before is left out"
    )


def test_a_request_feature_in_a_sentence() -> None:
    """Its operands are named as the page names them; what stands for nothing is said."""
    share = RequestFeature(name="s", kind="share", of=("t_v1__rate",), none=0.5)
    night = RequestFeature(name="n", kind="is_night", before=7)
    view = RequestView(name="r_v1", request=(), inputs=(("t_v1", ("rate",)),), features=(share, night))
    assert request_meaning_of(view, "s") == (
        "t_v1.rate as one number: labelled divided by all; 0.5 where there is nothing to divide by"
    )
    assert request_meaning_of(view, "n") == "1 where the request's hour is less than 7, else 0; UTC"
    with pytest.raises(KeyError):
        request_meaning_of(view, "x")


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [(DAY, "1 day"), (36 * HOUR, "36 hours"), (90_000_000, "90 seconds"), (1, "1 microseconds"), (0, "0 microseconds")],
)
def test_a_span_in_its_largest_whole_unit(microseconds: int, expected: str) -> None:
    """Nothing is rounded."""
    assert span_text(microseconds) == expected
