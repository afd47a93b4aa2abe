"""Fraud: actions, reasons and events that come with a payment, decided in process by a bundle's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clicktrail.clock import microseconds
from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.recent_events import event_table
from clicktrail.settings import Settings
from serving import manifest as manifests
from serving.decision import Decision, read
from serving.drivers import Drivers, groups_of
from serving.endpoints import ENDPOINTS
from serving.features import LiveState
from serving.fraud import Fraud
from serving.model import Model
from serving.schema import InvalidRequestError, parse
from tests.serving import shop
from tests.serving.conftest import Bundles, Server

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

T = "2026-03-03T14:00:00Z"
PAYMENT: dict[str, Any] = {
    "event_id": "new1",
    "user_id": "ann",
    "card_id": "card1",
    "terminal_id": "shop1",
    "price_minor": 1200,
    "device": "phone",
    "event_timestamp": T,
}
RECENT: dict[str, Any] = {
    "event_id": "r1",
    "event_type": "payment",
    "event_timestamp": "2026-03-03T13:59:00Z",
    "card_id": "card1",
    "terminal_id": "shop2",
    "price_minor": 400,
    "device": "desk",
}


@pytest.fixture(scope="module")
def model(bundles: Bundles) -> Model:
    return Model.load(manifests.read(bundles.built["fraud"].path))


@pytest.fixture(scope="module")
def state(bundles: Bundles, model: Model) -> LiveState:
    return LiveState(replace(bundles.settings, clock="log"), model.declarations)


@pytest.fixture(scope="module")
def fraud(model: Model, state: LiveState) -> Fraud:
    return Fraud(model, state)


def decide(fraud: Fraud, **change: Any) -> Decision:  # noqa: ANN401 - JSON data
    body = json.dumps({name: value for name, value in {**PAYMENT, **change}.items() if value is not ...})
    return fraud.decide(parse(body.encode(), ENDPOINTS["fraud"].fields))


def odds(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


# ---- actions


@pytest.mark.parametrize("price", [0, 500, 1200, 90_000])
def test_the_cheapest_action_is_taken(fraud: Fraud, price: int) -> None:
    """The score becomes a probability by the run's curve, and with the amount that decides what is cheapest."""
    decision = decide(fraud, price_minor=price)
    answer = decision.answer
    assert answer["probability"] == pytest.approx(answer["score"] / 2)
    p = answer["probability"]
    approve = p * (price + 1000)
    expected = {"approve": approve, "review": 300 + 0.1 * approve, "decline": (1 - p) * (0.2 * price + 500)}
    assert answer["expected_cost"] == pytest.approx(expected)
    assert answer["action"] == min(expected, key=expected.__getitem__)
    (outcome,) = decision.outcomes
    assert outcome["expected_cost"] == answer["expected_cost"][answer["action"]]
    assert {name: outcome[name] for name in ("score", "probability", "threshold", "flagged", "action")} == {
        name: answer[name] for name in ("score", "probability", "threshold", "flagged", "action")
    }


def test_reasons_are_given_where_they_are_needed(fraud: Fraud) -> None:
    """An approved payment has reasons on request, any other always, and then of what raised its score alone."""
    approved = decide(fraud, price_minor=0).answer
    assert (approved["action"], "reasons" in approved) == ("approve", False)
    assert 1 <= len(decide(fraud, price_minor=0, reasons=True).answer["reasons"]) <= 3
    other = decide(fraud, price_minor=90_000).answer
    assert other["action"] != "approve"
    assert {one["direction"] for one in other["reasons"]} == {"raises"}
    assert [one["contribution"] for one in other["reasons"]] == sorted(
        (one["contribution"] for one in other["reasons"]), reverse=True
    )


# ---- reasons


