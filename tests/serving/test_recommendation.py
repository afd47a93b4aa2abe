"""/recommend: filters, many users, diversity and reasons, over HTTP and beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows
from serving.blend import Blend
from serving.blend_kernels import Neighbours, Voice
from serving.endpoints import ENDPOINTS, MAX_DIVERSE, MAX_DIVERSE_K, MAX_ITEMS
from serving.features import LiveState
from serving.manifest import read as read_manifest
from serving.model import Model
from serving.predictor import Predictor
from serving.reasons import without
from serving.schema import InvalidRequestError, parse
from tests.serving.conftest import Bundles, Server

FIELDS = ENDPOINTS["recommendation"].fields
PRICE = "filters.price_minor.maximum"

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]


def ask(server: Server, **request: Any) -> Any:  # noqa: ANN401 - JSON data
    response = server.client.post("/recommend", content=json.dumps(request).encode())
    return response.json()


def opened(bundles: Bundles) -> Predictor:
    model = Model.load(read_manifest(bundles.built["recommendation"].path))
    return Predictor(model, LiveState(replace(bundles.settings, clock="log"), model.declarations))


def blended(bundles: Bundles) -> Predictor:
    """The same bundle with a blend in it: c is near both a and b, e is the most popular."""
    model = Model.load(read_manifest(bundles.built["recommendation"].path))
    assert model.items is not None
    a, b, c, e = model.items.in_order(["a", "b", "c", "e"]).tolist()
    pairs = sorted([(a, c, 1.0), (b, c, 3.0), (b, a, 1.0)])
    popular = np.full(5, 0.1, np.float32)
    popular[e] = 0.6
    blend = Blend(
        network=Voice(0.25, 0, 0, 0.0),
        covisits=Voice(0.4, 0, 2, 0.5),
        own=Voice(0.25, 1, 100, 0.5),
        popularity=0.1,
        neighbours=Neighbours(
            np.searchsorted([one for one, _, _ in pairs], np.arange(6)),
            np.array([other for _, other, _ in pairs], np.int32),
            np.array([near for _, _, near in pairs], np.float32),
        ),
        popular=popular,
    )
    return Predictor(replace(model, blend=blend), LiveState(replace(bundles.settings, clock="log"), model.declarations))


def ids(answer: dict[str, Any]) -> list[str]:
    return [one["item_id"] for one in answer["items"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"allow": ["d", "a", "nobody's"]}, ["a", "d"]),
        ({"allow": []}, []),
        ({"deny": ["b", "nobody's"]}, ["a", "c", "d", "e"]),
        ({"categories": ["socks"]}, ["c", "d"]),
        # the catalogue says 4000 of d, whose price training did not know
        ({"price_minor": {"minimum": 2000}}, ["b", "c", "d", "e"]),
        ({"price_minor": {"maximum": 2500}}, ["b", "a", "e"]),
        ({"in_stock": True}, ["b", "a", "d", "e"]),
        ({"in_stock": True, "categories": ["socks"], "price_minor": {"minimum": 0, "maximum": 5000}}, ["d"]),
        ({}, ["b", "a", "c", "d", "e"]),
    ],
)
def test_filters_decide_what_may_be_shown(
    servers: dict[str, Server], filters: dict[str, Any], expected: list[str]
) -> None:
    """Both the model's answer and popularity's keep the filters, and say how many items passed them."""
    both = ask(servers["recommendation"], users=["ann", "nobody"], filters=filters)["answers"]
    assert ids(both[0]) == expected
    assert ids(both[1]) == [item for item in ("e", "d", "c", "b", "a") if item in expected]
    assert [one["candidates"] for one in both] == [len(expected)] * 2


def test_many_users_get_what_each_gets_alone(servers: dict[str, Server]) -> None:
    """One request about three users, one of them unknown: the same items, scores and words, in their order."""
    server, wishes = servers["recommendation"], {"k": 4, "exclude_seen": True, "filters": {"deny": ["d"]}}
    together = ask(server, users=["bob", "nobody", "ann"], **wishes)
    assert [one["user_id"] for one in together["answers"]] == ["bob", "nobody", "ann"]
    assert [one["answered_by"] for one in together["answers"]] == ["model", "popularity", "model"]
    for one in together["answers"]:
        alone = ask(server, user_id=one["user_id"], **wishes)
        assert (alone.pop("model"), alone.pop("feature_offset")) == (together["model"], together["feature_offset"])
        assert {name: value for name, value in one.items() if name not in ("user_id", "items")} == {
            name: value for name, value in alone.items() if name != "items"
        }
        assert ids(one) == ids(alone)
        assert [item["score"] for item in one["items"]] == pytest.approx([item["score"] for item in alone["items"]])
    # ann has seen a and b, d is denied
    assert (ids(together["answers"][2]), together["answers"][2]["candidates"]) == (["c", "e"], 2)


def test_says_because_of_what(servers: dict[str, Server]) -> None:
    """Without her two views of b, b would score 2 less; c is shown for its bias alone, as is what popularity shows."""
    answers = ask(servers["recommendation"], users=["ann", "nobody"], k=3, reasons=True)["answers"]
    assert [one["because_of"] for one in answers[0]["items"]] == [
        [{"item_id": "b", "contribution": 2.0}],
        [{"item_id": "a", "contribution": 1.0}],
        [],
    ]
    assert [one["because_of"] for one in answers[1]["items"]] == [[], [], []]
    assert "because_of" not in ask(servers["recommendation"], user_id="ann")["items"][0]


def test_diversity_shows_all_the_same(servers: dict[str, Server]) -> None:
    """Items that have nothing in common stay in their order, with the model's own scores."""
    plain, diverse = (ask(servers["recommendation"], user_id="ann", k=4, diversity=one)["items"] for one in (0, 0.4))
    assert diverse == plain


