"""Events from a stream, acknowledged once they are durable.

    python -m ingestion.stream --source redis|kafka [--url URL] [--name STREAM] [--group GROUP] [--shop SHOP]

Read a flush, take it in, acknowledge it. Killed between the last two, the next consumer is handed the same events
again, and the log counts them as copies: each is in the log exactly once. Several consumers of one group share the
work.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client import start_http_server

from clicktrail.settings import Settings, load
from ingestion.live import FLUSH_EVENTS, FLUSH_SECONDS, Arrivals, LiveIntake, Taken
from ingestion.live_metrics import IntakeMetrics

logger = logging.getLogger("clicktrail.intake")

_LAG_EVERY = 5.0
_LONGEST_WAIT = 30.0


class StreamDownError(Exception):
    """The stream cannot be reached now; what was not acknowledged will be handed out again."""


class Stream(Protocol):
    """A place that hands events out again until they are acknowledged."""

    def read(self, most: int, seconds: float) -> Sequence[Arrivals]:
        """Up to `most` events: what is there, and what comes within `seconds`; nothing where none came for a while."""

    def acknowledge(self) -> None:
        """Everything that was read is durable."""

    def lag(self) -> Mapping[str, int]:
        """Events that nobody has read yet, by stream."""

    def lost(self) -> Mapping[str, int]:
        """Events that were dropped before they were read, since the last call, by stream."""

    def close(self) -> None:
        """Leave the group."""


def consume(stream: Stream, live: LiveIntake, metrics: IntakeMetrics, stop: threading.Event) -> None:
    """Take the stream's events in until told to stop; then finish the flush at hand.

    A stream that is down and a log that cannot be written are tried again, ever less often.
    """
    wait, measured, flushed = 0.0, -math.inf, -math.inf
    while not stop.wait(wait):
        try:
            # a flush that took long, or was long ago, leaves nothing to wait for
            arrivals = stream.read(FLUSH_EVENTS, max(0.0, flushed + FLUSH_SECONDS - time.monotonic()))
            if arrivals:
                flushed = time.monotonic()
                _take_in(arrivals, live, metrics, stop)
                stream.acknowledge()
            if time.monotonic() - measured >= _LAG_EVERY:
                _measure(stream, metrics)
                measured = time.monotonic()
            wait = 0.0
        except StreamDownError as error:
            wait = min(max(1.0, 2 * wait), _LONGEST_WAIT)
            metrics.failures.labels("stream").inc()
            logger.warning("%s; trying again in %.0f s", error, wait)


def _take_in(arrivals: Sequence[Arrivals], live: LiveIntake, metrics: IntakeMetrics, stop: threading.Event) -> Taken:
    """Until the flush is in; a full disk is waited for, events stay in the stream meanwhile."""
    wait = 1.0
    while True:
        began = time.monotonic()
        try:
            taken = live.take_in(arrivals)
        except OSError:
            metrics.failures.labels("flush").inc()
            logger.exception("a flush failed; trying again in %.0f s", wait)
            if stop.wait(wait):  # not acknowledged: the next consumer is handed it
                raise
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            metrics.record(arrivals, taken, time.monotonic() - began)
            return taken


def _measure(stream: Stream, metrics: IntakeMetrics) -> None:
    for name, events in stream.lag().items():
        metrics.lag.labels(name).set(events)
    for name, events in stream.lost().items():
        metrics.lost.labels(name).inc(events)


def main(arguments: list[str] | None = None) -> int:
    """Consume until told to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load({**os.environ, "CLICKTRAIL_SHOP": options.shop} if options.shop else None)
        stream = _open(options, settings)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    metrics = IntakeMetrics()
    if options.metrics_port:
        start_http_server(options.metrics_port, "127.0.0.1", registry=metrics.registry)
    logger.info("%s stream %s goes into %s", options.source, options.name, settings.log)
    try:
        consume(stream, LiveIntake(settings), metrics, stop)
    except OSError as error:  # the stream is gone for good, or told to stop while the log could not be written
        sys.stderr.write(f"error: {error}; events that were not acknowledged stay in the stream\n")
        return 1
    finally:
        stream.close()
    return 0


def _open(options: argparse.Namespace, settings: Settings) -> Stream:
    url = options.url or settings.stream_url
    if options.source == "redis":
        from ingestion.redis_streams import RedisStream

        return RedisStream(
            url or "redis://127.0.0.1:6379/0",
            options.name,
            group=options.group,
            consumer=options.consumer,
            claim_after=options.claim_after,
        )
    from ingestion.kafka_stream import KafkaStream, read_properties

    properties = read_properties(options.properties) if options.properties else {}
    return KafkaStream(url or "127.0.0.1:9092", options.name, group=options.group, properties=properties)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingestion.stream", description="Take a stream's events in.")
    parser.add_argument("--source", required=True, choices=("redis", "kafka"))
    parser.add_argument("--url", default="", help="redis://host:port/db, or bootstrap servers (CLICKTRAIL_STREAM_URL)")
    parser.add_argument("--name", default="events", help="stream or topic")
    parser.add_argument("--group", default="clicktrail", help="consumers of one group share the events")
    parser.add_argument("--shop", default="", help="whose data (default: CLICKTRAIL_SHOP, else demo)")
    parser.add_argument("--metrics-port", type=int, default=0, help="serve Prometheus metrics on this machine")
    parser.add_argument("--consumer", default="", help="redis: name of this consumer (default: host and process)")
    parser.add_argument(
        "--claim-after", type=float, default=30.0, help="redis: seconds until a silent consumer's events are taken over"
    )
    parser.add_argument(
        "--properties", type=Path, help="kafka: file of librdkafka settings, one `key=value` a line (security, TLS)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