def test_contributions_are_what_the_model_says_without(fraud: Fraud, model: Model, state: LiveState) -> None:
    """Each thing replaced by hand in the features as they were served, and the model asked again: as far apart."""
    t = microseconds(shop.at(50))
    assert shop.at(50).isoformat() == "2026-03-03T14:00:00+00:00"
    request = decide(fraud, price_minor=90_000, terminal_id="shop9").request
    fields = {name: [value] for name, value in request.items()}
    found = read(state, fields, at=t)
    views = {view: dict(columns) for view, columns in found.features.views.items()}

    def score(views: dict[str, dict[str, Any]], **change: Any) -> float:  # noqa: ANN401 - a field of the request
        return odds(
            float(model.run(views, {**fields, **{name: [one] for name, one in change.items()}}, np.array([t]))[0])
        )

    def without(view: str, **features: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 - features
        return {**views, view: {**views[view], **features}}

    whole = score(views)
    scales, priors = model.encoding.scales, model.encoding.priors
    mean = {name: float(np.expm1(scales[name].mean)) for name in model.encoding.spec.scalars}
    rate = views["terminal_risk_v1"]["label_rate_fraud_payment_7d"].to_pylist()[0]
    usual_price = round(float(np.expm1(np.mean(np.log1p([1200, 800, 90_000])))))
    wanted = {
        "device": whole - score(views, device=None),
        "price_minor": whole - score(views, price_minor=usual_price),
        "terminal_id": whole - score(views, terminal_id="shop1"),
        "card_activity_v1__count_payment_7d": whole
        - score(without("card_activity_v1", count_payment_7d=[mean["card_activity_v1__count_payment_7d"]])),
        "terminal_risk_v1__count_payment_7d": whole
        - score(without("terminal_risk_v1", count_payment_7d=[mean["terminal_risk_v1__count_payment_7d"]])),
        "terminal_risk_v1__label_rate_fraud_payment_7d": whole
        - score(
            without(
                "terminal_risk_v1",
                label_rate_fraud_payment_7d=[
                    [priors["terminal_risk_v1__label_rate_fraud_payment_7d"] * rate[1], rate[1]]
                ],
            )
        ),
        "card_recent_v1": whole
        - score(
            without(
                "card_recent_v1",
                **{name: pa.array([[]], column.type) for name, column in views["card_recent_v1"].items()},
            )
        ),
    }
    assert set(wanted) == {one.code for one in groups_of(model.encoding, model.declarations)}
    said = {one.code: one.contribution for one in Drivers(model).of(found, 0)}
    for code, contribution in wanted.items():
        assert said.get(code, 0.0) == pytest.approx(contribution, abs=0.0101), code
    assert len(said) >= 3


def test_reasons_speak_of_what_is_usual(model: Model, state: LiveState, fraud: Fraud) -> None:
    """In words: the amount beside the card's usual one, a terminal that is new to it, a field that is not given."""
    request = decide(fraud, price_minor=90_000, terminal_id="shop9", device=None).request
    drivers = Drivers(model)
    found = read(state, {name: [value] for name, value in request.items()}, at=request["event_timestamp"])
    rows = found.features.rows(model.encoding.spec, found.fields, found.times)
    texts = {one.code: drivers._text(one, rows, 0) for one in groups_of(model.encoding, model.declarations)}  # noqa: SLF001
    usual = round(float(np.expm1(np.mean(np.log1p([1200, 800, 90_000])))))
    assert texts["price_minor"] == f"price_minor is 90,000, {90_000 / usual:.1f} x what is usual for this card"
    assert texts["terminal_id"] == "terminal_id is new to the last 3 payment events of this card"
    assert texts["device"] == "device is not given"
    assert texts["card_recent_v1"] == "the last 3 payment events of this card, the newest 20 hours before"
    # 3 payments within the week, and 1.45 on (logarithmic) average in training
    assert texts["card_activity_v1__count_payment_7d"] == (
        "Number of payment events over the last 7 days, of this card: 3; usually 1.4"
    )


# ---- events that come with a payment


def test_recent_events_count_as_if_the_log_had_them(
    fraud: Fraud, model: Model, bundles: Bundles, tmp_path: Path
) -> None:
    """The same score as by a state whose log has the events, and twice the same one counts once."""
    before = decide(fraud).answer["score"]
    with_event = decide(fraud, recent_events=[RECENT])
    assert abs(with_event.answer["score"] - before) > 1e-4
    settings = Settings(home=tmp_path, clock="log")
    log = EventLog(settings.log)
    log.append(shop.events())
    event = {**RECENT, "user_id": "ann", "event_timestamp": microseconds(shop.at(50)) - 60_000_000}
    table = event_table([event], microseconds(shop.at(50)) - 1)
    assert not log.append(table.select(arrow_schema().names).cast(arrow_schema())).rejected.num_rows
    for one in model.declarations:
        OnlineState(settings.online).catch_up(log, one)
    later = Fraud(model, LiveState(settings, model.declarations))
    assert decide(later).answer["score"] == with_event.answer["score"]
    assert decide(later, recent_events=[RECENT]).answer["score"] == with_event.answer["score"]
    views = with_event.read.features.views
    assert views["card_recent_v1"]["price_minor"].to_pylist() == [[1200, 800, 90_000, 400]]
    assert bundles.settings.online != settings.online


def test_a_card_known_by_recent_events_is_no_cold_start(fraud: Fraud) -> None:
    """What comes with the payment is knowledge: a new card is known by an event of it."""
    new = {"card_id": "card9"}
    assert "card9" in decide(fraud, **new).answer["cold_start_reason"]
    assert decide(fraud, **new, recent_events=[{**RECENT, **new}]).answer["cold_start_reason"] is None


@pytest.mark.parametrize(
    ("events", "field", "rule"),
    [
        ([{**RECENT, "event_type": "label"}], "recent_events[0].event_type", "known"),
        ([{**RECENT, "event_type": "view"}], "recent_events[0].item_id", "required"),
        ([{**RECENT, "price_minor": None}], "recent_events[0].price_minor", "required"),
        ([{**RECENT, "event_id": "new1"}], "recent_events[0].event_id", "not_itself"),
        ([RECENT, RECENT], "recent_events[1].event_id", "once"),
        ([{**RECENT, "event_timestamp": T}], "recent_events[0].event_timestamp", "recent"),
        ([{**RECENT, "event_timestamp": "2026-03-02T13:59:59Z"}], "recent_events[0].event_timestamp", "recent"),
        ([{"event_type": "payment"}], "recent_events[0].event_id", "required"),
        ([{**RECENT, "ingested_at": T}], "recent_events[0].ingested_at", "unknown"),
        ([{**RECENT, "event_id": str(number)} for number in range(51)], "recent_events", "length"),
    ],
)
def test_events_that_break_a_rule_are_named(fraud: Fraud, events: list[dict[str, Any]], field: str, rule: str) -> None:
    """By place, column and rule."""
    with pytest.raises(InvalidRequestError) as caught:
        decide(fraud, recent_events=events)
    assert (caught.value.problems[0].field, caught.value.problems[0].rule) == (field, rule)


# ---- many, and over HTTP


def test_many_payments_at_their_own_times(fraud: Fraud) -> None:
    """One read and one run for many payments, each at its own time: what each alone is answered."""
    hours = [12, 14, 15, 200, None]
    bodies = [
        {**PAYMENT, "event_id": f"m{number}", "event_timestamp": shop.at(hour + 30).isoformat() if hour else ...}
        for number, hour in enumerate(hours)
    ]
    requests = [decide(fraud, **one).request for one in bodies]
    together = fraud.decide_rows(requests)
    alone = [decide(fraud, **one).answer for one in bodies]
    for one, other in zip(together, alone, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert {name: one[name] for name in ("event_id", "action", "features_as_of", "cold_start_reason")} == {
            name: other[name] for name in ("event_id", "action", "features_as_of", "cold_start_reason")
        }


def test_over_http(servers: dict[str, Server]) -> None:
    """Action, costs and reasons as JSON; an event that comes with the payment moves the score."""
    client = servers["fraud"].client
    plain = client.post("/score", json=PAYMENT | {"price_minor": 90_000}).json()
    assert plain["action"] in ("review", "decline")
    assert plain["reasons"][0]["text"]
    joined = client.post("/score", json=PAYMENT | {"price_minor": 90_000, "recent_events": [RECENT]}).json()
    assert joined["score"] != plain["score"]
    refused = client.post("/score", json=PAYMENT | {"recent_events": [RECENT, RECENT]})
    assert (refused.status_code, refused.json()["problems"][0]["rule"]) == (400, "once")
