"""What time it is when features are read: passed in, never patched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_READ_AT: ContextVar[int | None] = ContextVar("clicktrail_read_at", default=None)


def microseconds(moment: datetime) -> int:
    """Microseconds UTC; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(t: int) -> datetime:
    """The datetime of microseconds UTC."""
    return datetime.fromtimestamp(t // 1_000_000, UTC).replace(microsecond=t % 1_000_000)


def read_time(clock: str, watermark: int) -> int:
    """The time at which features are read now, microseconds UTC.

    Args:
        clock: `wall`, `log` (just after everything the state knows: for replayed data) or an ISO 8601 time.
        watermark: largest known_at that the state has applied.

    Raises:
        ValueError: the clock is none of these.
    """
    fixed = _READ_AT.get()
    if fixed is not None:
        return fixed
    if clock == "wall":
        return time.time_ns() // 1_000
    if clock == "log":
        return watermark + 1
    try:
        return microseconds(datetime.fromisoformat(clock))
    except ValueError as error:
        message = f"CLICKTRAIL_CLOCK is {clock!r}: use wall, log or a time such as 2026-03-31T12:00:00Z"
        raise ValueError(message) from error


@contextmanager
def read_at(t: int | datetime) -> Iterator[None]:
    """Within this block online features are read as of `t` (a datetime, or microseconds UTC)."""
    token = _READ_AT.set(microseconds(t) if isinstance(t, datetime) else t)
    try:
        yield
    finally:
        _READ_AT.reset(token)
