"""How many events a second a live door takes in for how much CPU, durable, in groups of 100.

    python -m benchmarks.live_intake --door http|redis|kafka [--events 100000] [--rate 5000]

Views and payments of Zipf users, in every group one event sent twice and one that breaks a rule, against real servers
on this machine (for Kafka the protocol's mock broker). CPU is that of the intake's process; the delay runs from the
sending of a group until all of it is durable. `--rate 0` sends as fast as it goes.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import redis
from confluent_kafka import Producer

from benchmarks.free_port import free_port
from benchmarks.redis_server import redis_server
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from tests.ingestion.mock_broker import mock_broker  # the checkout's own: a benchmark runs from a checkout

_GROUP = 100
_ENTER = _GROUP - 2  # one is a copy, one breaks a rule
_CONNECTIONS = 64
_LONGEST = 120.0

Group = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """The way to a door; `answers` says whether sending ends when the group is durable."""

    send: Callable[[Group], None]
    options: tuple[str, ...]
    answers: bool = False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", choices=sorted(_DOORS), default="http")
    parser.add_argument("--events", type=int, default=100_000, help="how many are sent")
    parser.add_argument("--rate", type=float, default=5_000.0, help="events a second; 0: as fast as it goes")
    options = parser.parse_args()
    if options.door == "kafka" and not options.rate:
        parser.error("the mock broker keeps 5 MB of a partition: what nobody has read by then is gone, so give a rate")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.door, Path(folder), options.events // _GROUP, options.rate)
    for name, figure in figures.items():
        print(f"{name:>17}  {figure}")
    print(json.dumps(figures))


def measure(door: str, home: Path, groups: int, rate: float) -> dict[str, Any]:
    """Figures of one door for so many groups."""
    log = EventLog(Settings(home=home).log)
    made = make_groups(groups + 1)
    with _DOORS[door](home) as sender, _intake(home, sender.options) as pid:
        sender.send(made[0])  # the process is warm, the log has its first segment
        _until(lambda: log.version == _ENTER)
        cpu, began = _cpu_seconds(pid), time.monotonic()
        delays = _send_all(sender, log, made[1:], rate)
        _until(lambda: log.version == _ENTER * (groups + 1))
        took = time.monotonic() - began
        cpu = _cpu_seconds(pid) - cpu
    events = groups * _GROUP
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    return {
        "door": door,
        "events": events,
        "seconds": round(took, 1),
        "events_per_s": round(events / took),
        "cpu_cores": round(cpu / took, 3),
        "cpu_us_per_event": round(cpu / events * 1e6, 1),
        "durable_p50_ms": round(float(p50) * 1e3),
        "durable_p99_ms": round(float(p99) * 1e3),
    }


def make_groups(count: int) -> list[Group]:
    """Groups of events as a shop sends them; 98 of the hundred may enter, the last is a copy of the first."""
    chance = np.random.default_rng(0)
    users = np.minimum(chance.zipf(1.2, count * _GROUP), 200_000)
    items = chance.integers(0, 50_000, count * _GROUP)
    now = datetime.now(UTC).isoformat()
    made = []
    for start in range(0, count * _GROUP, _GROUP):
        group: Group = [
            {
                "event_id": f"e{n:09d}",
                "user_id": f"u{users[n]:06d}",
                "item_id": f"i{items[n]:06d}",
                "event_type": "payment" if n % 5 == 0 else "view",
                "event_timestamp": now,
                "session_id": f"s{users[n]}-{n // 50_000}",
                "category_id": f"c{items[n] % 40}",
                "price_minor": int(items[n]) + 99,
                "currency": "EUR",
                "quantity": 1,
                "device": "phone",
                "channel": "web",
                "card_id": f"k{users[n]:06d}",
                "terminal_id": f"t{items[n] % 900}",
            }
            for n in range(start, start + _GROUP)
        ]
        group[50]["price_minor"] = "12"
        group[-1] = group[0]
        made.append(group)
    return made


def _send_all(sender: Sender, log: EventLog, groups: list[Group], rate: float) -> list[float]:
    """Send groups when they are due; seconds from sending each until it was durable."""
    began = time.monotonic()

    def send(index: int) -> tuple[float, float]:
        due = began + index * _GROUP / rate if rate else time.monotonic()
        time.sleep(max(0.0, due - time.monotonic()))
        start = time.monotonic()
        sender.send(groups[index])
        return start, time.monotonic()

    if sender.answers:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return [end - start for start, end in pool.map(send, range(len(groups)))]
    with _watched(log) as (times, versions):
        starts = [send(index)[0] for index in range(len(groups))]
        _until(lambda: bool(versions) and versions[-1] == _ENTER * (len(groups) + 1))
    # groups enter in the order in which they were sent
    ends = [times[bisect.bisect_left(versions, _ENTER * (index + 2))] for index in range(len(groups))]
    return [end - start for start, end in zip(starts, ends, strict=True)]


@contextlib.contextmanager
def _watched(log: EventLog) -> Iterator[tuple[list[float], list[int]]]:
    """When the log had which version, noted every 10 ms."""
    times, versions, over = list[float](), list[int](), threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            versions_now = log.version
            times.append(time.monotonic())
            versions.append(versions_now)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield times, versions
    finally:
        over.set()
        thread.join()


# ---- doors


@contextlib.contextmanager
def _http(_: Path) -> Iterator[Sender]:
    port, own = free_port(), threading.local()

    def send(group: Group) -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LONGEST)
        body = json.dumps(group)
        while True:
            try:
                own.connection.request("POST", "/events", body)
            except ConnectionRefusedError:  # it is about to start
                own.connection.close()
                time.sleep(0.1)
                continue
            answer = own.connection.getresponse()
            answer.read()
            if answer.status == http.HTTPStatus.OK:
                return
            time.sleep(float(answer.headers["retry-after"]))

    yield Sender(send=send, options=("ingestion.http_intake", "--port", str(port)), answers=True)


@contextlib.contextmanager
def _redis(_: Path) -> Iterator[Sender]:
    with redis_server() as url:
        client = redis.Redis.from_url(url)

        def send(group: Group) -> None:
            pipeline = client.pipeline(transaction=False)
            for event in group:
                pipeline.xadd("events", {"event": json.dumps(event)})
            pipeline.execute()

        yield Sender(send=send, options=("ingestion.stream", "--source", "redis", "--url", url))


@contextlib.contextmanager
def _kafka(_: Path) -> Iterator[Sender]:
    with mock_broker("events") as servers:
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})

        def send(group: Group) -> None:
            for event in group:
                producer.produce("events", json.dumps(event))
            producer.flush()

        yield Sender(send=send, options=("ingestion.stream", "--source", "kafka", "--url", servers))


_DOORS = {"http": _http, "redis": _redis, "kafka": _kafka}


@contextlib.contextmanager
def _intake(home: Path, options: tuple[str, ...]) -> Iterator[int]:
    """The door's own process; told to stop at the end."""
    environ = os.environ | {"CLICKTRAIL_HOME": str(home), "CLICKTRAIL_SHOP": "demo"}
    with subprocess.Popen([sys.executable, "-m", *options], env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
            process.send_signal(signal.SIGTERM)
            process.wait(_LONGEST)
        finally:
            process.kill()


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST
    while not reached():
        if time.monotonic() > deadline:
            message = "events that were sent did not come into the log"
            raise TimeoutError(message)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
