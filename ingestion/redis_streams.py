"""A Redis stream, read as a consumer group.

An entry holds an event as JSON in the field `event`, or one field a column (Redis knows no types: there the digits of
an integer column are its value). Entries are acknowledged when they are durable; those of a consumer that has died
are taken over after a while.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clicktrail.contract import EVENT_COLUMNS
from ingestion.live import Arrivals
from ingestion.live_json import NotJson, decode_or_refuse
from ingestion.stream import StreamDownError

_IDLE_SECONDS = 1.0
_TIMEOUT = 10.0
_INTEGERS = frozenset(column.name for column in EVENT_COLUMNS if pa.types.is_integer(column.type))
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_SEQUENCE_BITS = 20
_START = b"0-0"

_Answer = TypeVar("_Answer")
_Entry = tuple[bytes, dict[bytes, bytes] | None]


class RedisStream:
    """`ingestion.stream.Stream` over one Redis stream and group; both are made where they are missing."""

    def __init__(
        self, url: str, name: str, *, group: str = "clicktrail", consumer: str = "", claim_after: float = 30.0
    ) -> None:
        """`claim_after`: seconds without a sign of life after which another consumer's entries are taken over.

        Raises:
            ValueError: the URL is none that redis-py knows.
        """
        # no silent retry: an answer that was lost on its way holds entries, which are then asked for as left over
        self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=_TIMEOUT)
        self._name, self._group = name, group
        self._consumer = consumer or f"{socket.gethostname()}-{os.getpid()}"
        self._claim_after = claim_after
        self._read_ids: list[bytes] = []
        self._dropped = 0
        self._restart()

    def read(self, most: int, seconds: float) -> Sequence[Arrivals]:
        """What this consumer was handed before and has not acknowledged, then what others left, then what is new."""
        entries = self._ask(lambda: self._old(most) or self._new(most, seconds))
        now = time.time_ns() // 1_000
        self._read_ids = [id_ for id_, _ in entries]
        there = [(id_, fields) for id_, fields in entries if fields]
        self._dropped += len(entries) - len(there)
        if not there:
            self.acknowledge()  # entries that were trimmed away: nothing to take in
            return []
        return [
            Arrivals(
                stream=f"redis:{self._name}",
                events=[event_of(fields) for _, fields in there],
                positions=np.array([position_of(id_) for id_, _ in there], np.int64),
                arrived_at=now,
            )
        ]

    def acknowledge(self) -> None:
        """Everything that was read is durable."""
        if self._read_ids:
            self._ask(lambda: self._redis.xack(self._name, self._group, *self._read_ids))
        self._read_ids = []

    def lag(self) -> Mapping[str, int]:
        """Entries that the group was not handed yet; none where Redis cannot tell."""
        groups: list[dict[str, Any]] = self._ask(lambda: self._redis.xinfo_groups(self._name))
        own = next((one for one in groups if one["name"] == self._group.encode()), {})
        return {} if own.get("lag") is None else {f"redis:{self._name}": int(own["lag"])}

    def lost(self) -> Mapping[str, int]:
        """Entries that were trimmed after they were handed out and before they were acknowledged."""
        dropped, self._dropped = self._dropped, 0
        return {f"redis:{self._name}": dropped}

    def close(self) -> None:
        """Close the connection; what was not acknowledged is there for others."""
        self._redis.close()

    # ---- inside

    def _restart(self) -> None:
        """Begin as a consumer does that has died or lost its connection: with what it left."""
        self._left: bytes | None = _START
        self._cursor = _START
        self._claimed = 0.0
        self._grouped = False

    def _ask(self, command: Callable[[], _Answer]) -> _Answer:
        try:
            if not self._grouped:
                self._make_group()
            return command()
        except redis.RedisError as error:
            self._restart()
            message = f"Redis stream {self._name}: {error}"
            raise StreamDownError(message) from error

    def _make_group(self) -> None:
        try:
            self._redis.xgroup_create(self._name, self._group, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._grouped = True

    def _old(self, most: int) -> list[_Entry]:
        if self._left is not None:
            entries = self._hand_out(self._left, most, None)
            self._left = entries[-1][0] if entries else None
            if entries:
                return entries
        if self._cursor != _START or time.monotonic() - self._claimed >= self._claim_after / 2:
            idle = int(self._claim_after * 1_000)
            self._cursor, claimed, trimmed = self._redis.xautoclaim(
                self._name, self._group, self._consumer, min_idle_time=idle, start_id=self._cursor, count=most
            )
            self._claimed = time.monotonic()
            self._dropped += len(trimmed)
            return list(claimed)
        return []

    def _new(self, most: int, seconds: float) -> list[_Entry]:
        entries = self._hand_out(b">", most, int(_IDLE_SECONDS * 1_000))
        if seconds and 0 < len(entries) < most:
            # two calls a flush: to be woken for each entry would cost more than the entries
            time.sleep(seconds)
            entries += self._hand_out(b">", most - len(entries), None)
        return entries

    def _hand_out(self, after: bytes, most: int, block: int | None) -> list[_Entry]:
        answer: list[tuple[bytes, list[_Entry]]] = self._redis.xreadgroup(
            self._group, self._consumer, {self._name: after}, count=most, block=block
        )
        return list(answer[0][1]) if answer else []


def event_of(fields: Mapping[bytes, bytes]) -> Any:  # noqa: ANN401 - JSON data
    """The event of an entry; one that cannot be read is for the row rules to refuse."""
    if b"event" in fields:
        return decode_or_refuse(fields[b"event"])
    try:
        return dict(_columns((name.decode(), value.decode()) for name, value in fields.items()))
    except UnicodeDecodeError as error:
        return NotJson(repr(dict(fields)), str(error))


def _columns(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str | int]]:
    for name, value in pairs:
        yield name, int(value) if name in _INTEGERS and _DIGITS.fullmatch(value) else value


def position_of(id_: bytes) -> int:
    """One number for an entry's id `milliseconds-sequence`, in the same order; reversed: `n >> 20`, `n & 0xfffff`."""
    milliseconds, _, sequence = id_.partition(b"-")
    return int(milliseconds) << _SEQUENCE_BITS | min(int(sequence), (1 << _SEQUENCE_BITS) - 1)
