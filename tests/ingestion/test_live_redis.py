"""A Redis stream on a real server: every event once, whoever dies, whatever stands in an entry."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import generate_latest
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.free_port import free_port
from benchmarks.redis_server import redis_server
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.live import LiveIntake
from ingestion.redis_streams import RedisStream, position_of
from tests.ingestion.consumers import consuming, killed_again_and_again, logged, process, until
from tests.ingestion.live_events import view
from validation.quarantine import read_quarantine

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


@pytest.fixture
def url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def send(client: redis.Redis[bytes], *names: str) -> None:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.xadd("events", {"event": json.dumps(view(name))})
    pipeline.execute()


def names(count: int) -> list[str]:
    return [f"e{n:05d}" for n in range(count)]


def pending(client: redis.Redis[bytes]) -> int:
    return int(client.xpending("events", "clicktrail")["pending"])


def test_what_is_in_the_stream_enters_the_log(url: str, home: Settings) -> None:
    """Events that were there before the group was, and later ones, in the order of the stream; then acknowledged."""
    client = redis.Redis.from_url(url)
    send(client, "a", "b")
    with consuming(RedisStream(url, "events"), home):
        until(lambda: EventLog(home.log).version == 2)
        send(client, "c")
        until(lambda: EventLog(home.log).version == 3)
        until(lambda: pending(client) == 0)
    rows = EventLog(home.log).read(["event_id", "source_seq"]).sort_by("source_seq").to_pylist()
    assert [row["event_id"] for row in rows] == ["a", "b", "c"]
    assert [row["source_seq"] for row in rows] == [position_of(id_) for id_, _ in client.xrange("events")]


def test_an_entry_may_hold_a_field_for_each_column(url: str, home: Settings) -> None:
    """Redis knows no types: digits are the value of an integer column, and of no other."""
    client = redis.Redis.from_url(url)
    client.xadd("events", {name: str(value) for name, value in view("a", session_id="12").items()})
    client.xadd("events", {name: str(value) for name, value in view("b", quantity="1.0").items()})
    with consuming(RedisStream(url, "events"), home):
        until(lambda: EventLog(home.log).version == 1)
    assert EventLog(home.log).read(["price_minor", "session_id"]).to_pylist() == [
        {"price_minor": 1_999, "session_id": "12"}
    ]
    assert [row["rule"] for row in read_quarantine(home.quarantine).to_pylist()] == ["quantity_readable"]


def test_what_cannot_be_read_is_kept_and_acknowledged(url: str, home: Settings) -> None:
    """A poisoned entry goes to quarantine under its stream and id, and holds nobody up."""
    client = redis.Redis.from_url(url)
    odd: list[dict[Any, Any]] = [{"event": b"\xff"}, {"event": "{"}, {b"\xff": b"\xff"}, {"event": "[]"}]
    ids = [client.xadd("events", fields) for fields in odd]
    send(client, "a")
    with consuming(RedisStream(url, "events"), home):
        until(lambda: EventLog(home.log).version == 1)
        until(lambda: pending(client) == 0)
    assert [(row["file"], row["row"], row["rule"]) for row in read_quarantine(home.quarantine).to_pylist()] == [
        ("redis:events", position_of(id_), "event_readable") for id_ in ids
    ]


def test_a_position_keeps_the_order_of_ids() -> None:
    """Milliseconds first, then the sequence; a sequence that no clock makes is only held back, not wrapped."""
    assert position_of(b"3-5") == (3 << 20) + 5
    assert position_of(b"3-99999999") == (4 << 20) - 1
    assert position_of(b"1900000000000-1048575") < 2**63


def test_two_consumers_share_the_work(url: str, home: Settings) -> None:
    """Consumers of one group at once: every event is in the log once, and nobody's is left over."""
    client, sent = redis.Redis.from_url(url), names(3_000)
    one, other = (RedisStream(url, "events", consumer=name) for name in "ab")
    with consuming(one, home), consuming(other, home):
        for start in range(0, len(sent), 500):
            send(client, *sent[start : start + 500])
        until(lambda: EventLog(home.log).version == len(sent))
        until(lambda: pending(client) == 0)
    assert logged(home) == sent


