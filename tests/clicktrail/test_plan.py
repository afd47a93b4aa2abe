"""A plan of a shop: new views are measured, changed ones refused, and what building them took is told."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.arrivals import arrivals
from clicktrail import backfills
from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from tests.worlds import world

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

REPO = '''"""A small repo."""

from feast import Entity, FeatureService, ValueType

from clicktrail.views import aggregate_view, count, days

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
about = {"owner": "shop@example.com", "description": "what the user did"}
activity_v1 = aggregate_view(
    name="activity_v1", entity=user, windows=[days(7)], aggregations=[count("view"), count("cart")], **about
)
retention = FeatureService(name="retention", features=[activity_v1], owner="shop@example.com")
'''
NEXT = """activity_v2 = aggregate_view(
    name="activity_v2", entity=user, windows=[days(30)], aggregations=[count("view", name="count_view_7d")], **about
)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    """A shop with a small repo of its own, and a log of random worlds."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "definitions.py").write_text(REPO)
    shutil.copy(Settings(home=tmp_path).feature_repo / "feature_store.yaml", repo)
    settings = Settings(home=tmp_path / "home", clock="log", feature_repo=repo, bentoml_home=tmp_path / "bentoml")
    cases = [world(random.Random(seed), str(seed)) for seed in range(40)]  # noqa: S311 - reproducible test data
    EventLog(settings.log).append(arrivals(cases).select(arrow_schema().names))
    return settings


def apply(settings: Settings) -> Any:  # noqa: ANN401 - Feast's store, imported late
    from clicktrail.feast_repo import open_store
    from clicktrail.repo_objects import repo_objects

    found = repo_objects(settings.feature_repo)
    store = open_store(settings)
    store.apply([*found.entities, *found.feature_views, *found.feature_services])
    return store


def test_from_the_first_plan_to_a_refused_one(shop: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A first plan writes no registry; after apply and materialize nothing is new, and the seconds taken are told."""
    from clicktrail.plan import make_plan, to_json
    from clicktrail.plan_text import render

    first = make_plan(shop, entities=20)
    assert not shop.registry.exists()
    (view,) = first.changes.views
    assert (view.name, view.kind) == ("activity_v1", "new")
    measured = first.after["activity_v1"]
    assert measured.cost.entities == 20
    assert 0 < measured.cost.state_bytes_mean <= measured.cost.state_bytes_p99
    assert measured.cost.read_ms > 0
    users = EventLog(shop.log).query("select count(*) as n from events where event_type in ('view', 'cart')")
    assert measured.cost.rows == users["n"][0].as_py()
    assert measured.values["count_view_7d"].rows == 20
    assert [one.name for one in first.readers["activity_v1"]] == ["retention"]
    (expected,) = first.backfills
    assert (expected.view, expected.actual_seconds) == ("activity_v1", None)
    assert "s of the processor predicted" in render(first)
    json.dumps(to_json(first))

    apply(shop).materialize_incremental(end_date=datetime.now(UTC))
    assert "backfill of activity_v1:" in capsys.readouterr().out
    again = make_plan(shop)
    assert {one.kind for one in (*again.changes.views, *again.changes.services)} == {"same"}
    (taken,) = again.backfills
    assert taken.predicted_seconds == expected.predicted_seconds
    assert taken.actual_seconds is not None
    assert "backfills so far" in render(again)

    repo = shop.feature_repo / "definitions.py"
    repo.write_text(REPO.replace("days(7)", "days(8)"))
    refused = make_plan(shop)
    assert len(refused.changes.refusals) == 1
    assert refused.before["activity_v1"][0] == "activity_v1"
    assert [one.kind for one in refused.readers["activity_v1"]] == ["service"]
    text = render(refused)
    assert "feast apply would refuse this" in text
    assert "count_view_7d" in text
    assert "gone" in text

    repo.write_text(REPO + NEXT)
    beside = make_plan(shop, entities=20)
    old, values = beside.before["activity_v2"]
    assert old == "activity_v1"
    week, month = values.values["count_view_7d"], beside.after["activity_v2"].values["count_view_7d"]
    assert (week.mean or 0) <= (month.mean or 0)
    assert "beside activity_v1" in render(beside)


def test_the_command_ends_with_2_where_apply_would_refuse(shop: Settings, tmp_path: Path) -> None:
    """And writes the plan as JSON where it is asked to; a registry that cannot be read is a reason too."""
    apply(shop)
    (shop.feature_repo / "definitions.py").write_text(REPO.replace("days(7)", "days(8)"))
    environment = {
        "CLICKTRAIL_HOME": str(shop.home),
        "CLICKTRAIL_FEATURE_REPO": str(shop.feature_repo),
        "PATH": str(Path(sys.executable).parent),
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "clicktrail.plan", "--json", str(tmp_path / "plan.json"), "--entities", "5"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Declare 'activity_v2' beside it" in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [one["kind"] for one in plan["views"]] == ["changed"]
    assert len(plan["refusals"]) == 1
    shop.registry.write_bytes(b"")
    torn = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert torn.returncode == 2
    assert "is empty (0 bytes)" in torn.stdout


def test_a_plan_that_cannot_be_written_says_where(
    shop: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of a traceback; what was planned is printed all the same."""
    from clicktrail.plan import main

    monkeypatch.setenv("CLICKTRAIL_HOME", str(shop.home))
    monkeypatch.setenv("CLICKTRAIL_FEATURE_REPO", str(shop.feature_repo))
    with pytest.raises(SystemExit, match=r"cannot be written to .*nowhere/plan\.json"):
        main(["--json", str(tmp_path / "nowhere" / "plan.json"), "--entities", "5"])


def test_an_empty_log_leaves_nothing_to_measure(shop: Settings) -> None:
    """The changes are told all the same."""
    from clicktrail.plan import make_plan
    from clicktrail.plan_text import render

    shutil.rmtree(shop.log)
    plan = make_plan(shop)
    assert (dict(plan.after), list(backfills.backfills(backfills.folder_of(shop.log)))) == ({}, [])
    assert "there is nothing to measure" in render(plan)
