"""The body of a push: a JSON array of events, or one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

from ingestion.live_json import decode

_FORMS = "send a JSON array of events, or one JSON object a line"
_SHOWN = 20


class BadBodyError(ValueError):
    """The body cannot be split into events; `problems` name the lines."""

    def __init__(self, message: str, problems: list[dict[str, Any]] | None = None) -> None:
        """`problems` may be empty where the whole body is at fault."""
        super().__init__(message)
        self.problems = problems or []


def split(body: bytes) -> list[Any]:
    """The JSON values of a body, in order; whether each is an event is for the row rules to say.

    Raises:
        BadBodyError: it is no JSON; nothing of it is taken, since nobody can say what was meant.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        message = f"the body is no UTF-8 (line {line}, byte {error.start}); {_FORMS}"
        raise BadBodyError(message, [{"line": line, "message": str(error)}]) from error
    if text.lstrip(" \t\r\n").startswith("["):
        return _array(text)
    return _lines(text)


def _array(text: str) -> list[Any]:
    try:
        events: list[Any] = decode(text)
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        message = f"the body is no JSON array, line {line}: {_said(error)}; {_FORMS}"
        raise BadBodyError(message, [{"line": line, "message": _said(error)}]) from error
    return events


def _lines(text: str) -> list[Any]:
    events, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            events.append(decode(line))
        except ValueError as error:
            problems.append({"line": number, "message": _said(error)})
    if problems:
        first = problems[0]
        message = f"{len(problems)} lines are no JSON, the first is line {first['line']}: {first['message']}; {_FORMS}"
        raise BadBodyError(message, problems[:_SHOWN])
    if not events:
        message = f"the body is empty; {_FORMS}"
        raise BadBodyError(message)
    return events


def _said(error: ValueError) -> str:
    return f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)
