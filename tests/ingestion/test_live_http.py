"""Events by HTTP: answered once durable, refused with the way out, lost by no kill."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from benchmarks.free_port import free_port
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings, load
from ingestion.http_body import BadBodyError, split
from ingestion.http_intake import MAX_BODY_BYTES, MAX_EVENTS, Door, main
from ingestion.live import LiveIntake
from tests.ingestion.live_events import view

# one after the other: a producer that sends again to a server that was killed must not meet another test's on its port
pytestmark = pytest.mark.xdist_group("intake")


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def client(home: Settings) -> Iterator[httpx.Client]:
    with _client(Door(LiveIntake(home), every=0.01).app) as client:
        yield client


def test_every_event_is_answered_for(client: httpx.Client, home: Settings) -> None:
    """The answer counts what entered and names what did not, with rule, reason and remedy; then it is durable."""
    answer = client.post("/events", json=[view("a"), view("a"), view("b", item_id=None), view("c", price_minor="12")])
    assert answer.status_code == 200
    body = answer.json()
    assert (body["accepted"], body["copies"], body["log_offset"]) == (1, 1, 1)
    assert [(row["index"], row["event_id"], row["rule"], row["value"]) for row in body["rejected"]] == [
        (2, "b", "item_id_present", None),
        (3, "c", "price_minor_readable", '"12"'),
    ]
    assert all(row["reason"] and row["remedy"] for row in body["rejected"])
    assert EventLog(home.log).version == 1


def test_lines_are_taken_as_an_array_is(client: httpx.Client) -> None:
    """One JSON object a line, blank lines aside; the index counts events."""
    text = f"{json.dumps(view('a'))}\n\n{json.dumps(view('b', user_id=None))}\n"
    body = client.post("/events", content=text).json()
    assert (body["accepted"], [row["index"] for row in body["rejected"]]) == (1, [1])


def test_where_no_event_may_enter_the_status_says_so(client: httpx.Client) -> None:
    """422 where every event is rejected; copies are no fault of the producer, nor is nothing at all."""
    assert client.post("/events", json=[view("a", event_type="stare")]).status_code == 422
    assert client.post("/events", json=[view("a")]).json()["copies"] == 0
    again = client.post("/events", json=[view("a"), 5])
    assert (again.status_code, again.json()["copies"]) == (200, 1)
    assert client.post("/events", json=[]).json() == {"accepted": 0, "copies": 0, "rejected": []}


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        (b'[{"event_id": "a"},\n {"event_id": }]', 2, "Expecting value (column 15)"),
        (b'{"event_id": "a"}\n{oops}\n{', 2, "2 lines are no JSON"),
        (b'{"event_id": "a"}\n\xff', 2, "no UTF-8"),
        (b"", None, "the body is empty"),
        (b"[" * 100_000, 1, "nested too deep"),
        (b'[{"n": ' + b"1" * 5_000 + b"x}]", 1, "delimiter"),
    ],
)
def test_what_is_no_json_names_its_line(body: bytes, line: int | None, said: str) -> None:
    """A body that cannot be split into events is refused whole, with the place where it breaks."""
    with pytest.raises(BadBodyError, match=re.escape(said)) as error:
        split(body)
    assert [problem["line"] for problem in error.value.problems[:1]] == ([line] if line else [])
    assert "send a JSON array of events" in str(error.value)


def test_a_body_that_is_no_json_enters_in_no_part(client: httpx.Client, home: Settings) -> None:
    """400, and the good lines of it are not taken either: nobody can say what was meant."""
    answer = client.post("/events", content=json.dumps(view("a")) + "\n{oops}\n")
    assert answer.status_code == 400
    assert answer.json()["problems"] == [
        {"line": 2, "message": "Expecting property name enclosed in double quotes (column 2)"}
    ]
    assert EventLog(home.log).version == 0


def test_what_is_too_large_is_refused(client: httpx.Client) -> None:
    """413 for a body over the limit, said or sent, and for too many events."""
    assert client.post("/events", content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413
    chunks = (b" " * 1_000_000 for _ in range(5))  # no content-length
    assert client.post("/events", content=chunks).status_code == 413
    assert client.post("/events", content=b"{}\n" * (MAX_EVENTS + 1)).status_code == 413


def test_without_room_the_producer_is_told_when_to_come_again(home: Settings) -> None:
    """429 with Retry-After, and nothing of the request is taken; what waited before is."""
    home.log.mkdir(parents=True)
    answers: list[httpx.Response] = []
    with _client(Door(LiveIntake(home), room=2).app) as client:
        first = threading.Thread(target=lambda: answers.append(client.post("/events", json=[view("a"), view("b")])))
        with (home.log / ".lock").open("w") as other_writer:
            fcntl.flock(other_writer, fcntl.LOCK_EX)  # until this is over no flush ends
            first.start()
            while "waiting_events 2.0" not in client.get("/metrics").text:
                assert first.is_alive()
            turned_away = client.post("/events", json=[view("c")])
            assert (turned_away.status_code, turned_away.headers["retry-after"]) == (429, "1")
            assert client.get("/readyz").status_code == 503
        first.join()
    assert answers[0].json()["accepted"] == EventLog(home.log).version == 2


def test_a_log_that_cannot_be_written_is_said(client: httpx.Client, home: Settings) -> None:
    """503, and not ready for a while; alive all the same."""
    home.shop_home.mkdir(parents=True)
    home.log.touch()  # a file where the folder should be
    answer = client.post("/events", json=[view("a")])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_a_token_is_asked_for(home: Settings) -> None:
    """With a token set, events without it are refused; probes and figures need none."""
    with _client(Door(LiveIntake(home), token="s3cret", every=0.01).app) as client:  # noqa: S106 - a test's own
        refused = client.post("/events", json=[view("a")])
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/events", json=[view("a")], headers={"authorization": "Bearer x"}).status_code == 401
        assert client.post("/events", json=[view("a")], headers={"authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/readyz").status_code == client.get("/metrics").status_code == 200


def test_secrets_are_not_shown() -> None:
    """A token and a URL with a password are in no log line that shows the settings."""
    shown = repr(load({"CLICKTRAIL_INTAKE_TOKEN": "s3cret", "CLICKTRAIL_STREAM_URL": "redis://:s3cret@host"}))
    assert "s3cret" not in shown


def test_an_open_door_needs_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a token it listens on this machine alone."""
    assert main(["--host", "0.0.0.0"]) == 2  # noqa: S104 - that it refuses is the test
    assert "set CLICKTRAIL_INTAKE_TOKEN" in capsys.readouterr().err


