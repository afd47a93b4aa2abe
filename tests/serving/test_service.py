"""The services over HTTP, each a real `bentoml serve` process."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest

from clicktrail.clock import microseconds, moment
from clicktrail.declarations import Declaration
from clicktrail.encoding import Encoding
from clicktrail.online_state import OnlineReader
from serving.features import plain_lists
from tests.serving import shop
from tests.serving.conftest import Bundles, Server

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

PAYMENT: dict[str, Any] = {
    "event_id": "new1",
    "user_id": "ann",
    "card_id": "card1",
    "terminal_id": "shop1",
    "price_minor": 1200,
    "device": "phone",
    "currency": "EUR",
}


def post(server: Server, path: str, body: Any) -> httpx.Response:  # noqa: ANN401
    return server.client.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode())


def by_hand(bundles: Bundles, task: str, request: dict[str, Any], t: int) -> np.ndarray:
    """The answer computed from the stored state with the model in numpy."""
    declarations: tuple[Declaration, ...] = shop.DECLARATIONS[task]
    reader = OnlineReader(bundles.settings.online, declarations)
    views = {}
    for one in declarations:
        columns = reader.read(one.name, [request.get(one.entity_key)], t).columns
        views[one.name] = {name: plain_lists(column) for name, column in columns.items()}
    encoding: Encoding = shop.fitted(task)
    arrays = encoding.encode_lists(views, {name: [value] for name, value in request.items()}, np.array([t]))
    return shop.expected_of(task, arrays, encoding)[0]


def test_recommends_what_the_model_ranks_first(servers: dict[str, Server]) -> None:
    """/recommend answers the k best items with scores, model tag, read time, feature age and offset."""
    answer = post(servers["recommendation"], "/recommend", {"user_id": "ann", "k": 3}).json()
    # ann viewed b twice and a once: 2 + 0.4, 1 + 0.5, and then c by its bias 0.3
    assert [one["item_id"] for one in answer["items"]] == ["b", "a", "c"]
    assert [one["score"] for one in answer["items"]] == pytest.approx([2 + 0.4, 1 + 0.5, 0.3], abs=1e-6)
    assert (answer["cold_start"], answer["answered_by"]) == (False, "model")


def test_tells_the_age_of_what_it_knows(servers: dict[str, Server], bundles: Bundles) -> None:
    """Feature age is read time less the state's newest knowledge, and the offset is the log's."""
    answer = post(servers["recommendation"], "/recommend", {"user_id": "ann"}).json()
    newest = microseconds(shop.at(30))
    # the bundle's own clock is the log's: just after everything that is known
    assert answer["features_as_of"] == moment(newest + 1).isoformat().replace("+00:00", "Z")
    assert answer["feature_age_seconds"] == pytest.approx(1e-6)
    assert answer["feature_offset"] == shop.events().num_rows
    assert answer["model"] == bundles.built["recommendation"].tag


def test_leaves_out_what_was_seen(servers: dict[str, Server]) -> None:
    """exclude_seen leaves out every item in the user's recent history, and no other."""
    answer = post(servers["recommendation"], "/recommend", {"user_id": "ann", "k": 10, "exclude_seen": True}).json()
    assert [one["item_id"] for one in answer["items"]] == ["c", "d", "e"]


def test_unknown_user_gets_popular_items(servers: dict[str, Server]) -> None:
    """A user without events gets the most viewed items with their shares, and is told so."""
    answer = post(servers["recommendation"], "/recommend", {"user_id": "nobody", "k": 2}).json()
    assert answer["items"] == [{"item_id": "e", "score": 10 / 20}, {"item_id": "d", "score": 4 / 20}]
    assert (answer["cold_start"], answer["answered_by"]) == (True, "popularity")
    assert "'nobody' has no event" in answer["cold_start_reason"]


def test_scores_a_payment_as_the_model_does(servers: dict[str, Server], bundles: Bundles) -> None:
    """/score answers a payment with the score of its features at its own time, threshold and flag."""
    t = microseconds(shop.at(50))
    body = {**PAYMENT, "event_timestamp": "2026-03-03T14:00:00Z"}
    assert shop.at(50).isoformat() == "2026-03-03T14:00:00+00:00"
    answer = post(servers["fraud"], "/score", body).json()
    assert answer["score"] == pytest.approx(float(by_hand(bundles, "fraud", PAYMENT, t)), abs=1e-5)
    assert answer["flagged"] is (answer["score"] >= answer["threshold"] == shop.THRESHOLD)
    assert answer["event_id"] == "new1"
    assert answer["feature_age_seconds"] == (50 - 30) * 3600
    assert answer["features_as_of"] == "2026-03-03T14:00:00Z"


def test_a_payment_in_the_log_does_not_see_itself(servers: dict[str, Server], bundles: Bundles) -> None:
    """Scored at its own time, a payment that is in the log already gets the answer it got before it was there."""
    own = {**PAYMENT, "price_minor": 90_000, "event_timestamp": shop.at(30).isoformat()}
    answer = post(servers["fraud"], "/score", own).json()
    before = float(by_hand(bundles, "fraud", own, microseconds(shop.at(30))))
    after = float(by_hand(bundles, "fraud", own, microseconds(shop.at(30)) + 1))
    assert abs(before - after) > 1e-3
    assert answer["score"] == pytest.approx(before, abs=1e-5)