@pytest.mark.parametrize(
    ("request_", "field", "rule"),
    [
        ({}, "user_id", "required"),
        ({"user_id": "ann", "users": ["bob"]}, "user_id", "one_of"),
        ({"users": []}, "users", "length"),
        ({"users": ["ann", "ann"]}, "users", "once"),
        ({"users": [f"u{one}" for one in range(256)], "k": MAX_ITEMS // 256 + 1}, "users", "range"),
        ({"users": [f"u{one}" for one in range(256)], "k": MAX_DIVERSE // 256 + 1, "diversity": 0.1}, "users", "range"),
        ({"user_id": "ann", "k": MAX_DIVERSE_K + 1, "diversity": 0.1}, "k", "range"),
        ({"user_id": "ann", "diversity": 1.5}, "diversity", "range"),
        ({"user_id": "ann", "filters": {"allowed": []}}, "filters.allowed", "unknown"),
        ({"user_id": "ann", "filters": {"price_minor": {"minimum": 2, "maximum": 1}}}, PRICE, "range"),
        ({"user_id": "ann", "filters": {"price_minor": {"maximum": -1}}}, PRICE, "range"),
    ],
)
def test_what_does_not_go_together_is_refused(
    bundles: Bundles, request_: dict[str, Any], field: str, rule: str
) -> None:
    """The field and the rule are named."""
    predictor = opened(bundles)
    with pytest.raises(InvalidRequestError) as refused:
        predictor.decide(parse(json.dumps(request_).encode(), FIELDS))
    assert [(one.field, one.rule) for one in refused.value.problems] == [(field, rule)]


def test_outcomes_say_what_was_decided(bundles: Bundles) -> None:
    """A row a user: what was shown with its scores, of how many, by whom, and that it was certain to be shown."""
    decision = opened(bundles).decide(parse(b'{"users": ["ann", "nobody"], "k": 1}', FIELDS))
    assert [dict(one) for one in decision.outcomes] == [
        {"items": ["b"], "scores": [pytest.approx(2.4)], "candidates": 5, "answered_by": "model", "propensity": 1.0},
        {"items": ["e"], "scores": [10 / 20], "candidates": 5, "answered_by": "popularity", "propensity": 1.0},
    ]


def test_without_an_item_the_other_events_stay_as_they_were() -> None:
    """A row an item, from which its events are gone; what knows no items, and the scalars, are the user's."""
    items = JaggedSequence(
        values={"item_id": np.array([9, 0, 1, 0, -1, 9], np.int32), "price_minor": np.arange(6)},
        dictionaries={"item_id": ["a", "b", *["x"] * 8]},
        nulls={"price_minor": np.arange(6) == 2},
        starts=np.array([0, 1]),
        ends=np.array([1, 5]),
    )
    others = JaggedSequence(
        values={"price_minor": np.arange(6)}, dictionaries={}, nulls={}, starts=np.array([0, 1]), ends=np.array([1, 5])
    )
    rows = Rows(
        sequences={"items": items, "others": others},
        scalars={"count": np.array([5.0, 6.0]), "rate": np.array([[0.0, 1.0], [2.0, 3.0]])},
        request={"user_id": ["ann", "bob"]},
        t=np.array([10, 20]),
    )
    found = without(rows, 1, ["a", "b", "never met"])
    one = found.sequences["items"]
    left = [one.values["price_minor"][start:end].tolist() for start, end in zip(one.starts, one.ends, strict=True)]
    assert left == [[2, 4], [1, 3, 4], [1, 2, 3, 4]]
    assert one.nulls["price_minor"].tolist() == [place == 2 for place in (2, 4, 1, 3, 4, 1, 2, 3, 4)]
    assert (found.sequences["others"].starts.tolist(), found.sequences["others"].ends.tolist()) == ([1] * 3, [5] * 3)
    assert found.scalars["count"].tolist() == [6.0] * 3
    assert found.scalars["rate"].tolist() == [[2.0, 3.0]] * 3
    assert (found.request, found.t.tolist()) == ({"user_id": ["bob"] * 3}, [20] * 3)


def test_a_blend_ranks_by_shares_of_what_may_be_shown(bundles: Bundles) -> None:
    """Ann met a, b, b. What is filtered out or seen is left out before shares are taken; scores are logarithms."""
    predictor = blended(bundles)

    def shares(**wished: Any) -> dict[str, float]:  # noqa: ANN401 - JSON data
        answer = predictor.decide(parse(json.dumps({"user_id": "ann", **wished}).encode(), FIELDS)).answer
        return {one["item_id"]: float(np.exp(one["score"])) for one in answer["items"]}

    network = np.exp([1.5, 2.4, 0.3, 0.2, 0.1])  # once a, twice b, and their biases
    network /= network.sum()
    near = np.array([1.5, 0, 4.5, 0, 0]) / 6  # of the last two events, b and b, the older one half
    own = np.sqrt([0.25, 1.5, 0, 0, 0])
    own /= own.sum()
    expected = 0.25 * network + 0.4 * near + 0.25 * own + 0.1 * np.array([0.1, 0.1, 0.1, 0.1, 0.6])
    found = shares(k=5)
    assert found == pytest.approx(dict(zip("abcde", expected.tolist(), strict=True)), rel=1e-5)
    assert list(found) == sorted(found, key=lambda one: -found[one])
    # c, d, e are left: his own items are not, so their weight goes to the others
    left = shares(exclude_seen=True)
    network = np.exp([0.3, 0.2, 0.1])
    expected = 0.25 * network / network.sum() + 0.4 * np.array([1, 0, 0]) + 0.1 * np.array([0.1, 0.1, 0.6]) / 0.8
    assert left == pytest.approx(dict(zip("cde", (expected / 0.75).tolist(), strict=True)), rel=1e-5)
    assert shares(filters={"deny": ["a", "b"]}) == pytest.approx(left, rel=1e-5)
    assert shares(filters={"allow": ["d"]}) == pytest.approx({"d": 1})


def test_a_blend_says_because_of_what(bundles: Bundles) -> None:
    """Without her views of b it would score less, and c more, whose neighbour a would be; alone as among others."""
    predictor = blended(bundles)
    body = {"users": ["bob", "nobody", "ann"], "k": 2, "reasons": True}
    bob, nobody, ann = predictor.decide(parse(json.dumps(body).encode(), FIELDS)).answer["answers"]
    assert ids(ann) == ["b", "c"]
    assert [[why["item_id"] for why in one["because_of"]] for one in ann["items"]] == [["b"], []]
    network = np.exp(0.4) / np.exp([1.5, 0.4, 0.3, 0.2, 0.1]).sum()
    expected = ann["items"][0]["score"] - np.log(0.25 * network + 0.1 * 0.1)
    assert ann["items"][0]["because_of"][0]["contribution"] == pytest.approx(expected, rel=1e-5)
    assert nobody["answered_by"] == "popularity"
    for name, among in (("ann", ann), ("bob", bob)):
        alone = predictor.decide(parse(json.dumps({"user_id": name, "k": 2}).encode(), FIELDS)).answer
        assert ids(alone) == ids(among)
        assert [one["score"] for one in alone["items"]] == pytest.approx([one["score"] for one in among["items"]])
    assert ids(predictor.decide(parse(b'{"user_id": "bob", "k": 2, "diversity": 0.5}', FIELDS)).answer)[0] == "e"
