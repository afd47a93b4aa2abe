"""What a worker writes to stdout: one JSON object a line, and nothing in it that says who somebody is.

A line of a request names its id, never its content. An exception is told by its type and the lines of code that it
passed: its message may quote what was asked. Those of errors that speak of the state or the bundle are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from serving.manifest import RefusedError

_OF_OTHERS = ("", "bentoml", "uvicorn.error", "circus")
"""Loggers that BentoML has given handlers, the root among them."""

_OWN = "clicktrail"
_ABOUT_US = (RefusedError, sqlite3.Error, OSError)
_FRAMES = 6
_HELD_S = 0.2


class JsonLines(logging.Formatter):
    """A record as a line; `extra` of our own loggers goes in."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": _text(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **getattr(record, "about", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = described(record.exc_info[1])
        return json.dumps(line)


def described(error: BaseException) -> dict[str, Any]:
    """An exception without what it may quote: type, the innermost lines of code, and what it came from."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    found: dict[str, Any] = {
        "type": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if isinstance(error, _ABOUT_US):
        found["message"] = str(error)
    if error.__cause__ is not None:
        found["from"] = described(error.__cause__)
    return found


def to_stdout(level: str) -> None:
    """Have all loggers of this process write such lines, ours from `level` on (`info`, `warning`, `error`)."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name in _OF_OTHERS:
        logging.getLogger(name).handlers[:] = [handler]
    logging.getLogger(_OWN).setLevel(level.upper())


class AccessLog:
    """A line a request. Written past `logging`, which takes as long as the rest of a request's telling.

    On an event loop the lines of a fifth of a second are written together: a write costs more than all the rest of it.
    """

    def __init__(self, model: str, stream: TextIO | None = None) -> None:
        """`model` is the bundle's tag; lines go to stdout by default."""
        self._model = json.dumps(model)
        self._stream = stream or sys.stdout
        self._held: list[str] = []

    def line(self, request_id: str, status: int, ms: float, rows: int, now: float) -> None:
        """A request was answered; `request_id` needs no escaping, `now` is the wall clock in seconds."""
        level = "info" if status < 500 else "error"  # noqa: PLR2004 - HTTP's
        text = (
            f'{{"time": "{_text(now)}", "level": "{level}", "event": "request", "request_id": "{request_id}", '
            f'"model": {self._model}, "status": {status}, "ms": {ms:.3f}, "rows": {rows}}}\n'
        )
        self._held.append(text)
        if len(self._held) == 1:
            try:
                asyncio.get_running_loop().call_later(_HELD_S, self.flush)
            except RuntimeError:  # no loop runs
                self.flush()

    def flush(self) -> None:
        """Write the lines that are held."""
        text, self._held = "".join(self._held), []
        with contextlib.suppress(OSError, ValueError):  # nobody reads stdout any more: that is no reason not to answer
            self._stream.write(text)
            self._stream.flush()


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
