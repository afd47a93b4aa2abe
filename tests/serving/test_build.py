"""Bundles: what is in them, that they are published whole, and that nothing changed of them goes unseen."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from clicktrail.declaring import aggregates as aggregate_view
from clicktrail.declaring import count, days
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.settings import Settings
from serving import checks, manifest
from serving.build import CHECKOUT, build, main
from serving.bundle_store import publish
from serving.features import LiveState
from serving.manifest import BILL, MANIFEST, RECEIPT, RefusedError
from serving.model import Model
from tests.serving import shop
from tests.serving.conftest import BENTOML, Bundles
from validation.stamps import rules_stamp

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
    assert (
        content["run"] | {"log_offset": 8, "log_digest": shop.log_digest(), "training_set": "d" * 64} == content["run"]
    )
    assert content["run"] | {"revision": "f" * 40, "dirty": False} == content["run"]
    assert content["built"].keys() == {"revision", "dirty"}
    assert content["lineage"]["validated"] == [{"start": 0, "stop": 8, "by": rules_stamp()}]
    assert content["metrics"]["intervals"]["auc"]["popularity"] == {"difference": 0.2, "low": 0.1, "high": 0.3}
    assert content["defaults"] == {"shop": "demo", "clock": "log"}
    listed = content["files"] | content["envelope"]
    there = {path.relative_to(built.path).as_posix() for path in built.path.rglob("*") if path.is_file()}
    assert listed.keys() == {name for name in there if "__pycache__" not in name} - {MANIFEST}
    assert built.tag == f"clicktrail-fraud:{content['digest'][:16]}"


def test_brings_a_skew_receipt(bundles: Bundles) -> None:
    """Reads of every view that the model reads were compared, idle entities among them, feature by feature."""
    root = bundles.built["fraud"].path
    receipt = json.loads((root / RECEIPT).read_text())
    assert receipt["clock"] == "log"
    assert receipt["views"].keys() == {one.name for one in shop.DECLARATIONS["fraud"]}
    card = receipt["views"]["card_activity_v1"]
    assert (card["offset"], card["entities"]) == (8, {"busy": 2, "idle": 2, "unknown": 2})
    assert card["features"]["count_payment_7d"] == {"reads": 6, "equal": 6, "missing": 0, "extra": 0}
    content = json.loads((root / MANIFEST).read_text())
    assert RECEIPT in content["envelope"]
    assert RECEIPT not in content["files"]


def test_brings_a_bill_of_materials(bundles: Bundles) -> None:
    """CycloneDX of its requirements, as they are pinned, and of the modules that it carries."""
    root = bundles.built["fraud"].path
    text = (root / BILL).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = {one["name"]: one for one in json.loads(text)["components"]}
    for line in (root / "env/python/requirements.txt").read_text().split():
        name, pinned = line.split("==")
        assert parts[name.partition("[")[0]]["version"] == pinned
    listed = json.loads((root / MANIFEST).read_text())["files"]
    ours = {name: one["hashes"][0]["content"] for name, one in parts.items() if one["type"] == "file"}
    assert ours == {name: sha for name, sha in listed.items() if name.endswith(".py")}


def test_holds_no_code_but_ours(bundles: Bundles) -> None:
    """No pickle, no checkpoint, and no requirement beyond what serving needs."""
    root = bundles.built["recommendation"].path
    assert not [path for path in root.rglob("*") if path.suffix in (".pkl", ".pt", ".ckpt", ".joblib")]
    wanted = (root / "env/python/requirements.txt").read_text().split()
    of_bentoml = {"bentoml", "opentelemetry-api", "prometheus_client", "starlette"}
    packages = {"cryptography", "numba", "numpy", "onnxruntime", "pyarrow", "redis[hiredis]", "tqdm"}
    assert packages <= {one.split("==")[0] for one in wanted} <= packages | of_bentoml


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


def test_any_flipped_byte_of_the_manifest_is_found(copy: Path) -> None:
    """Also where it decides nothing: the home, the revision of the code that built it."""
    path = copy / MANIFEST
    before = path.read_bytes()
    rng = random.Random(1)  # noqa: S311 - a test's choice
    for place in [before.index(word) + len(word) + 3 for word in (b'"home', b'"revision', b'"seal')] + [
        rng.randrange(len(before)) for _ in range(200)
    ]:
        path.write_bytes(before[:place] + bytes([before[place] ^ (1 << rng.randrange(8))]) + before[place + 1 :])
        with pytest.raises(RefusedError):
            manifest.read(copy)
    path.write_bytes(before)
    assert manifest.read(copy).task == "fraud"


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
    found = live.read({"user_id": ["ann"]}, live.moment().t).results
    assert {view: one.known for view, one in found.items()} == {"user_recent_v1": [True], "user_activity_v1": [True]}
    other = Settings(home=tmp_path / "other")
    shop.open_shop(other, shop.events().slice(3, 1))  # bob alone
    settings.online.unlink()
    shutil.copyfile(other.online, settings.online)
    assert live.ready()
    found = live.read({"user_id": ["ann"]}, live.moment().t).results
    assert {view: one.known for view, one in found.items()} == {"user_recent_v1": [False], "user_activity_v1": [False]}
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
        "ok  lineage",
        "ok  skew receipt",
        "ok  code",
        "ok  golden requests",
        "ok  live state",
    ]


def verify(bundle: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command of this checkout."""
    command = [sys.executable, "-m", "serving.verify", str(bundle)]
    return subprocess.run(command, env=environ, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_verify_refuses_an_unvalidated_batch(copy: Path, bundles: Bundles) -> None:
    """A bundle whose record names rows that nothing validated is refused, though its digests are right."""
    content = json.loads((copy / MANIFEST).read_text())
    content["lineage"]["validated"][0]["by"] = ""
    content["digest"] = manifest.digest_of(content)
    content["version"] = content["digest"][: manifest.VERSION_LENGTH]
    content["seal"] = manifest.seal_of(content)
    (copy / MANIFEST).write_bytes(manifest.canonical(content))
    done = verify(copy, bundles.environ())
    assert done.returncode == 1
    assert re.search(r"REFUSED: .* learned from rows 0 to 7 of the log, which nothing is known to", done.stderr)


def test_verify_demands_a_signature(copy: Path, bundles: Bundles, tmp_path: Path) -> None:
    """Where trusted keys are named, an unsigned bundle is refused; one that was built before can be signed."""
    store, trusted = tmp_path / "store", tmp_path / "ops.pem"
    key = Ed25519PrivateKey.generate()
    (tmp_path / "ops.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    trusted.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    environ = bundles.environ(CLICKTRAIL_TRUSTED_KEYS=str(trusted))
    content = json.loads((copy / MANIFEST).read_text())
    unsigned = publish(store, Path(shutil.copytree(copy, tmp_path / "aside")), content).path
    done = verify(unsigned, environ)
    assert (done.returncode, "is not signed" in done.stderr) == (1, True)
    assert not publish(store, copy, content, key=tmp_path / "ops.key").fresh
    done = verify(unsigned, environ)
    assert done.returncode == 0, done.stderr
    assert "ok  signature: by ops.pem" in done.stdout


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


def test_a_run_that_did_not_pass_its_gates_is_not_latest(copy: Path, bundles: Bundles, tmp_path: Path) -> None:
    """Its bundle is in the store under its version; `latest` names what it named before."""
    family = tmp_path / "store" / "bentos" / "clicktrail-fraud"
    shutil.copytree(bundles.built["fraud"].path, family / "older")
    (family / "latest").write_text("older")
    built = publish(tmp_path / "store", copy, json.loads((copy / MANIFEST).read_text()), promote=False)
    assert (built.fresh, built.latest, latest(tmp_path / "store")) == (True, False, "older")


def test_refuses_rows_that_nothing_validated(bundles: Bundles, tmp_path: Path) -> None:
    """A run on a log that rows were appended to directly is no bundle."""
    EventLog(Settings(home=tmp_path).log).append(shop.events())
    with pytest.raises(ValueError, match=r"rows 0 to 7 of the log .*segment 0+\.parquet.*make ingest"):
        build(replace(bundles.config("fraud"), home=tmp_path, bentoml_home=tmp_path / "store"))


def test_refuses_a_state_that_reads_otherwise(bundles: Bundles, tmp_path: Path) -> None:
    """Where online reads are not those of the offline store the feature is named, and nothing is built."""
    home = Path(shutil.copytree(bundles.settings.home / "shops", tmp_path / "home" / "shops")).parent
    settings, other = Settings(home=home), EventLog(tmp_path / "other")
    settings.online.unlink()
    table = shop.events()
    place = table.column_names.index("price_minor")
    other.append(table.set_column(place, table.field(place), pc.add(table["price_minor"], 1)))
    for view in shop.DECLARATIONS["fraud"]:
        OnlineState(settings.online).catch_up(other, view)
    with pytest.raises(ValueError, match=r"card_recent_v1, 4 differ .*: price_minor in 4 .*--rebuild"):
        build(replace(bundles.config("fraud"), home=home, bentoml_home=tmp_path / "store"))


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