def test_tells_when_it_knows_more_than_at_the_payment(servers: dict[str, Server]) -> None:
    """A state cannot go back: for a payment of the past the answer says as of when its features are."""
    answer = post(servers["fraud"], "/score", {**PAYMENT, "event_timestamp": shop.at(10).isoformat()}).json()
    assert answer["features_as_of"] == "2026-03-02T18:00:00Z"  # card1 paid last at at(30)


def test_a_new_card_is_named(servers: dict[str, Server], bundles: Bundles) -> None:
    """The model answers for a card nobody has seen, on its empty history, and the answer names what is new."""
    body = {**PAYMENT, "card_id": "new-card", "terminal_id": None}
    answer = post(servers["fraud"], "/score", body).json()
    assert (answer["cold_start"], answer["answered_by"]) == (True, "model")
    assert answer["cold_start_reason"] == (
        "card_id 'new-card' has no event in the online state; the payment has no terminal_id"
    )
    t = microseconds(shop.at(30)) + 1
    assert answer["score"] == pytest.approx(float(by_hand(bundles, "fraud", body, t)), abs=1e-5)


def test_serves_elsewhere_without_the_checkout(servers: dict[str, Server], bundles: Bundles) -> None:
    """Exported and imported under another BENTOML_HOME, it answers where this checkout cannot be imported."""
    answer = post(servers["retention"], "/score", {"user_id": "ann"}).json()
    t = microseconds(shop.at(30)) + 1
    assert answer["score"] == pytest.approx(float(by_hand(bundles, "retention", {"user_id": "ann"}, t)), abs=1e-5)
    assert answer["model"] == bundles.built["retention"].tag


def test_unknown_user_gets_the_base_rate(servers: dict[str, Server]) -> None:
    """Retention of a user without events is the base rate of the training range, and is told so."""
    answer = post(servers["retention"], "/score", {"user_id": "nobody"}).json()
    assert (answer["score"], answer["cold_start"], answer["answered_by"]) == (shop.BASE_RATE, True, "base_rate")


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"price_minor": "12"}, "price_minor", "integer"),
        ({"price_minor": True}, "price_minor", "integer"),
        ({"price_minor": 12.0}, "price_minor", "integer"),
        ({"price_minor": -1}, "price_minor", "range"),
        ({"price_minor": math.nan}, "price_minor", "integer"),
        ({"price_minor": math.inf}, "price_minor", "integer"),
        ({"price_minor": None}, "price_minor", "not_null"),
        ({"user_id": ""}, "user_id", "length"),
        ({"user_id": "u" * 257}, "user_id", "length"),
        ({"event_timestamp": "yesterday"}, "event_timestamp", "time"),
        ({"event_timestamp": "2026-03-03T14:00:00"}, "event_timestamp", "time"),
        ({"amount": 12}, "amount", "unknown"),
    ],
)
def test_wrong_input_is_named(servers: dict[str, Server], change: dict[str, Any], field: str, rule: str) -> None:
    """A field that breaks a rule gets a 400 that names both."""
    response = post(servers["fraud"], "/score", PAYMENT | change)
    assert response.status_code == 400
    assert [(one["field"], one["rule"]) for one in response.json()["problems"]] == [(field, rule)]
    assert field in response.json()["error"]


def test_bodies_that_are_no_request(servers: dict[str, Server]) -> None:
    """Malformed JSON gets a 400, and a body beyond the limit a 413, however it is sent."""
    server = servers["recommendation"]
    assert post(server, "/recommend", b'{"user_id": "ann"').json()["problems"][0]["rule"] == "json"
    assert post(server, "/recommend", b"\xff").status_code == 400
    assert post(server, "/recommend", b"[1]").json()["problems"][0]["rule"] == "object"
    assert post(server, "/recommend", b" " * (64 * 1024 + 1)).status_code == 413
    chunks = (b" " * 1024 for _ in range(100))
    assert server.client.post("/recommend", content=chunks).status_code == 413
    assert post(server, "/recommend", {"user_id": "ann", "k": 0}).json()["problems"][0]["field"] == "k"
    assert post(server, "/recommend", {"k": 1}).json()["problems"][0]["rule"] == "required"


def test_bentomls_own_paths_stay(servers: dict[str, Server]) -> None:
    """Health, readiness and metrics are BentoML's; the API page describes our endpoint."""
    for server in servers.values():
        for path in ("/healthz", "/livez", "/readyz", "/metrics"):
            assert server.client.get(path).status_code == 200
    assert "bentoml_service_request_total" in servers["fraud"].client.get("/metrics").text
    described = servers["fraud"].client.get("/docs.json").json()["paths"]["/score"]["post"]["requestBody"]
    assert "price_minor" in described["content"]["application/json"]["schema"]["required"]
