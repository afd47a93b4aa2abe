"""Feast's online door: the answers are those of Feast's own path, in all forms, and equal to the offline door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.redis_server import redis_server
from clicktrail.clock import microseconds, read_at
from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.feast_repo import open_store
from clicktrail.settings import Settings
from clicktrail.testing import event, label

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

NOW = datetime(2026, 3, 7, 3, 30, tzinfo=UTC)  # a Saturday
ROWS: list[dict[str, Any]] = [
    {"user_id": "u", "item_id": "a", "price_minor": 900},
    {"user_id": "v", "item_id": "b", "price_minor": None},
    {"user_id": "nobody", "item_id": "a", "price_minor": 5},
    {"user_id": None, "item_id": "a", "price_minor": 0},
    {"user_id": "u", "item_id": "b", "price_minor": 1},
]
NAMED = [one for one in ROWS if one["user_id"] is not None]  # a row without a key is too much for Feast's own path
STORED = ["recent_v1:item_id", "recent_v1:price_minor", "recent_v1:event_timestamp", "spent_v1:purchases"]
STORED += ["spent_v1:spend", "spent_v1:dearest", "pair_v1:together", "rate_v1:returned"]
CONTEXT = ["spend_with_request", "price_times_mean", "above_dearest", "returned_share", "hour_of_day", "is_weekend"]


def definitions(folder: Path) -> dict[str, Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Int64

    from clicktrail import views

    about: dict[str, Any] = {"owner": "shop@example.com", "description": "of a test"}
    user, item = (Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING) for name in ("user", "item"))
    recent = views.sequence_view(
        name="recent_v1", entity=user, last=3, fields=["item_id", "price_minor", "event_timestamp"], **about
    )
    spent = views.aggregate_view(
        name="spent_v1",
        entity=user,
        windows=[timedelta(days=1)],
        aggregations=[
            views.count("purchase", name="purchases"),
            views.total("price_minor", of="purchase", name="spend"),
            views.largest("price_minor", of="purchase", name="dearest"),
        ],
        **about,
    )
    pair = views.aggregate_view(
        name="pair_v1",
        entity=[user, item],
        windows=[timedelta(days=1)],
        aggregations=[views.count(name="together")],
        **about,
    )
    rate = views.aggregate_view(
        name="rate_v1",
        entity=item,
        windows=[timedelta(days=1)],
        aggregations=[views.label_rate("returned", of="purchase", delay=timedelta(hours=1), name="returned")],
        **about,
    )
    context = views.request_view(
        name="context_v1",
        request={"price_minor": Int64},
        inputs=[spent, rate],
        features=[
            views.total_with("spend", "price_minor"),
            views.times_mean("price_minor", total="spend", count="purchases", name="price_times_mean"),
            views.difference("price_minor", "dearest", name="above_dearest"),
            views.share("returned"),
            views.hour_of_day(),
            views.is_weekend(),
        ],
        **about,
    )
    ages = FeatureView(
        name="ages_v1",
        entities=[user],
        ttl=timedelta(days=365),
        schema=[Field(name="age", dtype=Int64)],
        source=FileSource(path=str(folder / "ages.parquet"), timestamp_field="event_timestamp"),
    )
    asked = RequestSource(name="asked", schema=[Field(name="years", dtype=Int64)])

    @on_demand_feature_view(
        name="older_v1", sources=[ages, asked], schema=[Field(name="older", dtype=Int64)], mode="python"
    )
    def older_v1(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"older": [(a or 0) + y for a, y in zip(inputs["age"], inputs["years"], strict=True)]}

    service = FeatureService(name="all", features=[recent, spent, pair, context])
    return {one.name: one for one in (user, item, recent, spent, pair, rate, context, ages, older_v1, service)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("door")
    settings = Settings(home=folder / "home", clock=NOW.isoformat())
    at = "2026-03-06 1{}:00:00.{:06}"
    events = [
        event("view", at.format(0, 7), user_id="u", item_id="a", price_minor=300),
        event("search", at.format(1, 1), user_id="u"),  # no item, no price: nulls inside lists
        event("purchase", at.format(2, 500_000), user_id="u", item_id="a", price_minor=300, event_id="p"),
        event("purchase", at.format(3, 0), user_id="u", item_id="b", price_minor=500),
        event("view", at.format(4, 0), user_id="v", item_id="b", price_minor=500),
        label("returned", "p", at.format(9, 0)),
    ]
    rows = [
        {**dict.fromkeys(arrow_schema().names), "event_id": f"e{n}", "source_seq": n, **one}
        for n, one in enumerate(events)
    ]
    EventLog(settings.log).append(pa.Table.from_pylist(rows, schema=arrow_schema()))
    moment = pd.Timestamp(NOW) - pd.Timedelta(days=1)
    ages = pd.DataFrame({"user_id": ["u", "v"], "age": [30, 40], "event_timestamp": [moment, moment]})
    ages.to_parquet(folder / "ages.parquet", coerce_timestamps="us")
    return settings, definitions(folder)


@pytest.fixture(scope="module")
def store(made: tuple[Settings, dict[str, Any]]) -> Iterator[Any]:
    settings, objects = made
    opened = open_store(settings)
    opened.apply(list(objects.values()))
    opened.materialize(NOW - timedelta(days=30), NOW)
    yield opened
    opened.teardown()


def feasts_own(store: Any, features: Any, rows: Any, **options: Any) -> Any:  # noqa: ANN401
    """The same read by the code that every other store of Feast's runs."""
    from feast.infra.online_stores.online_store import OnlineStore

    online = store._get_provider().online_store  # noqa: SLF001 - there is no other way to it
    return OnlineStore.get_online_features(
        online, store.config, features, rows, store.registry, store.project, **options
    )


