"""A real front with real bundles, under load from the first request to the last."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import httpx
import onnx
import psutil
import pytest
from onnx import numpy_helper

from benchmarks.free_port import free_port
from serving.build import CHECKOUT, build
from serving.rollout import state
from serving.rollout.state import Canary, Step
from tests.serving import shop
from tests.serving.conftest import Bundles

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

PRICES = (100, 700, 1500, 2500)
RATE = 40.0
"""Requests a second of each of the load's threads."""
THREADS = 2
AT_ONCE = 3.0
"""Seconds; a fifth of one where the machine has nothing else to do."""


def payment(user: str, price: int) -> dict[str, Any]:
    return {
        "event_id": "p1",
        "user_id": user,
        "card_id": "new-card",  # nothing known: the price alone decides the score
        "terminal_id": None,
        "price_minor": price,
        "device": "phone",
        "event_timestamp": shop.at(40).isoformat(),
    }


@dataclass(kw_only=True)
class Answered:
    """One answer to the load."""

    at: float
    price: int
    status: int
    tag: str | None = None
    role: str | None = None
    body: dict[str, Any] = field(default_factory=dict)


class Load:
    """Requests at a fixed rate from threads of their own, whatever becomes of them."""

    def __init__(self, url: str) -> None:
        """`url` is the front's."""
        self.answers: list[Answered] = []
        self._url, self._ended = url, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and wait for the last answers."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        due = time.monotonic() + number / RATE / THREADS
        count = 0
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                due += 1 / RATE
                count += 1
                price = PRICES[count % len(PRICES)]
                try:
                    answer = client.post("/score", json=payment(f"u{number}-{count % 300}", price))
                except httpx.TransportError as error:
                    self.answers.append(
                        Answered(at=time.monotonic(), price=price, status=0, body={"error": repr(error)})
                    )
                    continue
                self.answers.append(
                    Answered(
                        at=time.monotonic(),
                        price=price,
                        status=answer.status_code,
                        tag=answer.headers.get("x-clicktrail-model"),
                        role=answer.headers.get("x-clicktrail-role"),
                        body=answer.json(),
                    )
                )


@dataclass(frozen=True, kw_only=True)
class Front:
    """A running front, and what steers it."""

    client: httpx.Client
    file: Path
    log: Path

    def tells(self) -> dict[str, Any]:
        """Who answers now."""
        return self.client.get("/rollout").json()

    def change(self, step: Step, *, settled: bool = True) -> float:
        """Change the file; returns the seconds until the front has followed."""
        began = time.monotonic()
        revision = state.change(self.file, step).revision
        self.until(lambda told: told["revision"] >= revision and (told["settled"] or not settled))
        return time.monotonic() - began

    def until(self, true: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it tells something."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if true(self.tells()):
                return
            time.sleep(0.05)
        pytest.fail(f"{self.tells()}\n{self.log.read_text()[-3000:]}")


def command(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving.rollout", "--task", "fraud", *arguments],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store with two bundles whose scores differ, and one that was tampered with."""

    environ: dict[str, str]
    home: Path
    one: str
    other: str
    tampered: str


@pytest.fixture(scope="module")
def store(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("rollout")
    built = bundles.built["fraud"]
    family = folder / "bentos" / "clicktrail-fraud"
    shutil.copytree(built.path, family / built.path.name)
    steeper = shop.write_run(folder / "runs", "fraud", "20260402-120000")
    make_steeper(steeper / "export")
    other = build(replace(bundles.config("fraud"), run=steeper, bentoml_home=folder))
    # a copy under another version: its files are not those of its manifest
    tampered = shutil.copytree(other.path, family / ("f" * 16))
    described = tampered / "bento.yaml"
    described.write_text(described.read_text().replace(f"version: {other.path.name}", f"version: {tampered.name}"))
    (family / "latest").write_text(built.path.name)
    home = bundles.settings.home
    return Store(
        environ=bundles.environ(BENTOML_HOME=str(folder), CLICKTRAIL_HOME=str(home), CLICKTRAIL_CLOCK="log"),
        home=home,
        one=built.tag,
        other=other.tag,
        tampered=f"clicktrail-fraud:{tampered.name}",
    )


def make_steeper(export: Path) -> None:
    """Double the logit of a run's model, and of its golden answers."""
    model = onnx.load(export / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == "tenth":
            constant.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(constant), "tenth"))
    onnx.save(model, export / "model.onnx")
    golden = json.loads((export / "golden.json").read_text())
    for case in golden["cases"]:
        case["answer"]["score"] = steeper(case["answer"]["score"])
    (export / "golden.json").write_text(json.dumps(golden))


def steeper(score: float) -> float:
    return 1 / (1 + math.exp(-2 * math.log(score / (1 - score))))


@pytest.fixture
def front(store: Store, tmp_path: Path) -> Iterator[Front]:
    file = state.file_of(store.home, "fraud")
    port, log = free_port(), tmp_path / "front.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.rollout", "--task", "fraud", "--port", str(port)],
            cwd=CHECKOUT,
            env=store.environ,
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    break
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text()[-3000:])
        yield Front(client=client, file=file, log=log)
    finally:
        client.close()
        file.unlink(missing_ok=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"the front did not end\n{log.read_text()[-3000:]}")


NOW = "2026-04-02T00:00:00.000+00:00"
PATIENT = state.Limits(score_drift=1e6, p99_slack_ms=1e6)
STRICT = replace(PATIENT, score_drift=0.05, min_requests=20)


