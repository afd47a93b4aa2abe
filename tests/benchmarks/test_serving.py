"""The serving benchmark measures what it says: latencies from the schedule, the highest rate, peers that agree."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving import cpu
from benchmarks.serving_bench import answer_of, bundle, empty, obvious, prepared
from benchmarks.serving_capacity import Search
from benchmarks.serving_load import Load, Order
from benchmarks.serving_shop import requests
from benchmarks.serving_world import Size

STALL_S = 0.5


@contextmanager
def answering(statuses: list[int], stall_at: int = -1, hangs_up_at: int = -1) -> Iterator[int]:
    """A server that answers these in turn, over and over, stalls or hangs up once; its port."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body leave together

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(time.monotonic())
            if len(asked) == stall_at:
                time.sleep(STALL_S)
            if len(asked) == hangs_up_at:
                self.close_connection = True
                return
            body = b"{}"
            self.send_response(statuses[(len(asked) - 1) % len(statuses)])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def order(port: int, **more: Any) -> Order:  # noqa: ANN401
    given = {"path": "/score", "bodies": "", "rate": 100.0, "seconds": 1.0, "connections": 1, "port": port}
    return Order(**(given | more))


def test_a_stall_is_charged_to_everybody_who_waited() -> None:
    """Half a second in which nothing is answered shows in the latency of each request scheduled in it."""
    with answering([200], stall_at=20) as port:
        result = Load(order(port), [b"{}"]).run()
    assert result.failed == 0
    assert len(result.latency_ms) == result.sent
    late = np.array(result.latency_ms) > STALL_S * 1000 / 2
    # a hundred a second, of which half of the stall's waited for more than half of it
    assert 100 * STALL_S / 2 * 0.4 < late.sum() < 100 * STALL_S / 2 * 2


def test_what_is_no_200_has_failed() -> None:
    """Every third answer is an error, and counts as a failure with what the server said."""
    with answering([200, 200, 500]) as port:
        result = Load(order(port), [b"{}"]).run()
    assert result.failed == result.sent // 3
    assert len(result.latency_ms) == result.sent - result.failed
    assert " 500 " in result.said


def test_a_server_that_hangs_up_has_failed() -> None:
    """A request whose connection is closed without an answer is a failure, and the load goes on."""
    with answering([200], hangs_up_at=20) as port:
        result = Load(order(port), [b"{}"]).run()
    assert result.failed == 1
    assert len(result.latency_ms) == result.sent - 1 > 50


def test_a_closed_loop_sends_as_soon_as_it_is_answered() -> None:
    """Without a rate every connection asks again at once until the time is over."""
    with answering([200]) as port:
        result = Load(order(port, rate=0.0, seconds=0.5, connections=2), [b"{}", b"[]"]).run()
    assert result.failed == 0
    assert len(result.latency_ms) == result.sent > 50


@pytest.mark.parametrize("limit", [7.0, 90.0, 100.0, 2_345.6])
def test_the_search_ends_at_the_highest_rate_that_holds(limit: float) -> None:
    """What is found holds, and a twentieth more does not."""
    search, steps = Search(100.0), 0
    while not search.done:
        search.tell(search.rate <= limit)
        steps += 1
    assert search.held <= limit < search.held * 1.05
    assert steps < 20


def test_a_server_that_holds_nothing_has_no_capacity() -> None:
    """The search gives up, and says 0."""
    search = Search(100.0)
    while not search.done:
        search.tell(held=False)
    assert search.held == 0


@pytest.mark.slow
@pytest.mark.xdist_group("feast")
def test_bundle_and_obvious_service_agree_and_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers answer the same question alike, and a request costs the bundle more than an empty endpoint."""
    size = Size(task="fraud", items=200, length=50, users=150)
    with prepared(size, "sqlite", tmp_path, seconds=1.0, rate=100.0) as bench, bundle(bench) as ours:
        answer = answer_of(bench, ours)
        for name, value in obvious(bench).items():
            if name.startswith(("CLICKTRAIL", "PEER")):
                monkeypatch.setenv(name, value)
        module = importlib.import_module("benchmarks.serving_peers.naive")
        other = module.Fraud.inner().score(**json.loads(requests("fraud", size.users, 1)[0]))
        # both read by the wall's clock, a moment apart
        assert json.loads(answer)["score"] == pytest.approx(other["score"], abs=1e-3)
        with empty(bench, answer) as nothing:
            assert answer_of(bench, nothing) == answer
            figures = cpu(bench, ours, nothing)
    assert figures["cpu_ms"] > figures["empty_cpu_ms"] > 0
