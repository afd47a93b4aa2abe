"""The feature repo as Feast's users meet it: apply, list, historical and online reads, materialize."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.arrivals import arrivals
from clicktrail.clock import read_at
from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.feast_repo import open_store, write_configuration
from clicktrail.preview import preview
from clicktrail.settings import Settings
from tests.worlds import START, world

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]
NOW = datetime.fromtimestamp(START + 150_000, UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop with a log of random worlds, after `feast apply` by Feast's own command line."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), clock="log")
    cases = [world(random.Random(seed), str(seed)) for seed in range(40)]  # noqa: S311 - reproducible test data
    EventLog(settings.log).append(arrivals(cases).select(arrow_schema().names))
    done = feast(settings, "apply")
    assert done.returncode == 0, done.stdout + done.stderr
    return settings


@pytest.fixture(scope="module")
def store(shop: Settings) -> Iterator[Any]:
    opened = open_store(shop)
    opened.materialize_incremental(end_date=datetime.now(UTC))
    yield opened
    opened.teardown()


def feast(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Feast's command line, from inside the repo folder."""
    command = [Path(sys.executable).with_name("feast"), "-f", write_configuration(settings), *words]
    return subprocess.run(
        command,
        cwd=settings.feature_repo,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )


def entity_rows(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": [
                f"{case}|{name}"
                for case, name in zip(rng.integers(0, 40, count), rng.choice(["u", "v"], count), strict=True)
            ],
            "card_id": [None] * count,
            "terminal_id": [f"{case}|T" for case in rng.integers(0, 50, count)],
            "event_timestamp": NOW + pd.to_timedelta(rng.integers(0, 90_000, count), unit="s"),
            "note": np.arange(count),
        }
    )


def test_the_command_line_lists_what_was_applied(shop: Settings) -> None:
    """`feast feature-views list` shows every view of the repo once."""
    listed = feast(shop, "feature-views", "list").stdout
    for view in ("user_recent_v1", "user_activity_v1", "card_recent_v1", "terminal_risk_v1", "user_profile_v1"):
        assert listed.count(view) == 1


def test_every_row_comes_out_in_its_place(store: Any) -> None:  # noqa: ANN401
    """Doubled rows, unknown entities and missing keys included: as many rows come out as went in, in order."""
    rows = entity_rows(300)
    rows = pd.concat([rows, rows.head(50)], ignore_index=True)
    job = store.get_historical_features(rows, store.get_feature_service("fraud"), full_feature_names=True)
    frame = job.to_df()
    assert frame["note"].tolist() == rows["note"].tolist()
    assert frame["card_activity_v1__count_payment_1d"].isna().all()  # no card was named
    typed = rows.astype({"user_id": "category"}).assign(event_timestamp=rows["event_timestamp"].dt.tz_localize(None))
    again = store.get_historical_features(typed, store.get_feature_service("fraud"), full_feature_names=True).to_df()
    same = [name for name in frame if "__" in name]
    pd.testing.assert_frame_equal(again[same], frame[same])  # categories are ids, a time without a zone is UTC
    pd.testing.assert_frame_equal(
        frame.iloc[:50].reset_index(drop=True), frame.iloc[300:350].reset_index(drop=True), check_like=True
    )


def test_jagged_is_what_the_lists_say(store: Any) -> None:  # noqa: ANN401
    """Ranges over the shared history hold, row by row, what the list columns hold."""
    rows = entity_rows(200)
    job = store.get_historical_features(rows, store.get_feature_service("recommendation"), full_feature_names=True)
    jagged, table = job.to_jagged(), job.to_arrow()
    sequence = jagged.sequences["user_recent_v1"]
    names = sequence.dictionaries["event_type"]
    for row, expected in enumerate(table["user_recent_v1__event_type"].to_pylist()):
        codes = sequence.values["event_type"][sequence.starts[row] : sequence.ends[row]]
        assert [names[code] for code in codes] == expected
    assert jagged.scalars["user_activity_v1__count_view_7d"].to_pylist() == (
        table["user_activity_v1__count_view_7d"].to_pylist()
    )


@pytest.mark.parametrize("service", ["recommendation", "retention", "fraud"])
def test_online_equals_offline(store: Any, service: str) -> None:  # noqa: ANN401
    """For every feature of a service, the online answer now is the offline answer now."""
    now = datetime.fromtimestamp(START + 3_000_000, UTC)
    names = ["user_id", "card_id", "terminal_id"] if service == "fraud" else ["user_id"]
    rows = entity_rows(60).drop(columns="note").assign(event_timestamp=pd.Timestamp(now), card_id="no card")
    features = store.get_feature_service(service)
    offline = store.get_historical_features(rows, features, full_feature_names=True).to_arrow()
    with read_at(now):
        online = store.get_online_features(features, rows[names].to_dict("records"), full_feature_names=True).to_dict()
    checked = [name for name in online if "__" in name and not name.endswith("__event_timestamp")]
    assert checked
    for name in checked:
        assert online[name] == offline[name].to_pylist(), name