def whole_seconds(value: Any) -> Any:  # noqa: ANN401 - any feature's value
    if isinstance(value, list):
        return [whole_seconds(one) for one in value]
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


@pytest.mark.parametrize("full", [False, True])
def test_the_answer_is_that_of_feasts_own_path(store: Any, full: bool) -> None:  # noqa: ANN401, FBT001
    """Names, their order and all values are the same, but that times keep their microseconds."""
    rows = [{key: one[key] for key in ("user_id", "item_id")} for one in NAMED]
    ours = store.get_online_features(STORED, rows, full_feature_names=full).to_dict()
    theirs = feasts_own(store, STORED, rows, full_feature_names=full).to_dict()
    assert sorted(ours) == sorted(theirs)
    assert list(ours)[:2] == list(theirs)[:2] == ["user_id", "item_id"]
    assert {name: whole_seconds(one) for name, one in ours.items()} == theirs
    times = ours["recent_v1__event_timestamp" if full else "event_timestamp"]
    assert times[0][1] == datetime(2026, 3, 6, 12, 0, 0, 500_000, UTC)
    assert times[1:3] == [[datetime(2026, 3, 6, 14, tzinfo=UTC)], []]
    assert ours["recent_v1__item_id" if full else "item_id"]  # a key and a feature of one name


def test_all_forms_say_the_same(store: Any) -> None:  # noqa: ANN401
    """Dictionary, data frame, Arrow table and protobuf hold the same values, one row an entity row."""
    from feast.online_response import OnlineResponse

    features = [one for one in STORED if "event_timestamp" not in one]
    answer = store.get_online_features(features, ROWS, full_feature_names=True)
    as_dict = answer.to_dict()
    assert answer.to_arrow().to_pydict() == as_dict
    assert OnlineResponse(answer.proto).to_dict() == as_dict
    frame = answer.to_df()
    assert frame["recent_v1__price_minor"].tolist() == as_dict["recent_v1__price_minor"]
    assert as_dict["recent_v1__price_minor"][:3] == [[0, 300, 500], [500], []]
    assert as_dict["recent_v1__item_id"][0] == ["", "a", "b"]
    stamped = answer.to_dict(include_event_timestamps=True)
    newest = datetime(2026, 3, 6, 19, tzinfo=UTC)  # the label: so far the state knows
    assert stamped["spent_v1__spend__ts"] == [int(newest.timestamp())] * len(ROWS)
    assert answer.to_arrow(include_event_timestamps=True).column_names == list(stamped)


