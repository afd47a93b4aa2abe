"""Requests about one user or many: the same fields, the same answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.decision import Decision
from serving.schema import InvalidRequestError, Problem

_OF_ALL = ("feature_offset", "model")
"""What the answers of one request have in common."""


def users_of(request: Mapping[str, Any]) -> list[str]:
    """Whom a request is about.

    Raises:
        InvalidRequestError: nobody, or both ways of saying it.
    """
    user, many = request["user_id"], request["users"]
    if user is None and many is None:
        refuse("user_id", "required", "is missing; send it, or users")
    if user is not None and many is not None:
        refuse("user_id", "one_of", "stands beside users; send one of them")
    return [user] if many is None else list(many)


def by_users(
    decide: Callable[[dict[str, Any]], Decision], requests: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Answers to requests that differ in nothing but the user, as one request; a user may be there twice."""
    users = list(dict.fromkeys(one["user_id"] for one in requests))
    answer = decide({**requests[0], "user_id": None, "users": users}).answer
    common = {name: answer[name] for name in _OF_ALL}
    by_user = dict(zip(users, answer["answers"], strict=True))
    return [{**by_user[one["user_id"]], **common} for one in requests]


def refuse(field: str, rule: str, what: str) -> None:
    """Refuse a request for a field that its table cannot judge alone."""
    raise InvalidRequestError([Problem(field=field, rule=rule, message=f"{field} {what}")])


def together(users: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One answer of many; what they have in common stands once."""
    own = [
        {"user_id": user, **{name: value for name, value in answer.items() if name not in _OF_ALL}}
        for user, answer in zip(users, answers, strict=True)
    ]
    return {"answers": own, **{name: answers[0][name] for name in _OF_ALL}}