def test_a_row_without_a_time_or_key_column_is_refused(store: Any) -> None:  # noqa: ANN401
    """The error names the row, or the column and the view that joins on it."""
    rows = entity_rows(3)
    with pytest.raises(ValueError, match="row 1 of entity_df has no event_timestamp"):
        store.get_historical_features(
            rows.assign(event_timestamp=[NOW, pd.NaT, NOW]),
            store.get_feature_service("retention"),
            full_feature_names=True,
        )
    with pytest.raises(ValueError, match=r"no column 'terminal_id'.*terminal_risk_v1"):
        store.get_historical_features(rows.drop(columns="terminal_id"), ["terminal_risk_v1:count_payment_1d"])


def test_sql_makes_entity_rows(store: Any) -> None:  # noqa: ANN401
    """A query over the log's view `events` stands for a data frame."""
    sql = (
        "select distinct user_id, timestamptz '2023-11-20 00:00:00+00' as event_timestamp "
        "from events where user_id is not null"
    )
    frame = store.get_historical_features(sql, ["user_profile_v1:count_purchase_90d"]).to_df()
    assert len(frame) == frame["user_id"].nunique() > 10


def test_a_changed_view_is_refused_by_apply(shop: Settings, tmp_path: Path) -> None:
    """Another declaration under a published name fails inside `feast apply` and names the way out."""
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    (repo / "definitions.py").write_text(
        "from clicktrail.views import sequence_view\n"
        "from feature_repo.entities import card\n"
        "card_recent_v1 = sequence_view(name='card_recent_v1', entity=card, last=51, events=['payment'],\n"
        "    fields=['price_minor'], owner='risk@example.com', description='one longer')\n"
    )
    command = [Path(sys.executable).with_name("feast"), "-f", write_configuration(shop), "apply"]
    done = subprocess.run(command, cwd=repo, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "card_recent_v2" in done.stdout + done.stderr
    published = open_store(shop).get_feature_view("card_recent_v1").batch_source.declaration
    assert published.last == 50  # refused before the registry had it: the shop goes on with what it has


def test_a_view_with_another_source_is_joined(store: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """An ordinary Feast view over a Parquet file is read beside ours, row by row."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Int64

    frame = pd.DataFrame(
        {"user_id": [f"{case}|u" for case in range(40)], "age": range(40), "event_timestamp": NOW - timedelta(days=1)}
    )
    frame.to_parquet(tmp_path / "ages.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a customer of the shop")
    view = FeatureView(
        name="user_age_v1",
        entities=[user],
        ttl=timedelta(days=30),
        schema=[Field(name="age", dtype=Int64)],
        source=FileSource(path=str(tmp_path / "ages.parquet"), timestamp_field="event_timestamp"),
    )
    store.apply([view])
    try:
        rows = entity_rows(120)
        features = ["user_age_v1:age", "user_profile_v1:count_purchase_90d"]
        table = store.get_historical_features(rows, features).to_arrow()
        expected = [int(one.split("|")[0]) if one.endswith("u") else None for one in rows["user_id"]]
        assert table["age"].to_pylist() == expected
        assert table["note"].to_pylist() == rows["note"].tolist()
    finally:
        store.apply([], objects_to_delete=[view], partial=False)


def test_preview_shows_both_doors(store: Any) -> None:  # noqa: ANN401
    """The preview of a view holds the same value online and offline at the same time."""
    t = (START + 3_000_000) * 1_000_000
    rows = preview(store, "user_activity_v1", "3|u", t, t)
    assert rows
    assert all(online == offline for _, online, offline in rows)
    with pytest.raises(ValueError, match="there is no view 'x'"):
        preview(store, "x", "3|u", t, t)


def test_a_result_is_saved_as_parquet(store: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """A retrieval job persists as Feast's saved datasets do, and does not overwrite unasked."""
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    job = store.get_historical_features(entity_rows(20), ["user_profile_v1:count_purchase_90d"])
    storage = SavedDatasetFileStorage(path=str(tmp_path / "saved.parquet"))
    job.persist(storage)
    assert pq.read_table(tmp_path / "saved.parquet").num_rows == 20
    with pytest.raises(ValueError, match="allow_overwrite"):
        job.persist(storage)
