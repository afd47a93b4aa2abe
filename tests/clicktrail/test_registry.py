"""The registry: six applies at once lose nothing, a torn one is refused, a published view is not changed in place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clicktrail.feast_repo import configuration, open_store, write_configuration
from clicktrail.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("feast")]

FEAST = Path(sys.executable).with_name("feast")
WORKERS = 6
ROUNDS = 5

_WORKER = """
import os, sys, time
from pathlib import Path
from clicktrail.feast_repo import open_store
from clicktrail.settings import Settings
from feature_repo.entities import user
from tests.clicktrail.test_registry import ROUNDS, WORKERS, sequence

home, me = Path(sys.argv[1]), int(sys.argv[2])
settings = Settings(home=home)
(home / f"ready{me}").touch()
while len(list(home.glob("ready*"))) < WORKERS:
    time.sleep(0.01)
for round_ in range(ROUNDS):
    store = open_store(settings)
    store.apply([user, sequence(f"own_{round_}_{me}_v1"), sequence(f"shared_{round_}_v1")])
"""


def sequence(name: str, last: int = 3, **about: Any) -> Any:  # noqa: ANN401 - a view of Feast, imported late
    from clicktrail.views import sequence_view
    from feature_repo.entities import user

    given = {"owner": "shop@example.com", "description": "of a test", **about}
    return sequence_view(name=name, entity=user, last=last, fields=["item_id"], **given)


def names(settings: Settings) -> set[str]:
    return {view.name for view in open_store(settings).list_feature_views()}


def started(command: list[Any], **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_six_processes_lose_nothing(tmp_path: Path) -> None:
    """Each registers a view of its own and one that all register, five times over: every one of them is there."""
    workers = [started([sys.executable, "-c", _WORKER, tmp_path, str(one)]) for one in range(WORKERS)]
    said = [one.communicate(timeout=280)[0] for one in workers]
    assert [one.returncode for one in workers] == [0] * WORKERS, said
    expected = {f"own_{round_}_{one}_v1" for round_ in range(ROUNDS) for one in range(WORKERS)}
    assert names(Settings(home=tmp_path)) == expected | {f"shared_{round_}_v1" for round_ in range(ROUNDS)}


def test_six_command_lines_lose_nothing(tmp_path: Path) -> None:
    """Six `feast apply` at once, three of the shop's repo and three of other projects: all exit 0, all is there."""
    settings = Settings(home=tmp_path / "home")
    commands = [([FEAST, "-f", write_configuration(settings), "apply"], settings.feature_repo)] * 3
    for one in range(3):
        repo = tmp_path / f"repo{one}"
        repo.mkdir()
        (repo / "definitions.py").write_text(
            f"from tests.clicktrail.test_registry import sequence\nview = sequence('other_{one}_v1')\n"
        )
        raw = configuration(settings) | {"project": f"project_{one}"}
        (repo / "feature_store.yaml").write_text(yaml.safe_dump(raw))
        commands.append(([FEAST, "apply"], repo))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [started(command, cwd=folder, env=environ) for command, folder in commands]
    said = [one.communicate(timeout=280)[0] for one in running]
    assert [one.returncode for one in running] == [0] * 6, said
    registry = open_store(settings).registry
    assert {one.name for one in registry.list_feature_services("clicktrail")} == {
        "recommendation",
        "retention",
        "fraud",
    }
    assert len(registry.list_feature_views("clicktrail")) == 8
    for one in range(3):
        assert [view.name for view in registry.list_feature_views(f"project_{one}")] == [f"other_{one}_v1"]


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    """A shop with one registered view, `kept_v1`."""
    settings = Settings(home=tmp_path)
    open_store(settings).apply([sequence("kept_v1")])
    return settings


@pytest.mark.parametrize(
    "tear",
    [
        lambda _: b"",
        lambda content: content[:10],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda _: b"something else",
        lambda _: b"SQLite format 3\0" + bytes(84),
    ],
    ids=["0 bytes", "its head", "half", "all but a byte", "a flipped bit", "no registry", "a database"],
)
def test_a_torn_registry_is_refused(shop: Settings, tear: Callable[[bytes], bytes]) -> None:
    """Neither a reader nor an apply takes it for an empty one; it stays as it is, and the error says the way out."""
    opened = open_store(shop)
    assert opened.list_feature_views()
    torn = tear(shop.registry.read_bytes())
    shop.registry.write_bytes(torn)
    for attempt in (
        lambda: open_store(shop).list_feature_views(),
        lambda: open_store(shop).apply([sequence("more_v1")]),
        opened.list_feature_views,
        lambda: opened.apply([sequence("more_v1")]),
        lambda: opened.registry.apply_feature_view(sequence("more_v1"), opened.project),
    ):
        with pytest.raises(ValueError, match=r"not taken for an empty one.*make features"):
            attempt()
    assert shop.registry.read_bytes() == torn