def test_events_of_a_dead_consumer_are_taken_over(url: str, home: Settings) -> None:
    """What a consumer was handed and never acknowledged enters through another; one that was trimmed is counted."""
    client = redis.Redis.from_url(url)
    send(client, "a", "b", "c")
    dead = RedisStream(url, "events", consumer="dead")
    assert sum(len(one.events) for one in dead.read(10, 0)) == 3
    dead.close()
    client.xdel("events", client.xrange("events")[1][0])
    with consuming(RedisStream(url, "events", claim_after=0.2), home) as metrics:
        until(lambda: pending(client) == 0)
        until(lambda: b'lost_events_total{stream="redis:events"} 1.0' in generate_latest(metrics.registry))
    assert logged(home) == ["a", "c"]


def test_a_consumer_that_comes_back_begins_with_what_it_left(url: str, home: Settings) -> None:
    """Under its old name it need not wait until its own events are taken over."""
    send(redis.Redis.from_url(url), "a", "b")
    RedisStream(url, "events", consumer="x").read(1, 0)
    stream = RedisStream(url, "events", consumer="x", claim_after=3_600)
    live = LiveIntake(home)
    for names_read in (["a"], ["b"]):
        arrivals = stream.read(10, 0)
        assert [event["event_id"] for one in arrivals for event in one.events] == names_read
        live.take_in(arrivals)
        stream.acknowledge()
    assert logged(home) == ["a", "b"]


def test_a_server_that_is_away_is_waited_for(home: Settings) -> None:
    """A consumer that is started before its server begins when that is there; the failures are counted."""
    port = free_port()
    with consuming(RedisStream(f"redis://127.0.0.1:{port}/0", "events"), home) as metrics:
        until(lambda: b'failures_total{what="stream"} 1.0' in generate_latest(metrics.registry))
        server = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(home.home)]
        with subprocess.Popen(server, stdout=subprocess.DEVNULL) as started:
            try:
                until(lambda: _answers(port))
                send(redis.Redis(port=port), "a")
                until(lambda: EventLog(home.log).version == 1)
            finally:
                started.kill()


def test_an_emptied_server_is_survived(url: str, home: Settings) -> None:
    """Where stream and group are gone the group is made anew, and the events after that enter."""
    client = redis.Redis.from_url(url)
    send(client, "a")
    with consuming(RedisStream(url, "events"), home):
        until(lambda: EventLog(home.log).version == 1)
        client.flushall()
        send(client, "b")
        until(lambda: EventLog(home.log).version == 2)


def test_lag_is_what_nobody_has_read(url: str) -> None:
    """Entries that the group was not handed yet."""
    send(redis.Redis.from_url(url), "a", "b", "c")
    stream = RedisStream(url, "events")
    stream.read(1, 0)
    assert stream.lag() == {"redis:events": 2}


@pytest.mark.slow
def test_killed_between_log_and_acknowledgement_events_are_copies(url: str, home: Settings) -> None:
    """The moment that would double an event: it is handed out again, and the log counts a copy."""
    client = redis.Redis.from_url(url)
    send(client, "a", "b")
    options = ["--source", "redis", "--url", url, "--consumer", "x"]
    with process(home.home, *options, failpoint="log.manifest.after_rename") as one:
        assert one.wait(60) == -signal.SIGKILL
    assert (EventLog(home.log).version, pending(client)) == (2, 2)
    with process(home.home, *options) as other:
        until(lambda: pending(client) == 0)
        other.send_signal(signal.SIGTERM)
        assert other.wait(60) == 0
    assert logged(home) == ["a", "b"]


@pytest.mark.slow
def test_killed_at_any_moment_every_event_is_there_once(url: str, home: Settings) -> None:
    """Consumers die again and again while events come in; in the end the log holds what was sent, each event once."""
    client = redis.Redis.from_url(url)
    common = ["--source", "redis", "--url", url, "--claim-after", "0.5"]
    sent = killed_again_and_again(
        home,
        lambda more: send(client, *more),
        lambda number: [*common, "--consumer", f"c{number % 2}"],  # an old name again, and a new one
        kills=5,
    )
    assert logged(home) == sent
    assert pending(client) == 0


def _answers(port: int) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(redis.Redis(port=port, retry=Retry(NoBackoff(), 0)).ping())
    return False