def test_of_whom_nothing_is_known_is_told(store: Any) -> None:  # noqa: ANN401
    """Who has no event that a view looks at has the features of nothing, a missing key none: NOT_FOUND, both."""
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    answer = store.get_online_features(["recent_v1:price_minor", "spent_v1:purchases", "spent_v1:dearest"], ROWS)
    assert answer.to_dict()["purchases"] == [2, 0, 0, None, 2]
    assert answer.to_dict()["dearest"] == [500, None, None, None, 500]
    there, not_there = FieldStatus.PRESENT, FieldStatus.NOT_FOUND
    statuses = dict(zip(answer.to_dict(), (list(one.statuses) for one in answer.proto.results), strict=True))
    assert statuses["user_id"] == [there] * 5
    assert statuses["price_minor"] == [there, there, not_there, not_there, there]  # v looked, and bought nothing
    assert statuses["purchases"] == statuses["dearest"] == [there, not_there, not_there, not_there, there]


def test_entity_rows_come_in_all_of_feasts_forms(store: Any) -> None:  # noqa: ANN401
    """A list of rows, columns, and protobuf values are the same question."""
    from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value

    features = ["pair_v1:together"]
    ids = {"user_id": ["u", "u", "v"], "item_id": ["a", "b", "b"]}
    rows = [dict(zip(ids, row, strict=True)) for row in zip(*ids.values(), strict=True)]
    protos = {name: RepeatedValue(val=[Value(string_val=one) for one in column]) for name, column in ids.items()}
    values = {name: [Value(string_val=one) for one in column] for name, column in ids.items()}
    for form in (rows, ids, protos, values):
        assert store.get_online_features(features, form).to_dict() == {**ids, "together": [2, 1, 1]}
    answer = asyncio.run(store.get_online_features_async(features, rows))
    assert answer.to_dict()["together"] == [2, 1, 1]


def test_a_request_view_is_the_same_online_and_offline(store: Any) -> None:  # noqa: ANN401
    """With the same fields and time, both of Feast's doors and the function in the registry give the same."""
    features = [f"context_v1:{one}" for one in CONTEXT]
    frame = pd.DataFrame(ROWS).astype({"price_minor": "Int64"}).assign(event_timestamp=pd.Timestamp(NOW))
    job = store.get_historical_features(frame, features)
    offline = job.to_arrow()
    online = store.get_online_features(features, ROWS).to_dict()
    assert list(online) == ["user_id", "item_id", *CONTEXT]
    assert {name: offline[name].to_pylist() for name in CONTEXT} == {name: online[name] for name in CONTEXT}
    assert online["spend_with_request"] == [800 + 900, None, 0 + 5, None, 800 + 1]
    assert online["price_times_mean"] == [900 * 2 / 800, None, None, None, 1 * 2 / 800]
    assert online["above_dearest"] == [900 - 500, None, None, None, 1 - 500]
    assert online["returned_share"] == [1 / 1, 0 / 1, 1 / 1, 1 / 1, 0 / 1]
    assert online["hour_of_day"] == [3] * 5
    assert online["is_weekend"] == [1] * 5
    with read_at(NOW):
        again = feasts_own(store, features, NAMED).to_dict()
    assert again == store.get_online_features(features, NAMED).to_dict()
    jagged = job.to_jagged()
    assert jagged.scalars["context_v1__above_dearest"].to_pylist() == online["above_dearest"]
    pieces = list(job.to_batches(2))
    assert pa.concat_tables(pieces)["returned_share"].to_pylist() == online["returned_share"]
    service = store.get_historical_features(frame, store.get_feature_service("all"), full_feature_names=True).to_df()
    assert service["context_v1__spend_with_request"].tolist()[::2] == [1700, 5, 801]


def test_a_query_carries_the_request_too(store: Any) -> None:  # noqa: ANN401
    """Entity rows by SQL hold the request's fields as columns; one that is missing is named."""
    sql = (
        f"select user_id, item_id, price_minor, timestamptz '{NOW}' as event_timestamp from events where user_id = 'v'"
    )
    table = store.get_historical_features(sql, ["context_v1:spend_with_request"]).to_arrow()
    assert table["spend_with_request"].to_pylist() == [0 + 500]
    job = store.get_historical_features(sql.replace("price_minor,", ""), ["context_v1:spend_with_request"])
    with pytest.raises(ValueError, match="request view 'context_v1' reads 'price_minor' of every row"):
        job.to_arrow()


