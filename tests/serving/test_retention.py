"""Retention: probability, expected value and drivers, decided in process by a bundle's files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from serving import manifest as manifests
from serving.decision import Decision
from serving.endpoints import ENDPOINTS
from serving.features import LiveState
from serving.model import Model
from serving.retention import Retention
from serving.schema import InvalidRequestError, parse
from tests.serving import shop
from tests.serving.conftest import Bundles, Server

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]


@pytest.fixture(scope="module")
def retention(bundles: Bundles) -> Retention:
    model = Model.load(manifests.read(bundles.built["retention"].path))
    return Retention(model, LiveState(replace(bundles.settings, clock="log"), model.declarations))


def decide(retention: Retention, **body: Any) -> Decision:  # noqa: ANN401 - JSON data
    return retention.decide(parse(json.dumps(body).encode(), ENDPOINTS["retention"].fields))


def test_expected_value_is_probability_times_spend(retention: Retention) -> None:
    """Ann viewed three items in the week: 80.00 if she comes back; bob one: 20.00."""
    for user, spend in (("ann", 8000.0), ("bob", 2000.0)):
        answer = decide(retention, user_id=user).answer
        assert answer["probability"] == answer["score"]  # the run found nothing to mend
        assert answer["expected_value_minor"] == round(answer["score"] * spend)
        assert "drivers" not in answer


def test_nobody_has_the_values_of_all(retention: Retention) -> None:
    """Of an unknown user: the base rate, and the mean spend at that rate; nothing drives it."""
    answer = decide(retention, user_id="nobody", drivers=True).answer
    assert (answer["answered_by"], answer["probability"]) == ("base_rate", shop.BASE_RATE)
    assert answer["expected_value_minor"] == round(shop.BASE_RATE * 4000.0)
    assert answer["drivers"] == []


def test_many_users_are_answered_as_each_alone(retention: Retention) -> None:
    """One request, in the order of the users, known and unknown; what all have in common stands once."""
    users = ["bob", "nobody", "ann"]
    decision = decide(retention, users=users)
    answers = decision.answer["answers"]
    assert [one["user_id"] for one in answers] == users
    assert set(decision.answer) == {"answers", "model", "feature_offset"}
    assert len(decision.outcomes) == decision.read.rows == 3
    for user, one, outcome in zip(users, answers, decision.outcomes, strict=True):
        alone = decide(retention, user_id=user).answer
        assert one["score"] == pytest.approx(alone["score"], abs=1e-6)
        assert {**one, "score": 0, "probability": 0} == {
            "user_id": user,
            **{name: alone[name] for name in one if name != "user_id"},
            "score": 0,
            "probability": 0,
        }
        assert outcome == {name: one[name] for name in ("score", "probability", "expected_value_minor")}


def test_drivers_go_both_ways_on_request(retention: Retention) -> None:
    """Up to three up and three down, the largest effect first, in plain words."""
    drivers = decide(retention, user_id="ann", drivers=True).answer["drivers"]
    assert drivers
    assert [abs(one["contribution"]) for one in drivers] == sorted(
        (abs(one["contribution"]) for one in drivers), reverse=True
    )
    for one in drivers:
        assert one["direction"] == ("raises" if one["contribution"] > 0 else "lowers")
    texts = {one["code"]: one["text"] for one in drivers}
    # ann's last view was at hour 3, and the log ends at hour 30
    assert (
        texts["user_recent_v1"] == "the last 3 cart, purchase or view events of this user, the newest 1.1 days before"
    )


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ({}, "user_id", "required"),
        ({"user_id": "ann", "users": ["bob"]}, "user_id", "one_of"),
        ({"users": []}, "users", "length"),
        ({"users": ["ann", "ann"]}, "users", "once"),
        ({"users": [str(number) for number in range(257)]}, "users", "length"),
        ({"users": [str(number) for number in range(17)], "drivers": True}, "users", "range"),
    ],
)
def test_who_is_asked_about_must_be_plain(retention: Retention, body: dict[str, Any], field: str, rule: str) -> None:
    """One way of saying it, at most 256 users, 16 with drivers."""
    with pytest.raises(InvalidRequestError) as caught:
        decide(retention, **body)
    assert (caught.value.problems[0].field, caught.value.problems[0].rule) == (field, rule)


def test_over_http(servers: dict[str, Server]) -> None:
    """Many users with drivers, as JSON."""
    answer = servers["retention"].client.post("/score", json={"users": ["ann", "bob"], "drivers": True}).json()
    assert [one["user_id"] for one in answer["answers"]] == ["ann", "bob"]
    assert answer["answers"][0]["expected_value_minor"] > answer["answers"][1]["expected_value_minor"]
    assert answer["answers"][0]["drivers"]
