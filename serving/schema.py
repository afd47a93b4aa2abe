"""Requests by a table of fields: the table decides alone what is taken (serving/endpoints.py has the tables).

JSON's types are taken strictly ("12", true and NaN are no numbers), and a key that nobody knows is refused rather
than ignored, since a misspelt field would otherwise be answered as if it had not been sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from clicktrail.clock import microseconds

MAX_BODY_BYTES = 64 * 1024
MAX_TEXT = 256
LARGEST_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader takes exactly."""

Kind = Literal["text", "integer", "boolean", "time", "number", "texts", "object", "objects"]
"""`texts` is a list of texts that differ, `object` has fields of its own, `objects` is a list of such."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a request. `default` stands where an optional field is left out; times become microseconds UTC.

    `minimum` and `maximum` bound numbers, `most` the entries of a list; `fields` are those of an object.
    """

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    nullable: bool = False
    minimum: int = 0
    maximum: int = LARGEST_INTEGER
    default: str | int | bool | None = None
    most: int = 0
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a request is refused: the field ("" for the body as a whole), the rule that it breaks, and the way out."""

    field: str
    rule: str
    message: str


class InvalidRequestError(ValueError):
    """The request breaks the rules of its endpoint."""

    def __init__(self, problems: list[Problem]) -> None:
        """`problems` has at least one."""
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


def parse(body: bytes, fields: tuple[Field, ...]) -> dict[str, Any]:
    """A request's values by field name, defaults filled in, times as microseconds UTC.

    Raises:
        InvalidRequestError: with every problem that was found.
    """
    values, problems = _fields(fields, _object(body), "")
    if problems:
        raise InvalidRequestError(problems)
    return values


def _fields(fields: tuple[Field, ...], data: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[Problem]]:
    """Values by name and what is wrong with them; problems name their field with `prefix` before it."""
    problems: list[Problem] = []
    names = {field.name for field in fields}
    if not data.keys() <= names:
        known = ", ".join(sorted(names))
        problems += [
            _problem(prefix + _short(key, quote=False), "unknown", f"is no field of this request; there are: {known}")
            for key in data
            if key not in names
        ]
    values: dict[str, Any] = {}
    for field in fields:
        name = prefix + field.name
        if field.name in data:
            values[field.name], found = _value(field, name, data[field.name])
            problems += found
        else:
            if field.required:
                null = " (null where there is none)" if field.nullable else ""
                problems.append(_problem(name, "required", f"is missing; send {field.meaning}{null}"))
            values[field.name] = field.default
    return values, problems


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body, parse_int=_whole, object_pairs_hook=_each_once)
    except InvalidRequestError:
        raise
    except (ValueError, RecursionError) as error:
        where = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        what = f"is no JSON text in UTF-8 ({where})"
        raise _of_body(what, rule="json") from error
    if not isinstance(data, dict):
        what = f"is {_short(data)}; send one JSON object"
        raise _of_body(what, rule="object")
    return data


def _whole(digits: str) -> int | float:
    """An integer, or beyond any that is allowed a float, so that the refusal can name its field."""
    return int(digits) if len(digits) <= len(str(LARGEST_INTEGER)) + 1 else float(digits)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise InvalidRequestError([_problem(_short(key, quote=False), "once", "is there twice; send it once")])
        data[key] = value
    return data


def _value(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401 - JSON data
    if value is None:
        return None, [] if field.nullable else [_problem(name, "not_null", f"is null; send {field.meaning}")]
    return _READERS[field.kind](field, name, value)


def _text(_field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    if not isinstance(value, str):
        return None, [_problem(name, "text", f"is {_short(value)}; send a string")]
    if not value or len(value) > MAX_TEXT:
        return None, [_problem(name, "length", f"has {len(value)} characters; send 1 to {MAX_TEXT}")]
    # an ASCII text without a NUL is the common case, and the cheap one to see
    if not (value.isascii() and "\0" not in value) and any(
        "\ud800" <= character <= "\udfff" or character == "\0" for character in value
    ):
        return None, [_problem(name, "text", "holds half a surrogate pair or a NUL; send Unicode text")]
    return value, []


def _integer(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    bounds = f"an integer from {field.minimum} to {field.maximum}"
    if isinstance(value, bool) or not isinstance(value, int):
        return None, [_problem(name, "integer", f"is {_short(value)}; send {bounds}")]
    if not field.minimum <= value <= field.maximum:
        return None, [_problem(name, "range", f"is {_short(value)}; send {bounds}")]
    return value, []


def _number(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    bounds = f"a number from {field.minimum} to {field.maximum}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, [_problem(name, "number", f"is {_short(value)}; send {bounds}")]
    if not field.minimum <= value <= field.maximum:  # NaN is in no range
        return None, [_problem(name, "range", f"is {_short(value)}; send {bounds}")]
    return float(value), []


def _boolean(_field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    if not isinstance(value, bool):
        return None, [_problem(name, "boolean", f"is {_short(value)}; send true or false")]
    return value, []


def _time(_field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    wanted = "send an ISO 8601 time with its offset, such as 2026-03-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(value)
        t = microseconds(moment.astimezone(UTC))
    except (TypeError, ValueError, OverflowError):
        return None, [_problem(name, "time", f"is {_short(value)}; {wanted}")]
    if moment.tzinfo is None or t < 0:
        return None, [_problem(name, "time", f"is {_short(value)}; {wanted}, not before 1970")]
    return t, []


def _texts(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    entries, problems = _entries(field, name, value, _text)
    if not problems and len(set(entries)) < len(entries):
        problems.append(_problem(name, "once", "names one twice; send each once"))
    return entries, problems


def _one_object(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    if not isinstance(value, dict):
        return None, [_problem(name, "object", f"is {_short(value)}; send a JSON object")]
    return _fields(field.fields, value, f"{name}.")


def _objects(field: Field, name: str, value: Any) -> tuple[Any, list[Problem]]:  # noqa: ANN401
    return _entries(field, name, value, _one_object)


def _entries(field: Field, name: str, value: Any, read: _Reader) -> tuple[list[Any], list[Problem]]:  # noqa: ANN401
    """The entries of a list, each read; problems name them `name[place]`."""
    if not isinstance(value, list):
        return [], [_problem(name, "list", f"is {_short(value)}; send a list")]
    if not field.minimum <= len(value) <= field.most:
        return [], [_problem(name, "length", f"has {len(value)} entries; send {field.minimum} to {field.most}")]
    entries, problems = [], []
    for place, one in enumerate(value):
        entry, found = read(field, f"{name}[{place}]", one)
        entries.append(entry)
        problems += found
    return entries, problems


_Reader = Callable[[Field, str, Any], tuple[Any, list[Problem]]]
_READERS: dict[Kind, _Reader] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "time": _time,
    "texts": _texts,
    "object": _one_object,
    "objects": _objects,
}


def _problem(field: str, rule: str, what: str) -> Problem:
    return Problem(field=field, rule=rule, message=f"{field} {what}")


def _of_body(what: str, *, rule: str) -> InvalidRequestError:
    return InvalidRequestError([Problem(field="", rule=rule, message=f"the body {what}")])


def _short(value: Any, *, quote: bool = True) -> str:  # noqa: ANN401 - JSON data
    """A value as a person may read it in a message, cut and safe to encode."""
    try:
        text = json.dumps(value) if quote else str(value).encode("ascii", "backslashreplace").decode()
    except RecursionError:
        text = f"a {type(value).__name__} too deep to show"
    limit = 60
    return text if len(text) <= limit else text[:limit] + "..."