def test_views_of_other_sources_stand_beside_ours(store: Any) -> None:  # noqa: ANN401
    """One request mixes event-log views, request views, Feast's own views and on-demand views."""
    store.write_to_online_store(
        "ages_v1", pd.DataFrame({"user_id": ["u", "v"], "age": [30, 40], "event_timestamp": [NOW, NOW]})
    )
    features = ["older_v1:older", "spent_v1:purchases", "ages_v1:age", "context_v1:spend_with_request"]
    rows = [{**one, "years": 7} for one in ROWS[:3]]
    answer = store.get_online_features(features, rows)
    found = answer.to_dict()
    assert found == {
        "user_id": ["u", "v", "nobody"],
        "item_id": ["a", "b", "a"],
        "purchases": [2, 0, 0],
        "spend_with_request": [800 + 900, None, 0 + 5],
        "older": [37, 47, 7],
        "age": [30, 40, None],
    }
    assert answer.to_arrow().to_pydict() == found
    assert sorted(answer.proto.metadata.feature_names.val) == sorted(found)
    assert store.get_online_features(["ages_v1:age"], ROWS[:1]).to_dict()["age"] == [30]


@pytest.mark.parametrize(
    ("features", "rows", "error"),
    [
        (["spent_v1:spend"], [{"item_id": "a"}], "Missing join key values"),
        (["spent_v1:spend"], [{"user_id": "u"}, {"item_id": "a"}], "same keys"),
        (["context_v1:hour_of_day"], [{"user_id": "u", "item_id": "a"}], "price_minor"),
        (["spent_v1:nothing"], ROWS, "nothing"),
        (["nothing_v1:spend"], ROWS, "nothing_v1"),
        (["context_v1:hour_of_day"], [{"user_id": "u", "item_id": "a", "price_minor": 1.5}], "whole numbers"),
    ],
)
def test_a_wrong_request_is_refused(store: Any, features: list[str], rows: list[Any], error: str) -> None:  # noqa: ANN401
    """The error is Feast's own where Feast has one."""
    with pytest.raises(Exception, match=error):
        store.get_online_features(features, rows)


def test_feasts_server_sends_it(store: Any) -> None:  # noqa: ANN401
    """`feast serve` answers with the same values, request views included."""
    from fastapi.testclient import TestClient
    from feast.feature_server import get_app

    features = ["recent_v1:item_id", "context_v1:spend_with_request"]
    asked = {"features": features, "entities": {name: [one[name] for one in NAMED] for name in NAMED[0]}}
    with TestClient(get_app(store)) as client:
        sent = client.post("/get-online-features", json={**asked, "full_feature_names": True})
    assert sent.status_code == 200, sent.text
    names, vectors = sent.json()["metadata"]["feature_names"], sent.json()["results"]
    values = {name: vector["values"] for name, vector in zip(names, vectors, strict=True)}
    assert values["context_v1__spend_with_request"] == [800 + 900, None, 0 + 5, 800 + 1]
    assert values["recent_v1__item_id"] == [["", "a", "b"], ["b"], [], ["", "a", "b"]]


def test_versions_of_views_are_told_on_demand(store: Any) -> None:  # noqa: ANN401
    """As Feast's own answer, the protobuf names the views' versions where that is asked for."""
    asked = {"features": STORED[:1], "entity_rows": ROWS[:1], "include_feature_view_version_metadata": True}
    told = store.get_online_features(**asked).proto.metadata.feature_view_metadata
    assert [one.name for one in told] == ["recent_v1"]
    assert not store.get_online_features(STORED[:1], ROWS[:1]).proto.metadata.feature_view_metadata


def test_an_apply_is_seen(store: Any, made: tuple[Settings, dict[str, Any]]) -> None:  # noqa: ANN401
    """A service that this store applies anew answers anew at once; what another process applied, after a refresh."""
    from feast import FeatureService

    settings, objects = made
    one, two = (
        FeatureService(name="changing", features=[objects["spent_v1"][[feature]]]) for feature in ("spend", "dearest")
    )
    store.apply([one])
    assert list(store.get_online_features(store.get_feature_service("changing"), ROWS).to_dict())[-1] == "spend"
    store.apply([two])
    assert list(store.get_online_features(store.get_feature_service("changing"), ROWS).to_dict())[-1] == "dearest"
    other = open_store(settings)
    other.apply([one])
    store.refresh_registry()
    assert list(store.get_online_features(store.get_feature_service("changing"), ROWS).to_dict())[-1] == "spend"


