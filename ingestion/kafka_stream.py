"""A Kafka topic (or any broker that speaks its protocol), read as a consumer group; a message's value is the event."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ingestion.live import Arrivals
from ingestion.live_json import decode_or_refuse
from ingestion.stream import StreamDownError

logger = logging.getLogger("clicktrail.intake")

_OURS = {"enable.auto.commit": False, "enable.partition.eof": False}
"""What exactly once rests on: no properties file may say otherwise."""

_LEAST_WAIT = 0.05
"""Seconds: it does not return with the first message, and without a wait an idle topic would be asked all the time."""


class KafkaStream:
    """`ingestion.stream.Stream` over one topic; a new group begins at the oldest message."""

    def __init__(self, servers: str, topic: str, *, group: str, properties: Mapping[str, str] | None = None) -> None:
        """`properties` are librdkafka's own (security, TLS, timeouts).

        Raises:
            ValueError: librdkafka knows no such property.
        """
        self._topic = topic
        given = {"auto.offset.reset": "earliest", "client.id": "clicktrail", **(properties or {})}
        config: dict[str, Any] = {**given, **_OURS, "bootstrap.servers": servers, "group.id": group}
        try:
            self._consumer = Consumer(config, logger=logger)
        except KafkaException as error:
            message = f"the consumer cannot be set up: {error.args[0].str()}"
            raise ValueError(message) from error
        self._consumer.subscribe([topic])
        self._next: dict[int, int] = {}

    def read(self, most: int, seconds: float) -> Sequence[Arrivals]:
        """Messages of all partitions that are assigned to this consumer.

        Raises:
            StreamDownError: the brokers cannot be reached.
            ConnectionError: this consumer cannot go on, for example since another has taken its place in the group.
        """
        try:
            messages = self._consumer.consume(most, timeout=max(seconds, _LEAST_WAIT))
        except KafkaException as error:
            raise StreamDownError(self._down(error.args[0])) from error
        now = time.time_ns() // 1_000
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            problem = message.error()
            if problem is None:
                by_partition.setdefault(message.partition(), []).append(message)
            elif problem.fatal():
                raise ConnectionError(self._down(problem))
            else:  # a broker that went away, a topic that is not there yet: librdkafka goes on by itself
                logger.warning("%s", self._down(problem))
        self._next = {partition: part[-1].offset() + 1 for partition, part in by_partition.items()}
        return [
            Arrivals(
                stream=f"kafka:{self._topic}/{partition}",
                events=[decode_or_refuse(message.value() or b"") for message in part],
                positions=np.array([message.offset() for message in part], np.int64),
                arrived_at=now,
            )
            for partition, part in by_partition.items()
        ]

    def acknowledge(self) -> None:
        """Everything that was read is durable."""
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in self._next.items()]
        self._next = {}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # the partition is another consumer's now, which finds copies; or else the next commit covers these too
            logger.warning("%s", self._down(error.args[0]))

    def lag(self) -> Mapping[str, int]:
        """Messages after this consumer's position, by partition, as far as the broker has said."""
        behind = {}
        try:
            positions = self._consumer.position(self._consumer.assignment())
            known = [self._consumer.get_watermark_offsets(one, cached=True) for one in positions]
        except KafkaException as error:  # a figure less, not a reason to stop
            logger.warning("%s", self._down(error.args[0]))
            return {}
        for one, (_, end) in zip(positions, known, strict=True):
            if end >= 0 and one.offset != OFFSET_INVALID:
                behind[f"kafka:{self._topic}/{one.partition}"] = max(0, end - one.offset)
        return behind

    def lost(self) -> Mapping[str, int]:
        """None that a consumer could know of: a gap in the offsets may also be a compacted topic's."""
        return {}

    def close(self) -> None:
        """Leave the group, so that its partitions go to others at once."""
        self._consumer.close()

    def _down(self, error: KafkaError) -> str:
        return f"Kafka topic {self._topic}: {error.str()}"


def read_properties(path: Path) -> dict[str, str]:
    """Settings of a properties file: `key=value` lines, `#` begins a comment.

    Raises:
        ValueError: a line is neither.
        OSError: the file cannot be read.
    """
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals:
            message = f"{path.name} line {number} is no `key=value`: {text!r}"
            raise ValueError(message)
        found[key.strip()] = value.strip()
    return found
