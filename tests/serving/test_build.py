"""Bundles: what is in them, that they are published whole, and that nothing changed of them goes unseen."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clicktrail.declaring import aggregates as aggregate_view
from clicktrail.declaring import count, days
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings
from serving import checks, manifest
from serving.build import CHECKOUT, build, main
from serving.features import LiveState
from serving.manifest import MANIFEST, RefusedError
from serving.model import Model
from tests.serving import shop
from tests.serving.conftest import BENTOML, Bundles

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    """A copy of the fraud bundle, to be damaged."""
    return Path(shutil.copytree(bundles.built["fraud"].path, tmp_path / "bento"))


def latest(store: Path) -> str:
    return (store / "bentos" / "clicktrail-fraud" / "latest").read_text()


def test_says_what_it_is_made_of(bundles: Bundles) -> None:
    """The manifest holds origin, fingerprints, metrics and the sha256 of every file, and the version is its digest."""
    built = bundles.built["fraud"]
    content = json.loads((built.path / MANIFEST).read_text())
    assert content["fingerprints"] == {one.name: one.fingerprint for one in shop.DECLARATIONS["fraud"]}
    assert content["run"]["log_offset"] == 8
    assert content["run"]["revision"] == "f" * 40
    assert content["defaults"] == {"shop": "demo", "clock": "log"}
    listed = content["files"] | content["envelope"]
    there = {path.relative_to(built.path).as_posix() for path in built.path.rglob("*") if path.is_file()}
    assert listed.keys() == {name for name in there if "__pycache__" not in name} - {MANIFEST}
    assert built.tag == f"clicktrail-fraud:{content['digest'][:16]}"


def test_holds_no_code_but_ours(bundles: Bundles) -> None:
    """No pickle, no checkpoint, and no requirement beyond what serving needs."""
    root = bundles.built["recommendation"].path
    assert not [path for path in root.rglob("*") if path.suffix in (".pkl", ".pt", ".ckpt", ".joblib")]
    wanted = (root / "env/python/requirements.txt").read_text().split()
    packages = {"bentoml", "cryptography", "numba", "numpy", "onnxruntime", "pyarrow", "redis[hiredis]", "starlette"}
    assert {one.split("==")[0] for one in wanted} == packages


def test_the_same_run_gives_the_same_bundle(bundles: Bundles, tmp_path: Path) -> None:
    """Built again in another store, a run gives the same version and the same bytes."""
    again = build(replace(bundles.config("fraud"), bentoml_home=tmp_path))
    first = bundles.built["fraud"]
    assert again.tag == first.tag
    assert manifest.listing(again.path) == manifest.listing(first.path)
    assert (again.path / MANIFEST).read_bytes() == (first.path / MANIFEST).read_bytes()


def test_any_flipped_byte_is_found(copy: Path) -> None:
    """Whatever byte of whatever file is flipped, the manifest does not fit any more."""
    rng = random.Random(0)  # noqa: S311 - a test's choice
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        before = path.read_bytes()
        place = rng.randrange(len(before))
        path.write_bytes(before[:place] + bytes([before[place] ^ (1 << rng.randrange(8))]) + before[place + 1 :])
        with pytest.raises(RefusedError):
            manifest.check_files(manifest.read(copy))
        path.write_bytes(before)
    assert manifest.check_files(manifest.read(copy)) == len(files) - 1 + _empty_files(copy)


def _empty_files(root: Path) -> int:
    return sum(1 for path in root.rglob("*") if path.is_file() and not path.stat().st_size)


def test_missing_and_foreign_files_are_found(copy: Path) -> None:
    """A file that is gone, and a module that was laid among the sources, are both named."""
    (copy / "src/numpy.py").write_text("")
    with pytest.raises(RefusedError, match=r"not in the manifest: src/numpy\.py"):
        manifest.check_files(manifest.read(copy))
    (copy / "src/numpy.py").unlink()
    (copy / "src/bundle/golden.json").unlink()
    with pytest.raises(RefusedError, match=r"missing: src/bundle/golden\.json"):
        manifest.check_files(manifest.read(copy))


def test_another_answer_than_in_training_is_refused(bundles: Bundles) -> None:
    """A model that answers a golden request differently does not serve."""
    model = Model.load(manifest.read(bundles.built["fraud"].path))
    assert checks.check_goldens(model) == 2
    golden = json.loads(json.dumps(model.golden))
    golden["cases"][1]["answer"]["score"] += 2 * shop.TOLERANCE
    with pytest.raises(RefusedError, match="golden request 2"):
        checks.check_goldens(replace(model, golden=golden))


def test_another_item_ahead_is_refused(bundles: Bundles) -> None:
    """A recommendation is compared also with the items that training did not rank."""
    model = Model.load(manifest.read(bundles.built["recommendation"].path))
    golden = json.loads(json.dumps(model.golden))
    answer = golden["cases"][0]["answer"]
    golden["cases"][0]["answer"] = {"items": answer["items"][1:3], "scores": answer["scores"][1:3]}
    with pytest.raises(RefusedError, match="golden request 1"):
        checks.check_goldens(replace(model, golden=golden))


def test_state_of_other_declarations_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    """A state whose view was declared otherwise, or that is not there, is refused with the way out."""
    model = Model.load(manifest.read(bundles.built["retention"].path))
    elsewhere = Settings(home=tmp_path)
    with pytest.raises(RefusedError, match="CLICKTRAIL_HOME"):
        LiveState(elsewhere, model.declarations)
    _open_other_shop(elsewhere)
    with pytest.raises(RefusedError, match="user_activity_v1"):
        LiveState(elsewhere, model.declarations)


def test_notices_when_the_state_is_replaced(tmp_path: Path) -> None:
    """State that was built anew is read at once; state of other declarations in its place makes it unready."""
    settings = Settings(home=tmp_path / "home", clock="log")
    shop.open_shop(settings)
    live = LiveState(settings, [shop.USER_RECENT, shop.USER_ACTIVITY])
    assert live.ready()
    assert live.read({"user_id": ["ann"]}, live.moment().t).known == {
        "user_recent_v1": [True],
        "user_activity_v1": [True],
    }
    other = Settings(home=tmp_path / "other")
    shop.open_shop(other, shop.events().slice(3, 1))  # bob alone
    settings.online.unlink()
    shutil.copyfile(other.online, settings.online)
    assert live.ready()
    assert live.read({"user_id": ["ann"]}, live.moment().t).known == {
        "user_recent_v1": [False],
        "user_activity_v1": [False],
    }
    assert live.moment().offset == 1
    settings.online.unlink()
    assert not live.ready()
    _open_other_shop(Settings(home=tmp_path / "changed"))
    shutil.copyfile(Settings(home=tmp_path / "changed").online, settings.online)
    assert not live.ready()


def _open_other_shop(settings: Settings) -> None:
    log = EventLog(settings.log)
    log.append(shop.events())
    other = aggregate_view(
        name="user_activity_v1", entity_key="user_id", windows=[days(8)], aggregations=[count("view")]
    )
    for declaration in (shop.USER_RECENT, other):
        OnlineState(settings.online).catch_up(log, declaration)


def test_serve_refuses_a_damaged_bundle(copy: Path, bundles: Bundles) -> None:
    """`bentoml serve` of a bundle with one byte changed ends with an error that names the file."""
    path = copy / "src/bundle/model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = subprocess.run(
        [BENTOML, "serve", copy],
        env=bundles.environ(),
        cwd=copy.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode != 0
    assert "changed: src/bundle/model.onnx" in done.stderr


def test_serve_refuses_another_state(bundles: Bundles, tmp_path: Path) -> None:
    """`bentoml serve` beside a state of other declarations ends with an error that names the view."""
    _open_other_shop(Settings(home=tmp_path))
    done = subprocess.run(
        [BENTOML, "serve", "clicktrail-retention:latest"],
        env=bundles.environ(CLICKTRAIL_HOME=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode != 0
    assert "user_activity_v1" in done.stderr


def test_verify_tells_what_it_checked(bundles: Bundles) -> None:
    """`python -m serving.verify TAG` runs the bundle's own code and prints a line a check."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.verify", "clicktrail-fraud:latest"],
        env=bundles.environ(),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "ok  files",
        "ok  code",
        "ok  golden requests",
        "ok  live state",
    ]


