"""Lint of a feature repo, without a registry: `make lint-features`; who reads a view: `make readers VIEW=...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clicktrail.settings import Settings, load

if TYPE_CHECKING:  # importing Feast costs seconds: not before the arguments are right
    from clicktrail.lint_rules import Finding


def lint(folder: Path, today: date) -> list[Finding]:
    """What is amiss in the Feast repo in `folder`.

    Raises:
        ValueError: there is no Feast repo.
    """
    from clicktrail.lint_rules import Repo, check
    from clicktrail.repo_objects import repo_objects

    found = repo_objects(folder)
    views = [
        *found.feature_views,
        *found.on_demand_feature_views,
        *found.stream_feature_views,
        *found.label_views,
    ]
    return check(Repo(views=views, services=found.feature_services, today=today))


def readers(view: str, settings: Settings) -> str:
    """Who reads a view, as a text.

    Raises:
        ValueError: there is no such view, or the registry can't be read.
    """
    from feast.errors import FeatureViewNotFoundException

    from clicktrail.feast_repo import open_store
    from clicktrail.readers import DEPRECATED, REPLACED_BY, readers_of

    store = open_store(settings)
    try:
        tags = store.registry.get_any_feature_view(view, store.project).tags
    except FeatureViewNotFoundException as error:
        names = ", ".join(sorted(one.name for one in store.list_all_feature_views()))
        message = f"there is no view {view!r}; there are: {names or 'none (run make features)'}"
        raise ValueError(message) from error
    lines = []
    if DEPRECATED in tags:
        lines.append(f"{view} is deprecated from {tags[DEPRECATED]} on, replaced by {tags.get(REPLACED_BY, 'nothing')}")
    found = readers_of(view, settings, store)
    lines.append(f"{view} is read by {len(found) or 'nobody'}{':' if found else ''}")
    width = max((len(one.name) for one in found), default=0)
    lines.extend(f"  {one.kind:<12}  {one.name:<{width}}  {one.detail}".rstrip() for one in found)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 where an error was found."""
    parser = argparse.ArgumentParser(prog="python -m clicktrail.lint", description=__doc__)
    parser.add_argument("--readers", metavar="VIEW", help="list who reads this view, and check nothing")
    given = parser.parse_args(arguments)
    settings = load()
    try:
        if given.readers is not None:
            print(readers(given.readers, settings))  # noqa: T201
            return 0
        found = lint(settings.feature_repo, datetime.now(UTC).date())
    except ValueError as error:
        raise SystemExit(str(error)) from error
    for one in found:
        print(one)  # noqa: T201
    errors = sum(not one.warning for one in found)
    print(f"{settings.feature_repo.name}: {errors} errors, {len(found) - errors} warnings")  # noqa: T201
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
