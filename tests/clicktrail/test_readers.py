"""Who reads a view: services, request views, the newest run of each task, bundles."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from clicktrail import lint
from clicktrail.feast_repo import open_store
from clicktrail.readers import Reader, readers_of, warn_if_deprecated
from clicktrail.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop with the repo's views, two runs of fraud, one of churn, and bundles of two shops."""
    from feature_repo import definitions

    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, bentoml_home=home / "bentoml")
    open_store(settings).apply([getattr(definitions, name) for name in definitions.__all__])
    run(settings, "fraud", "r1", "fraud", ["card_recent_v1"])
    run(settings, "fraud", "r2", "fraud", ["card_recent_v1", "card_activity_v1"])
    run(settings, "churn", "r3", "retention", None)
    run(settings, "elsewhere", "r4", "fraud", ["card_activity_v1"], shop="other")
    bundle(settings, "fraud", "v1", "r1", ["card_recent_v1"])
    bundle(settings, "fraud", "v2", "r2", ["card_recent_v1", "card_activity_v1"])
    bundle(settings, "fraud", "v3", "r4", ["card_activity_v1"], shop="other")
    return settings


def write(path: Path, content: Any) -> None:  # noqa: ANN401 - JSON data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run(settings: Settings, task: str, name: str, service: str, views: list[str] | None, *, shop: str = "demo") -> None:
    """A run as training leaves it, and `latest` on it; without `views` its export is missing."""
    folder = settings.runs / task / name
    write(folder / "config.json", {"task": task, "feature_service": service})
    write(folder / "metrics.json", {"data": {"shop": shop}})
    if views is not None:
        write(folder / "export" / "interface.json", {"declarations": [{"name": view} for view in views]})
    latest = folder.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)


def bundle(settings: Settings, task: str, version: str, run_id: str, views: list[str], *, shop: str = "demo") -> None:
    """A bundle's manifest as serving leaves it, named latest."""
    family = settings.bentoml_home / "bentos" / f"clicktrail-{task}"
    manifest = {
        "feature_service": task,
        "fingerprints": dict.fromkeys(views, "0"),
        "run": {"id": run_id},
        "defaults": {"shop": shop},
    }
    write(family / version / "src" / "bundle" / "manifest.json", manifest)
    if shop == "demo":
        (family / "latest").write_text(version)


def test_all_that_read_a_view_are_named(shop: Settings) -> None:
    """The newest run of a task counts, not the one before it; every bundle does; other shops' do not."""
    assert readers_of("card_activity_v1", shop) == [
        Reader(kind="bundle", name="clicktrail-fraud:v2", detail="run r2, latest"),
        Reader(kind="request view", name="payment_context_v1", detail="risk@example.com"),
        Reader(kind="service", name="fraud", detail="risk@example.com"),
        Reader(kind="task", name="fraud", detail="run r2"),
    ]
    assert [one.name for one in readers_of("card_recent_v1", shop) if one.kind == "bundle"] == [
        "clicktrail-fraud:v1",
        "clicktrail-fraud:v2",
    ]


def test_a_run_without_its_export_reads_what_its_service_reads(shop: Settings) -> None:
    """Where a run does not name its views, its feature service does."""
    assert Reader(kind="task", name="churn", detail="run r3") in readers_of("user_profile_v1", shop)
    assert readers_of("item_activity_v1", shop) == []


def test_the_command_line_lists_them(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make readers VIEW=` prints a line each, says when nobody is left, and which views there are."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(shop.home))
    monkeypatch.setenv("BENTOML_HOME", str(shop.bentoml_home))
    assert lint.main(["--readers", "card_activity_v1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "card_activity_v1 is read by 4:",
        "  bundle        clicktrail-fraud:v2  run r2, latest",
        "  request view  payment_context_v1   risk@example.com",
        "  service       fraud                risk@example.com",
        "  task          fraud                run r2",
    ]
    lint.main(["--readers", "item_activity_v1"])
    assert capsys.readouterr().out == "item_activity_v1 is read by nobody\n"
    with pytest.raises(SystemExit, match=r"there is no view 'x'; there are: .*user_recent_v1"):
        lint.main(["--readers", "x"])


def test_a_deprecated_view_warns_once() -> None:
    """The first read names the day and what replaces it, later ones are silent; other views never warn."""
    from clicktrail.views import sequence_view
    from feature_repo.entities import user

    def view(name: str, **tags: str) -> Any:  # noqa: ANN401
        about = {"owner": "shop@example.com", "description": "of a test"}
        return sequence_view(name=name, entity=user, last=3, fields=["item_id"], tags=tags, **about)

    old = view("warned_v1", deprecated="2027-01-31", replaced_by="warned_v2")
    with pytest.warns(DeprecationWarning, match="'warned_v1' is deprecated from 2027-01-31 on: read 'warned_v2'"):
        warn_if_deprecated(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_deprecated(old)
        warn_if_deprecated(view("warned_v2"))