def test_modules_from_elsewhere_are_refused(bundles: Bundles) -> None:
    """A bundle whose code was taken from a checkout instead does not answer: here the tests' own is loaded."""
    with pytest.raises(RefusedError, match="not from the bundle"):
        checks.check_origin(bundles.built["fraud"].path)


_PUBLISH = """
import json, pathlib, sys
from serving.bundle_store import publish
store, bento = map(pathlib.Path, sys.argv[1:])
publish(store, bento, json.loads((bento / "src/bundle/manifest.json").read_text()))
"""


@pytest.mark.parametrize(
    ("moment", "named"),
    [
        ("bundle.before_rename", "older"),
        ("bundle.after_rename", "older"),
        ("bundle.latest.before_rename", "older"),
        ("bundle.latest.after_rename", "newer"),
    ],
)
def test_killed_while_publishing(bundles: Bundles, copy: Path, tmp_path: Path, moment: str, named: str) -> None:
    """Killed at any publish, `latest` names a whole bundle; the next try completes and leaves nothing behind."""
    store = tmp_path / "store"
    family = store / "bentos" / "clicktrail-fraud"
    shutil.copytree(bundles.built["fraud"].path, family / "older")
    (family / "latest").write_text("older")
    version = bundles.built["fraud"].path.name
    command = [sys.executable, "-c", _PUBLISH, store, copy]
    killed = subprocess.run(command, env=os.environ | {"CLICKTRAIL_FAILPOINT": moment}, cwd=CHECKOUT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert latest(store) == ("older" if named == "older" else version)
    assert all((one / "bento.yaml").is_file() for one in family.iterdir() if one.is_dir())
    again = copy if copy.exists() else Path(shutil.copytree(bundles.built["fraud"].path, copy))
    subprocess.run([*command[:-1], again], cwd=CHECKOUT, check=True)
    assert latest(store) == version
    assert sorted(one.name for one in family.iterdir()) == sorted([version, "latest", "older"])
    assert manifest.check_files(manifest.read(family / version)) == bundles.built["fraud"].files - 1


def test_refuses_what_could_hold_code(bundles: Bundles, tmp_path: Path) -> None:
    """An export with a pickle in it is no bundle."""
    run = Path(shutil.copytree((bundles.settings.runs / "fraud" / "latest").resolve(), tmp_path / "run"))
    (run / "export" / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"model\.pkl may not travel"):
        build(replace(bundles.config("fraud"), run=run, bentoml_home=tmp_path / "store"))


def test_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a run the command ends with 1 and names the command to run first."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    assert main(["--task", "fraud"]) == 1
    assert "make train TASK=fraud" in capsys.readouterr().err
