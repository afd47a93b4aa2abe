"""What a repo's definitions owe those who read them: names, owners, units, personal data, deprecation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from feast import FeatureService

from clicktrail.data_source import declaration_of
from clicktrail.declarations import Declaration
from clicktrail.feature_facts import (
    CLASSES,
    personal_data_of,
    request_personal_data_of,
    request_unit_of,
    unit_of,
)
from clicktrail.readers import DEPRECATED, REPLACED_BY
from clicktrail.request_views import request_view_of

PERSONAL_DATA = "personal_data"
"""Tag of a view: the most telling class of personal data that it may hold."""

_ALLOWED_UNSAID = "pseudonym"
_VIEW_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*_v[1-9][0-9]*")
_FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_FEWEST_WORDS = 3


@dataclass(frozen=True, kw_only=True)
class Repo:
    """What is looked at: `views` of any kind of Feast's, `services`, and the day on which it is."""

    views: Sequence[Any]
    services: Sequence[FeatureService]
    today: date

    @property
    def declarations(self) -> dict[str, Declaration]:
        """Those of views of the event log, by view."""
        return {view.name: one for view in self.views if (one := declaration_of(view)) is not None}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that a view (or a feature of it) or a service does not keep; a warning stops nothing."""

    where: str
    rule: str
    remedy: str
    feature: str = ""
    warning: bool = False

    def __str__(self) -> str:
        """One line, as linters write it."""
        parts = [self.where, self.feature, f"{self.rule} (warning)" if self.warning else self.rule, self.remedy]
        return ": ".join(part for part in parts if part)


def check(repo: Repo) -> list[Finding]:
    """All that is amiss, by view and service."""
    found = [one for rule in _RULES for one in rule(repo)]
    return sorted(found, key=lambda one: (one.where, one.feature, one.rule, one.remedy))


def _names(repo: Repo) -> Iterator[Finding]:
    for view in repo.views:
        if not _VIEW_NAME.fullmatch(view.name):
            yield Finding(where=view.name, rule="name", remedy="use snake_case and end in _v1, _v2, ...")
        for feature in view.features:
            if not _FEATURE_NAME.fullmatch(feature.name):
                yield Finding(where=view.name, feature=feature.name, rule="name", remedy="use snake_case: name=...")


def _owners(repo: Repo) -> Iterator[Finding]:
    for one in (*repo.views, *repo.services):
        if not _ADDRESS.fullmatch(one.owner):
            yield Finding(
                where=one.name, rule="owner", remedy=f"owner={one.owner!r}: give the e-mail address of who answers"
            )


def _descriptions(repo: Repo) -> Iterator[Finding]:
    for one in (*repo.views, *repo.services):
        words = re.findall(r"\w+", one.description.lower())
        if len(words) < _FEWEST_WORDS or set(words) <= {one.name, *one.name.split("_")}:
            yield Finding(
                where=one.name,
                rule="description",
                remedy=f"{one.description!r} tells nobody what it means: write a sentence, not the name again",
            )


def _units(repo: Repo) -> Iterator[Finding]:
    stored = repo.declarations
    for view in repo.views:
        declaration, request = declaration_of(view), request_view_of(view)
        units: dict[str, str] = {}
        if declaration is not None:
            units = {name: unit_of(declaration, name, view.tags) for name in declaration.outputs}
        elif request is not None:
            units = {one.name: request_unit_of(request, one.name, stored, view.tags) for one in request.features}
        for feature, unit in units.items():
            if not unit:
                yield Finding(
                    where=view.name,
                    feature=feature,
                    rule="unit",
                    remedy=f'it cannot be derived: say it, tags={{"unit.{feature}": "..."}}, or give its column one',
                )


def _personal_data(repo: Repo) -> Iterator[Finding]:
    stored = repo.declarations
    for view in repo.views:
        declaration, request = declaration_of(view), request_view_of(view)
        allowed = view.tags.get(PERSONAL_DATA, _ALLOWED_UNSAID)
        if allowed not in CLASSES:
            yield Finding(where=view.name, rule="personal data", remedy=f"{allowed!r} is none of {', '.join(CLASSES)}")
            continue
        if declaration is not None:
            holds = personal_data_of(declaration)
        elif request is not None:
            holds = request_personal_data_of(request, stored)
        else:
            continue
        if CLASSES.index(holds) > CLASSES.index(allowed):
            yield Finding(
                where=view.name,
                rule="personal data",
                remedy=f"it holds {holds} data and may hold {allowed}: leave the columns out, "
                f'or say so, tags={{"{PERSONAL_DATA}": "{holds}"}}',
            )


def _deprecation(repo: Repo) -> Iterator[Finding]:
    names = {view.name for view in repo.views}
    for view in repo.views:
        said, successor = view.tags.get(DEPRECATED), view.tags.get(REPLACED_BY)
        if said is not None and _day(said) is None:
            yield Finding(where=view.name, rule="deprecation", remedy=f"{said!r} is no date: write 2027-01-31")
        if successor is not None and successor not in names:
            yield Finding(where=view.name, rule="deprecation", remedy=f"{successor!r} is no view of this repo")


def _deprecated_reads(repo: Repo) -> Iterator[Finding]:
    views = {view.name: view for view in repo.views}
    for service in repo.services:
        for name in sorted({part.name for part in service.feature_view_projections}):
            tags = views[name].tags if name in views else {}
            day = _day(tags[DEPRECATED]) if DEPRECATED in tags else None
            if day is None:
                continue
            instead = f"read {tags[REPLACED_BY]!r} instead" if REPLACED_BY in tags else "leave it out"
            yield Finding(
                where=service.name,
                rule="deprecated view",
                remedy=f"{name!r} is deprecated from {day} on: {instead}",
                warning=day > repo.today,
            )


def _doubled(repo: Repo) -> Iterator[Finding]:
    first: dict[Any, str] = {}
    for view in repo.views:
        declaration = declaration_of(view)
        for feature, meaning in _meanings(declaration) if declaration is not None else ():
            other = first.setdefault(meaning, view.name)
            if other != view.name:
                yield Finding(
                    where=view.name,
                    feature=feature,
                    rule="doubled",
                    remedy=f"{other!r} has the same feature of the same entity: read it from there",
                    warning=True,
                )


def _meanings(declaration: Declaration) -> Iterator[tuple[str, Any]]:
    """Each feature and what decides its value, its name aside."""
    if declaration.is_sequence:
        kept = replace(declaration, name="", fields=())
        yield from ((field, (kept, field)) for field in declaration.fields)
    else:
        keys = declaration.entity_keys
        yield from ((one.name, (keys, replace(one, name=""))) for one in declaration.aggregates)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


_RULES: tuple[Callable[[Repo], Iterator[Finding]], ...] = (
    _names,
    _owners,
    _descriptions,
    _units,
    _personal_data,
    _deprecation,
    _deprecated_reads,
    _doubled,
)
