"""A Kafka topic on librdkafka's mock cluster: every event once, whoever dies, whatever stands in a message."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer

from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.kafka_stream import KafkaStream, read_properties
from tests.ingestion.consumers import consuming, killed_again_and_again, logged, process, until
from tests.ingestion.live_events import view
from tests.ingestion.mock_broker import mock_broker
from validation.quarantine import read_quarantine

QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "200"}
"""The shortest that a broker allows: how soon the partitions of a dead consumer are another's."""


@pytest.fixture
def servers() -> Iterator[str]:
    with mock_broker("events", partitions=2) as servers:
        yield servers


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


class Topic:
    """Where events are sent to; the user decides the partition."""

    def __init__(self, servers: str) -> None:
        """`servers` are those of the cluster."""
        self._producer = Producer({"bootstrap.servers": servers})

    def send(self, *names: str) -> None:
        """Send events of these names and wait until the broker has them."""
        for name in names:
            event = view(name)
            self._producer.produce("events", json.dumps(event), key=event["user_id"])
        self._producer.flush(30)

    def send_raw(self, value: bytes | None) -> None:
        """Send one message to partition 0."""
        self._producer.produce("events", value, key="k", partition=0)
        self._producer.flush(30)


def stream(servers: str, properties: Mapping[str, str] = QUICK) -> KafkaStream:
    return KafkaStream(servers, "events", group="clicktrail", properties=properties)


def test_what_is_in_the_topic_enters_the_log(servers: str, home: Settings) -> None:
    """A new group begins at the oldest message, of every partition; offsets order the events of one."""
    topic = Topic(servers)
    for name in "abc":
        topic.send_raw(json.dumps(view(name)).encode())
    with consuming(stream(servers), home):
        until(lambda: EventLog(home.log).version == 3)
        topic.send("d", "e", "f", "g")
        until(lambda: EventLog(home.log).version == 7)
    assert logged(home) == list("abcdefg")
    rows = EventLog(home.log).read(["event_id", "source_seq"]).slice(0, 3).to_pylist()
    assert rows == [{"event_id": name, "source_seq": offset} for offset, name in enumerate("abc")]


@pytest.mark.slow
def test_what_was_acknowledged_is_not_read_again(servers: str, home: Settings) -> None:
    """The next consumer of the group begins after what is durable, and has read everything that there is."""
    topic = Topic(servers)
    topic.send("a", "b", "c")
    with consuming(stream(servers), home):
        until(lambda: EventLog(home.log).version == 3)
    topic.send("d")
    later = stream(servers)
    try:
        found: list[str] = []
        until(lambda: bool(found.extend(e["event_id"] for one in later.read(10, 0.2) for e in one.events) or found))
        assert found == ["d"]
        assert set(later.lag().values()) == {0}
    finally:
        later.close()


def test_what_cannot_be_read_is_kept_and_acknowledged(servers: str, home: Settings) -> None:
    """A poisoned message, an empty one too, goes to quarantine under partition and offset, and holds nobody up."""
    topic = Topic(servers)
    for value in (b"\xff", b"{", None):
        topic.send_raw(value)
    topic.send_raw(json.dumps(view("a")).encode())
    with consuming(stream(servers), home):
        until(lambda: EventLog(home.log).version == 1)
    assert [(row["file"], row["row"], row["rule"]) for row in read_quarantine(home.quarantine).to_pylist()] == [
        ("kafka:events/0", offset, "event_readable") for offset in range(3)
    ]


def test_a_properties_file_is_read(tmp_path: Path) -> None:
    """`key=value` lines as Kafka's own tools take them; anything else names its line."""
    path = tmp_path / "client.properties"
    path.write_text("# who we are\nsasl.username = shop\n\nsasl.password=a=b\n")
    assert read_properties(path) == {"sasl.username": "shop", "sasl.password": "a=b"}
    path.write_text("sasl.username shop\n")
    with pytest.raises(ValueError, match=r"client.properties line 1 is no `key=value`: 'sasl.username shop'"):
        read_properties(path)


def test_an_unknown_property_is_refused() -> None:
    """A misspelt setting is not passed over."""
    with pytest.raises(ValueError, match=r"sasl\.user"):
        stream("127.0.0.1:1", {"sasl.user": "shop"})


@pytest.mark.slow
def test_no_property_undoes_exactly_once(servers: str) -> None:
    """Messages are acknowledged by us alone, when they are durable."""
    Topic(servers).send("a")
    one = stream(servers, {**QUICK, "enable.auto.commit": "true", "auto.commit.interval.ms": "1"})
    until(lambda: bool(one.read(10, 0.2)))
    one.close()
    other = stream(servers)
    try:
        until(lambda: bool(other.read(10, 0.2)))
    finally:
        other.close()


@pytest.mark.slow
def test_killed_between_log_and_acknowledgement_events_are_copies(servers: str, home: Settings, tmp_path: Path) -> None:
    """The moment that would double an event: it is handed out again, and the log counts a copy."""
    Topic(servers).send("a", "b")
    options = ["--source", "kafka", "--url", servers, "--properties", str(_properties(tmp_path))]
    with process(home.home, *options, failpoint="log.manifest.after_rename") as one:
        assert one.wait(60) == -signal.SIGKILL
    assert 1 <= EventLog(home.log).version <= 2
    Topic(servers).send("c")
    with process(home.home, *options) as other:
        until(lambda: EventLog(home.log).version == 3)
        other.send_signal(signal.SIGTERM)
        assert other.wait(60) == 0
    assert logged(home) == ["a", "b", "c"]


@pytest.mark.slow
def test_killed_at_any_moment_every_event_is_there_once(servers: str, home: Settings, tmp_path: Path) -> None:
    """Consumers die again and again while events come in; in the end the log holds what was sent, each event once."""
    options = ["--source", "kafka", "--url", servers, "--properties", str(_properties(tmp_path))]
    topic = Topic(servers)
    sent = killed_again_and_again(home, lambda more: topic.send(*more), lambda _: options, kills=3)
    assert logged(home) == sent


def _properties(folder: Path) -> Path:
    path = folder / "client.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in QUICK.items()))
    return path
