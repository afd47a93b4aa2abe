"""Consumers of a stream, as threads and as processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from ingestion.live import LiveIntake
from ingestion.live_metrics import IntakeMetrics
from ingestion.stream import Stream, consume

_LONGEST = 60.0


@contextlib.contextmanager
def consuming(stream: Stream, home: Settings) -> Iterator[IntakeMetrics]:
    """A consumer at work in a thread; at the end of the block it finishes its flush and leaves."""
    metrics, stop = IntakeMetrics(), threading.Event()
    thread = threading.Thread(target=consume, args=(stream, LiveIntake(home), metrics, stop))
    thread.start()
    try:
        yield metrics
    finally:
        stop.set()
        thread.join(_LONGEST)
        stream.close()
    assert not thread.is_alive()


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that is about to be."""
    deadline = time.monotonic() + _LONGEST
    while not reached():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def logged(home: Settings) -> list[str]:
    """Event ids in the log, sorted."""
    return sorted(EventLog(home.log).read(["event_id"])["event_id"].to_pylist())


@contextlib.contextmanager
def process(home: Path, *options: str, failpoint: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A consumer as a process of its own, killed at the end of the block if it still lives."""
    environ = os.environ | {"CLICKTRAIL_HOME": str(home), "CLICKTRAIL_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "ingestion.stream", *options]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as started:
        try:
            yield started
        finally:
            started.kill()


def killed_again_and_again(
    home: Settings, send: Callable[[Sequence[str]], None], options: Callable[[int], Sequence[str]], *, kills: int
) -> list[str]:
    """Consumers die one after the other at random moments while events come in; one more finishes the work.

    Args:
        home: of the shop.
        send: puts events of these names into the stream.
        options: of the command line, by number of the consumer.
        kills: how many are killed.

    Returns:
        The names of all events that were sent.
    """
    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    log, sent, over = EventLog(home.log), list[str](), threading.Event()

    def send_more() -> None:
        more = [f"e{n:06d}" for n in range(len(sent), len(sent) + 40)]
        send(more)
        sent.extend(more)

    def produce() -> None:
        while not over.wait(0.04):
            send_more()

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for number in range(kills):
            before = log.version
            with process(home.home, *options(number)) as one:
                until(lambda before=before: log.version > before)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.6))  # some die in the middle of a flush, some after it
                one.kill()
                one.wait()
    finally:
        over.set()
        producer.join()
    send_more()
    with process(home.home, *options(kills)) as last:
        until(lambda: log.version == len(sent))
        last.send_signal(signal.SIGTERM)
        assert last.wait(_LONGEST) == 0
    return sent
