"""Which store a target names: a Redis URL, or the path of a SQLite file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from clicktrail.redis_state import RedisState
from clicktrail.sqlite_state import SqliteState
from clicktrail.state_store import StateStore


def open_store(target: str | Path) -> StateStore:
    """The store at a Redis URL, or in the SQLite file of this path.

    `redis://host:6379/0#shop`: several shops share a Redis, each under a name of its own (none: `default`).
    """
    return RedisState(str(target)) if is_url(target) else SqliteState(Path(target))


def is_url(target: str | Path) -> bool:
    """Whether this names a Redis rather than a file."""
    return str(target).startswith(("redis://", "rediss://", "unix://"))


def shown(target: str | Path) -> str:
    """The target as messages name it: without a password."""
    if not is_url(target):
        return str(target)
    parts = urlsplit(str(target))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