def test_what_became_of_events_is_counted(client: httpx.Client) -> None:
    """Prometheus reads events by fate, rejected ones by rule, and the end of the log."""
    # where Feast was imported first, prometheus_client counts for the whole process: so from one request to the next
    before, after = (
        (client.post("/events", json=[view(event), view(event), 5]), _figures(client))[1] for event in ("a", "b")
    )
    for name in (
        'clicktrail_intake_events_total{fate="accepted",stream="http"}',
        'clicktrail_intake_events_total{fate="copy",stream="http"}',
        'clicktrail_intake_events_total{fate="rejected",stream="http"}',
        'clicktrail_intake_rejected_total{rule="event_readable"}',
        "clicktrail_intake_flush_seconds_count",
    ):
        assert after[name] - before[name] == 1
    assert (after["clicktrail_intake_log_offset"], after["clicktrail_intake_waiting_events"]) == (2, 0)


def test_events_keep_the_order_in_which_they_came(client: httpx.Client, home: Settings) -> None:
    """source_seq rises from event to event and from request to request."""
    for names in ("ab", "cd"):
        client.post("/events", json=[view(name) for name in names])
    rows = EventLog(home.log).read(["event_id", "source_seq"]).sort_by("source_seq").to_pylist()
    assert [row["event_id"] for row in rows] == list("abcd")


def _figures(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@contextlib.contextmanager
def _client(app: Starlette) -> Iterator[httpx.Client]:
    """A client of the application, which is served on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


# ---- the process itself


@pytest.mark.slow
def test_killed_at_any_moment_nothing_that_was_answered_is_lost(tmp_path: Path) -> None:
    """Producers send again what was not answered; in the end every event is in the log exactly once."""
    home, port = Settings(home=tmp_path), free_port()
    chance = random.Random(5)  # noqa: S311 - moments, no secrets
    answered: set[str] = set()
    sent = [f"{producer}-{n}" for producer in range(3) for n in range(1_500)]
    done = threading.Event()

    def produce(own: list[str]) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            for start in range(0, len(own), 50):
                events: list[dict[str, Any]] = [view(name) for name in own[start : start + 50]]
                while not done.is_set():
                    with contextlib.suppress(httpx.TransportError):
                        answer = client.post("/events", json=events)
                        if answer.status_code == 200:
                            answered.update(own[start : start + 50])
                            break
                    time.sleep(0.05)

    producers = [threading.Thread(target=produce, args=(sent[p * 1_500 : (p + 1) * 1_500],)) for p in range(3)]
    for thread in producers:
        thread.start()
    kills = 0
    try:
        while any(thread.is_alive() for thread in producers):
            with _served(tmp_path, port) as process:
                time.sleep(chance.uniform(0.2, 1.5) if kills < 4 else 0)
                if kills < 4:
                    process.kill()
                    kills += 1
                    before = set(answered)
                    process.wait()
                    held = set(EventLog(home.log).read(["event_id"])["event_id"].to_pylist())
                    assert before <= held
                else:
                    for thread in producers:
                        thread.join(60)
                    process.send_signal(signal.SIGTERM)
                    process.wait(20)
    finally:
        done.set()
    assert kills == 4
    rows = EventLog(home.log).read(["event_id"])["event_id"].to_pylist()
    assert sorted(rows) == sorted(sent)


@contextlib.contextmanager
def _served(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The intake as a process, from the moment it answers."""
    environ = os.environ | {"CLICKTRAIL_HOME": str(home)}
    command = [sys.executable, "-m", "ingestion.http_intake", "--port", str(port)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"http://127.0.0.1:{port}/healthz")
                    break
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