def test_plans_end_with_the_registrys_copy(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """A plan is made once while the registry's copy stands, and again when its time is over."""
    from clicktrail import online_plan

    made = []
    real = online_plan._plan  # noqa: SLF001 - counted, not replaced
    monkeypatch.setattr(online_plan, "_plan", lambda *args, **names: made.append(1) or real(*args, **names))
    plans = online_plan.Plans()
    for _ in range(3):
        assert plans.get(store.registry, store.project, STORED, full_feature_names=True) is not None
    assert len(made) == 1
    monkeypatch.setattr(store.registry, "cached_registry_proto_ttl", timedelta(microseconds=1))
    for _ in range(2):
        plans.get(store.registry, store.project, STORED[:2], full_feature_names=True)
    assert len(made) == 3


def test_a_deprecated_view_is_told(store: Any, made: tuple[Settings, dict[str, Any]]) -> None:  # noqa: ANN401
    """Each door warns, once a process, and names what to read instead."""
    from clicktrail import readers, views

    old = views.aggregate_view(
        name="old_v1",
        entity=made[1]["user"],
        windows=[timedelta(days=1)],
        aggregations=[views.count()],
        owner="shop@example.com",
        description="of a test",
        tags={"deprecated": "2026-01-01", "replaced_by": "spent_v1"},
    )
    store.apply([old])
    rows = pd.DataFrame(NAMED).assign(event_timestamp=pd.Timestamp(NOW))[["user_id", "event_timestamp"]]
    with pytest.warns(DeprecationWarning, match=r"old_v1.*'spent_v1' instead"):
        store.get_historical_features(rows, ["old_v1:count_any_1d"])
    readers._warned.clear()  # noqa: SLF001 - as in another process
    with (
        pytest.warns(DeprecationWarning, match=r"old_v1.*'spent_v1' instead"),
        pytest.raises(ValueError, match="is not complete yet"),
    ):
        store.get_online_features(["old_v1:count_any_1d"], NAMED)


def test_redis_answers_as_sqlite(store: Any, made: tuple[Settings, dict[str, Any]]) -> None:  # noqa: ANN401
    """With a Redis in the settings, the same request gets the same answer; teardown leaves nothing there."""
    import redis

    settings, objects = made
    with redis_server() as url:
        opened = open_store(replace(settings, online_url=f"{url}#demo"))
        opened.apply(list(objects.values()))
        opened.materialize(NOW - timedelta(days=30), NOW)
        features = [*STORED, *(f"context_v1:{one}" for one in CONTEXT)]
        answers = [
            one.get_online_features(features, ROWS, full_feature_names=True).to_dict() for one in (store, opened)
        ]
        assert answers[0] == answers[1]
        client = redis.Redis.from_url(url)
        assert client.dbsize()
        online = opened._get_provider().online_store  # noqa: SLF001 - `teardown` would take the registry too
        online.teardown(opened.config, opened.list_feature_views(), [])
        assert not list(client.scan_iter("*head*"))
        assert online.applied(opened.config, opened.get_feature_view("spent_v1")) == 0


def test_long_answers_are_python_values() -> None:
    """Lists made at once are those of `to_pylist`: slices, nulls, times and strings."""
    from clicktrail.online_response import feast_column, python_values

    rng = np.random.default_rng(0)
    words = pa.array(rng.choice(["a", "bb", None], 60))
    stamps = pa.array(rng.integers(0, microseconds(NOW), 60), pa.timestamp("us", tz="UTC"))
    offsets = pa.array([0, None, 5, 5, 20, 60], pa.int64())
    for values in (words, words.dictionary_encode(), stamps, pa.array(range(60)), pa.array(rng.random(60))):
        lists = pa.LargeListArray.from_arrays(offsets, values)
        for column in (lists, lists.slice(1), lists.slice(2, 2), lists.slice(0, 0)):
            plain = feast_column(column)
            expected = [
                None if row is None else ["" if one is None else one for one in row] for row in column.to_pylist()
            ]
            assert python_values(plain) == plain.to_pylist() == expected
    assert feast_column(words.dictionary_encode()).to_pylist() == words.to_pylist()
