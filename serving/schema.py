"""What a request may say: one table of fields for each endpoint, derived from the event contract.

The table decides alone: it validates, and the OpenAPI description is made of it. JSON's types are taken
strictly ("12", true and NaN are no numbers), and a key that nobody knows is refused rather than ignored,
since a misspelt field would otherwise be answered as if it had not been sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from clicktrail.clock import microseconds
from clicktrail.contract import EVENT_COLUMNS, LABEL, Column

MAX_BODY_BYTES = 64 * 1024
MAX_TEXT = 256
MAX_K = 1000
LARGEST_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader takes exactly."""

Kind = Literal["text", "integer", "boolean", "time"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a request. `default` stands where an optional field is left out; times become microseconds UTC."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    nullable: bool = False
    minimum: int = 0
    maximum: int = LARGEST_INTEGER
    default: str | int | bool | None = None


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


_USER = Field(name="user_id", kind="text", meaning="who asks", required=True)

RECOMMEND: tuple[Field, ...] = (
    _USER,
    Field(name="k", kind="integer", meaning="how many items", minimum=1, maximum=MAX_K, default=10),
    Field(
        name="exclude_seen",
        kind="boolean",
        meaning="leave out items in the user's recent history, as far as the state remembers it",
        default=False,
    ),
)

SCORE_USER: tuple[Field, ...] = (_USER,)

_NOT_SENT = ("event_type", "ingested_at", "source_seq", "label_of", LABEL, "label_value")
_ALWAYS = ("event_id", "user_id", "price_minor")
_WHO_PAYS = ("user_id", "card_id", "terminal_id")


def _payment_field(column: Column) -> Field:
    kind: Kind = "text"
    if pa.types.is_timestamp(column.type):
        kind = "time"
    elif pa.types.is_integer(column.type):
        kind = "integer"
    # a payment without a card or terminal must say so with null: forgetting the key would hide it
    key = column.name in _WHO_PAYS
    always = column.name in _ALWAYS
    return Field(
        name=column.name,
        kind=kind,
        meaning=column.meaning + (f" ({column.unit})" if column.unit else ""),
        required=always or key,
        nullable=not always and column.nullable,
        minimum=column.minimum or 0,
    )


SCORE_PAYMENT: tuple[Field, ...] = tuple(
    _payment_field(column) for column in EVENT_COLUMNS if column.name not in _NOT_SENT
)
"""A payment as the event contract writes it, without what only the log knows of it."""

ENDPOINTS: dict[str, tuple[str, tuple[Field, ...]]] = {
    "recommendation": ("/recommend", RECOMMEND),
    "retention": ("/score", SCORE_USER),
    "fraud": ("/score", SCORE_PAYMENT),
}
"""Path and fields by task."""


def parse(body: bytes, fields: tuple[Field, ...]) -> dict[str, Any]:
    """A request's values by field name, defaults filled in, times as microseconds UTC.

    Raises:
        InvalidRequestError: with every problem that was found.
    """
    data = _object(body)
    problems: list[Problem] = []
    names = {field.name for field in fields}
    for key in data:
        if key not in names:
            known = ", ".join(sorted(names))
            problems.append(
                _problem(_short(key, quote=False), "unknown", f"is no field of this request; there are: {known}")
            )
    values: dict[str, Any] = {}
    for field in fields:
        if field.name not in data:
            if field.required:
                null = " (null where there is none)" if field.nullable else ""
                problems.append(_problem(field.name, "required", f"is missing; send {field.meaning}{null}"))
            values[field.name] = field.default
            continue
        value, problem = _value(field, data[field.name])
        values[field.name] = value
        if problem:
            problems.append(problem)
    if problems:
        raise InvalidRequestError(problems)
    return values


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


def _value(field: Field, value: Any) -> tuple[Any, Problem | None]:  # noqa: ANN401 - JSON data
    if value is None:
        problem = None if field.nullable else _problem(field.name, "not_null", f"is null; send {field.meaning}")
        return None, problem
    return _READERS[field.kind](field, value)


def _text(field: Field, value: Any) -> tuple[Any, Problem | None]:  # noqa: ANN401
    if not isinstance(value, str):
        return None, _problem(field.name, "text", f"is {_short(value)}; send a string")
    if not value or len(value) > MAX_TEXT:
        return None, _problem(field.name, "length", f"has {len(value)} characters; send 1 to {MAX_TEXT}")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in value):
        return None, _problem(field.name, "text", "holds half a surrogate pair or a NUL; send Unicode text")
    return value, None


def _integer(field: Field, value: Any) -> tuple[Any, Problem | None]:  # noqa: ANN401
    bounds = f"an integer from {field.minimum} to {field.maximum}"
    if isinstance(value, bool) or not isinstance(value, int):
        return None, _problem(field.name, "integer", f"is {_short(value)}; send {bounds}")
    if not field.minimum <= value <= field.maximum:
        return None, _problem(field.name, "range", f"is {_short(value)}; send {bounds}")
    return value, None


def _boolean(field: Field, value: Any) -> tuple[Any, Problem | None]:  # noqa: ANN401
    if not isinstance(value, bool):
        return None, _problem(field.name, "boolean", f"is {_short(value)}; send true or false")
    return value, None


def _time(field: Field, value: Any) -> tuple[Any, Problem | None]:  # noqa: ANN401
    wanted = "send an ISO 8601 time with its offset, such as 2026-03-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(value)
        t = microseconds(moment.astimezone(UTC))
    except (TypeError, ValueError, OverflowError):
        return None, _problem(field.name, "time", f"is {_short(value)}; {wanted}")
    if moment.tzinfo is None or t < 0:
        return None, _problem(field.name, "time", f"is {_short(value)}; {wanted}, not before 1970")
    return t, None


_READERS = {"text": _text, "integer": _integer, "boolean": _boolean, "time": _time}


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