def test_no_request_fails_while_bundles_come_and_go(front: Front, store: Store) -> None:
    """Shadow, canary, guard, promotion, rollback, kill -9 under load: every request is answered by one bundle whole.

    Each answer's tag is in its header, and its score is what that bundle's model gives.
    """
    one, other = store.one, store.other
    known = {price: front.client.post("/score", json=payment("ann", price)).json()["score"] for price in PRICES}
    expected = {one: known, other: {price: steeper(score) for price, score in known.items()}}
    assert all(abs(expected[one][price] - expected[other][price]) > 0.001 for price in PRICES)

    with Load(str(front.client.base_url)) as load:
        front.change(lambda rollout: state.with_limits(rollout, PATIENT, NOW))
        front.change(lambda rollout: state.with_shadow(rollout, other, NOW))
        the_guard_takes_a_canary_out(front, other)
        promoted, left, returned = there_and_back(front, other)
        what_does_not_verify_gets_no_traffic(front, store)
        killed, gone = a_canary_is_killed(front, one, other)
        time.sleep(1)

    assert [answer for answer in load.answers if answer.status != 200] == []
    for answer in load.answers:
        assert answer.body["model"] == answer.tag
        assert answer.body["score"] == pytest.approx(expected[str(answer.tag)][answer.price], abs=1e-5)
    canary = [answer for answer in load.answers if answer.role == "canary"]
    assert {answer.tag for answer in canary} == {other}
    assert any(returned < answer.at < killed for answer in canary)
    assert all(answer.at < gone for answer in canary)
    assert {answer.tag for answer in load.answers if promoted + 0.1 < answer.at < left} == {other}
    champion = [answer for answer in load.answers if answer.at > returned + 0.1 and answer.role != "canary"]
    assert {answer.tag for answer in champion} == {one}
    assert_it_told(front, one)


def the_guard_takes_a_canary_out(front: Front, other: str) -> None:
    """A bundle that runs already gets its users at once, and loses them where its scores are others."""
    assert front.change(lambda rollout: state.with_canary(rollout, Canary(tag=other, share=40), NOW)) < AT_ONCE
    time.sleep(2)
    front.change(lambda rollout: state.with_limits(rollout, STRICT, NOW), settled=False)
    front.until(lambda told: "canary" not in told)
    entry = state.read(front.file).history[-1]
    assert (entry.what, entry.tag) == ("canary taken out", other)
    assert entry.why.startswith("mean score ")


def there_and_back(front: Front, other: str) -> tuple[float, float, float]:
    """A promotion of a running bundle and a rollback are made at once; returns when they were."""
    assert front.change(lambda rollout: state.promoted(rollout, other, NOW)) < AT_ONCE
    promoted = time.monotonic()
    time.sleep(1)
    left = time.monotonic()
    the_one_before_stands_in(front)
    assert front.change(lambda rollout: state.with_shadow(state.rolled_back(rollout, NOW), other, NOW)) < AT_ONCE
    return promoted, left, time.monotonic()


def the_one_before_stands_in(front: Front) -> None:
    """A champion whose worker is killed is down until it has another; the one before it answers meanwhile."""
    for worker in psutil.Process(front.tells()["champion"]["process"]).children():
        worker.kill()
    front.until(lambda told: not told["champion"]["up"])
    assert front.client.post("/score", json=payment("ann", 100)).headers["x-clicktrail-role"] == "previous"


def what_does_not_verify_gets_no_traffic(front: Front, store: Store) -> None:
    """The command waits for the front, says what is wrong, and the champion is who it was."""
    refused = command(store.environ, "--port", str(front.client.base_url.port), "--promote", store.tampered)
    assert refused.returncode == 1
    assert f"{store.tampered} does not verify" in refused.stderr
    assert front.tells()["champion"]["tag"] == store.one


def a_canary_is_killed(front: Front, one: str, other: str) -> tuple[float, float]:
    """It loses its roles, the shadow's too, and the file says why; returns from when to when."""
    front.until(lambda told: told.get("shadow", {"up": True})["up"])  # its worker was killed a while ago
    front.change(lambda rollout: state.with_limits(rollout, PATIENT, NOW))
    front.change(lambda rollout: state.with_canary(rollout, Canary(tag=other, share=40), NOW))
    time.sleep(1)
    killed = time.monotonic()
    os.kill(front.tells()["canary"]["process"], signal.SIGKILL)
    front.until(lambda _: state.read(front.file).roles == {"champion": one})
    front.until(lambda told: told["settled"])
    assert "its process ended with status -9" in {entry.why for entry in state.read(front.file).history}
    return killed, time.monotonic()


def assert_it_told(front: Front, one: str) -> None:
    """Its own figures name the bundles of now alone; the champion's are passed on, and so are its refusals."""
    figures = front.client.get("/metrics").text
    assert 'clicktrail_rollout_taken_out_total{role="canary",rule="score_drift",task="fraud"} 1.0' in figures
    assert 'clicktrail_rollout_shadow_total{fate="compared",task="fraud"}' in figures
    told = [line for line in figures.splitlines() if line.startswith("clicktrail_rollout_bundle{")]
    assert told == [f'clicktrail_rollout_bundle{{role="champion",tag="{one}",task="fraud"}} 1.0']
    assert "bentoml_service_request" in front.client.get("/metrics/champion").text
    assert front.client.post("/score", content=b" " * 65_537).status_code == 413
    assert front.client.post("/score", content=b"{").status_code == 400


def test_a_champion_that_does_not_verify_ends_the_front(store: Store) -> None:
    """A first champion that was tampered with is never served: the command ends and says why."""
    file = state.file_of(store.home, "fraud")
    state.begin(file, state.begun("fraud", store.tampered, "2026-04-02T00:00:00.000+00:00"))
    try:
        done = command(store.environ, "--port", str(free_port()))
    finally:
        file.unlink()
    assert done.returncode == 1
    assert "does not verify: REFUSED" in done.stderr