def test_the_command_line_refuses_a_torn_registry(shop: Settings) -> None:
    """`feast apply` on a file of 0 bytes fails, says why, and leaves the file alone."""
    shop.registry.write_bytes(b"")
    done = subprocess.run(
        [FEAST, "-f", write_configuration(shop), "apply"],
        cwd=shop.feature_repo,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "is empty (0 bytes)" in done.stdout + done.stderr
    assert shop.registry.read_bytes() == b""


def test_a_registry_that_never_was_is_made_and_one_that_was_removed_is_not(shop: Settings, tmp_path: Path) -> None:
    """A shop begins without one; under an open feature store it does not come back without its views."""
    fresh = Settings(home=tmp_path / "fresh")
    assert open_store(fresh).list_feature_views() == []
    assert fresh.registry.is_file()
    opened = open_store(shop)
    opened.list_feature_views()
    shop.registry.unlink()
    with pytest.raises(ValueError, match="removed after it was read"):
        opened.registry.apply_feature_view(sequence("more_v1"), opened.project)
    assert not shop.registry.exists()


def test_a_url_is_no_file(tmp_path: Path) -> None:
    """A database's URL belongs to Feast's SQL registry, and is not made into a folder of that name."""
    from feast.repo_config import RegistryConfig

    from clicktrail.registry import EventLogRegistryStore

    with pytest.raises(ValueError, match="registry_type: sql"):
        EventLogRegistryStore(RegistryConfig(path="sqlite:///registry.db"), tmp_path)


def test_killed_while_it_writes_the_registry_is_the_old_one(shop: Settings) -> None:
    """A process killed before its apply is in place leaves the registry as it was; the next one goes on."""
    before = shop.registry.read_bytes()
    code = (
        "from tests.clicktrail.test_registry import *\n"
        f"open_store(Settings(home=Path({str(shop.home)!r}))).apply([sequence('more_v1')])"
    )
    environ = {**os.environ, "CLICKTRAIL_FAILPOINT": "registry.before_rename"}
    done = subprocess.run([sys.executable, "-c", code], check=False, env=environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert shop.registry.read_bytes() == before
    open_store(shop).apply([sequence("more_v1")])
    assert names(shop) == {"kept_v1", "more_v1"}
    assert list(shop.shop_home.glob(".registry.db.*.tmp")) == []


def test_a_changed_view_is_refused_and_nothing_is_written(shop: Settings) -> None:
    """Without any online state, with new views beside it: registry and state are as before, for apply and below it."""
    shop.online.unlink()
    store = open_store(shop)
    before = shop.registry.read_bytes()
    for attempt in (
        lambda: store.apply([sequence("more_v1"), sequence("kept_v1", last=4)]),
        lambda: store.registry.apply_feature_view(sequence("kept_v1", last=4), store.project),
    ):
        with pytest.raises(ValueError, match=r"'kept_v1' is here with another declaration.*'kept_v2'"):
            attempt()
        assert shop.registry.read_bytes() == before
        assert not shop.online.exists()
    assert names(shop) == {"kept_v1"}
    assert store.get_feature_view("kept_v1").batch_source.declaration.last == 3


def test_after_a_refusal_the_next_apply_is_a_new_one(shop: Settings) -> None:
    """The same feature store goes on: what was refused is not carried along, a new owner is taken."""
    store = open_store(shop)
    with pytest.raises(ValueError, match="kept_v2"):
        store.apply([sequence("more_v1"), sequence("kept_v1", last=4)])
    store.apply([sequence("kept_v1", owner="other@example.com"), sequence("kept_v2", last=4)])
    assert names(shop) == {"kept_v1", "kept_v2"}
    assert open_store(shop).get_feature_view("kept_v1").owner == "other@example.com"


def test_two_that_declare_the_same_name_otherwise_are_told_apart(shop: Settings) -> None:
    """Both read the registry before either wrote: the first is published, the second refused."""
    first, second = open_store(shop).registry, open_store(shop).registry
    first.apply_feature_view(sequence("more_v1", last=1), "clicktrail", commit=False)
    second.apply_feature_view(sequence("more_v1", last=2), "clicktrail", commit=False)
    first.commit()
    with pytest.raises(ValueError, match="more_v2"):
        second.commit()
    assert open_store(shop).get_feature_view("more_v1").batch_source.declaration.last == 1


def test_a_deleted_name_is_free(shop: Settings) -> None:
    """What one apply deleted, the next may declare otherwise."""
    store = open_store(shop)
    store.apply([], objects_to_delete=[store.get_feature_view("kept_v1")], partial=False)
    store.apply([sequence("kept_v1", last=4)])
    assert open_store(shop).get_feature_view("kept_v1").batch_source.declaration.last == 4


def test_a_changed_request_view_is_refused(tmp_path: Path) -> None:
    """Features made of the request are published under their name as well."""
    from feast.types import Int64

    from clicktrail.request_declarations import hour_of_day, is_night
    from clicktrail.views import aggregate_view, count, hours, request_view
    from feature_repo.entities import user

    about: dict[str, Any] = {"owner": "shop@example.com", "description": "of a test"}
    stored = aggregate_view(name="seen_v1", entity=user, windows=[hours(1)], aggregations=[count()], **about)

    def context(*features: Any) -> Any:  # noqa: ANN401
        request = {"price_minor": Int64}
        return request_view(name="context_v1", request=request, inputs=[stored], features=list(features), **about)

    store = open_store(Settings(home=tmp_path))
    store.apply([user, stored, context(hour_of_day())])
    with pytest.raises(ValueError, match="context_v2"):
        store.apply([context(hour_of_day(), is_night(before=7))])
    store.apply([context(hour_of_day())])


def test_feasts_sql_registry_is_asked_too(shop: Settings, tmp_path: Path) -> None:
    """Where the repo keeps its registry in a database, `feast apply` finds the changed view before it writes."""
    from feast import FeatureStore, RepoConfig

    registry = {"registry_type": "sql", "path": f"sqlite:///{tmp_path / 'sql.db'}"}
    raw = configuration(shop) | {"registry": registry}
    store = FeatureStore(config=RepoConfig(**raw, repo_path=shop.feature_repo))
    store.apply([sequence("other_v1")])
    shop.online.unlink()
    sequence("other_v1").batch_source.validate(store.config)
    with pytest.raises(ValueError, match="other_v2"):
        sequence("other_v1", last=4).batch_source.validate(store.config)
