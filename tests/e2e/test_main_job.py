"""The main job through its front door: killed at every publish, then completed, then asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.free_port import free_port
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("e2e")]
ROOT = Path(__file__).resolve().parent.parent.parent
SHOP = ("SIZE=60000", "DAYS=70", "SEED=5", "TASK=retention", "ARGS=--epochs 2 --quiet")
KILLS = {
    "ingest": [
        "quarantine.before_rename",
        "log.segment.before_rename",
        "log.before_manifest",
        "catalogue.before_rename",
    ],
    "features": ["registry.before_state"],
    "train": [
        "run.training_set.before_rename",
        "run.after_fit",
        "run.before_rename",
        "run.latest.before_point",
        "state.before_commit",
        "bundle.before_rename",
        "bundle.latest.before_rename",
    ],
}


def make(home: Path, target: str, *words: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """One make target in a home of its own, as a user types it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CLICKTRAIL_", "MAKE"))}
    environment = inherited | {"CLICKTRAIL_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")}
    if failpoint:
        environment["CLICKTRAIL_FAILPOINT"] = failpoint
    return subprocess.run(
        ["make", target, *SHOP, *words], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose every step was killed at each of its publishes before `make train` completed."""
    folder = tmp_path_factory.mktemp("home")
    for target, moments in KILLS.items():
        for moment in moments:
            died = make(folder, target, failpoint=moment)
            assert died.returncode != 0, f"{moment} was not reached\n{died.stdout[-3000:]}"
            assert "Killed" in died.stdout + died.stderr, f"{moment}: {died.stderr[-3000:]}"
    done = make(folder, "train")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "closing.txt").write_text(done.stdout)
    return folder


def test_killed_everywhere_nothing_is_lost_or_doubled(home: Path, tmp_path: Path) -> None:
    """The log equals that of an undisturbed intake; there is one complete run and one bundle."""
    assert make(tmp_path, "ingest").returncode == 0
    disturbed, calm = EventLog(Settings(home=home).log), EventLog(Settings(home=tmp_path).log)
    assert disturbed.version == calm.version > 0
    assert disturbed.digest() == calm.digest()
    runs = [path for path in (home / "runs" / "retention").iterdir() if path.name != "latest"]
    assert [path.name for path in runs] == [(home / "runs" / "retention" / "latest").resolve().name]
    bundles = [path for path in (home / "bentoml" / "bentos" / "clicktrail-retention").iterdir() if path.is_dir()]
    assert len(bundles) == 1
    assert not list(home.rglob("*.tmp"))  # nor anything that the killed ones had written aside


def test_a_run_leaves_what_others_can_recompute(home: Path) -> None:
    """Metrics, predictions, report, card and export are there, and the closing table names them."""
    run = home / "runs" / "retention" / "latest"
    metrics = json.loads((run / "metrics.json").read_text())
    assert {
        "task",
        "primary_metric",
        "model",
        "baselines",
        "oracle",
        "intervals",
        "data",
        "seconds",
        "revision",
    } <= set(metrics)
    for name in ("config.json", "predictions.parquet", "report.html", "model_card.md", "export/model.onnx"):
        assert (run / name).stat().st_size > 0
    closing = (home / "closing.txt").read_text()
    assert "retention" in closing
    assert "make serve TASK=retention" in closing


def test_a_second_run_does_nothing_again(home: Path) -> None:
    """With the same inputs `make train` leaves log, run and bundle as they are."""
    before = EventLog(Settings(home=home).log).digest(), (home / "runs" / "retention" / "latest").resolve()
    assert make(home, "train").returncode == 0
    assert (EventLog(Settings(home=home).log).digest(), (home / "runs" / "retention" / "latest").resolve()) == before


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """`make serve`, ended by its own process group."""
    port = free_port()
    environment = os.environ | {"CLICKTRAIL_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")}
    command = ["make", "serve", "TASK=retention", f"PORT={port}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield _when_ready(f"http://127.0.0.1:{port}", process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _when_ready(url: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(240):
        assert process.poll() is None, "the server ended"
        try:
            if httpx.get(f"{url}/readyz").status_code == httpx.codes.OK:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    message = "the server was not ready within two minutes"
    raise AssertionError(message)


def test_the_bundle_answers_over_http(server: str, home: Path) -> None:
    """A user of the log gets a score, a stranger an honest cold start, nonsense a 400 that names the field."""
    log = EventLog(Settings(home=home).log)
    user = log.query("select user_id, count(*) n from events group by 1 order by n desc, 1 limit 1")["user_id"][
        0
    ].as_py()

    def ask(body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{server}/score", json=body)

    known = ask({"user_id": user})
    assert known.status_code == httpx.codes.OK, known.text
    assert "clicktrail-retention:" in known.text
    assert known.json()["cold_start"] is False
    assert ask({"user_id": "a stranger"}).json()["cold_start"] is True
    wrong = ask({"user_id": 12})
    assert wrong.status_code == httpx.codes.BAD_REQUEST
    assert "user_id" in wrong.text
