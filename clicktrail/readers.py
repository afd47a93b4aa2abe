"""Who still reads a view: feature services of the registry, runs and bundles; and the warning that it is deprecated.

A view is deprecated by its tags: `deprecated` (the date from which nobody should read it) and `replaced_by`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clicktrail.settings import Settings

if TYPE_CHECKING:  # importing Feast costs seconds
    from feast import FeatureStore

DEPRECATED = "deprecated"
REPLACED_BY = "replaced_by"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads a view: its kind, its name, and what else is known of it (owner, run, folder)."""

    kind: Literal["service", "request view", "task", "bundle"]
    name: str
    detail: str


def readers_of(view: str, settings: Settings, store: FeatureStore | None = None) -> list[Reader]:
    """Services and request views of the registry that read a view, tasks by their newest run, bundles in the store.

    Runs and bundles name the views that they read; where one is so old that it does not, its service stands for it.

    Args:
        view: name of a feature view.
        settings: whose registry and runs; bundles of other shops are left out.
        store: the shop's feature store, where one is open already.

    Raises:
        ValueError: the registry can't be read.
    """
    from clicktrail.feast_repo import open_store

    opened = store or open_store(settings)
    requests = [
        one
        for one in opened.list_on_demand_feature_views()
        if view in {part.name for part in one.source_feature_view_projections.values()}
    ]
    reading = {view, *(one.name for one in requests)}
    services = [
        one for one in opened.list_feature_services() if reading & {part.name for part in one.feature_view_projections}
    ]
    names = {one.name for one in services}
    found = [
        *(Reader(kind="request view", name=one.name, detail=one.owner) for one in requests),
        *(Reader(kind="service", name=one.name, detail=one.owner) for one in services),
        *(one for uses, one in (*_tasks(settings), *_bundles(settings)) if _reads(uses, view, names)),
    ]
    return sorted(found, key=lambda one: (one.kind, one.name, one.detail))


def warn_if_deprecated(view: Any) -> None:  # noqa: ANN401 - Feast has several classes of view without a common base
    """Warn once a process that this view is deprecated, and what replaces it. Costs two look-ups where it is not."""
    tags = view.tags
    if DEPRECATED not in tags or view.name in _warned:
        return
    _warned.add(view.name)
    successor = tags.get(REPLACED_BY)
    instead = f"read {successor!r} instead" if successor else "nothing replaces it"
    warnings.warn(
        f"view {view.name!r} is deprecated from {tags[DEPRECATED]} on: {instead}", DeprecationWarning, stacklevel=3
    )


_warned: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class _Uses:
    """What a run or bundle says that it reads: `views` is None where it names only its service."""

    service: str
    views: frozenset[str] | None


def _reads(uses: _Uses, view: str, services: set[str]) -> bool:
    return view in uses.views if uses.views is not None else uses.service in services


def _tasks(settings: Settings) -> Iterator[tuple[_Uses, Reader]]:
    """Each task that has a run of this shop, by its newest complete one."""
    for latest in sorted(settings.runs.glob("*/latest")):
        config = _json(latest / "config.json")
        shop = _json(latest / "metrics.json").get("data", {}).get("shop")
        if not config or (shop and shop != settings.shop):
            continue
        interface = _json(latest / "export" / "interface.json")
        views = [one["name"] for one in interface["declarations"]] if "declarations" in interface else None
        yield (
            _Uses(service=str(config.get("feature_service", "")), views=None if views is None else frozenset(views)),
            Reader(kind="task", name=latest.parent.name, detail=f"run {latest.resolve().name}"),
        )


def _bundles(settings: Settings) -> Iterator[tuple[_Uses, Reader]]:
    """Every bundle of this shop in BentoML's store."""
    for path in sorted(settings.bentoml_home.glob("bentos/clicktrail-*/*/src/bundle/manifest.json")):
        manifest = _json(path)
        shop = manifest.get("defaults", {}).get("shop")
        if not manifest or (shop and shop != settings.shop):
            continue
        root = path.parents[2]
        newest = _text(root.parent / "latest") == root.name
        views = manifest.get("fingerprints")
        yield (
            _Uses(service=str(manifest.get("feature_service", "")), views=None if views is None else frozenset(views)),
            Reader(
                kind="bundle",
                name=f"{root.parent.name}:{root.name}",
                detail=f"run {manifest.get('run', {}).get('id', 'unknown')}{', latest' if newest else ''}",
            ),
        )


def _json(path: Path) -> dict[str, Any]:
    """A JSON file's content; nothing where a run or bundle has no such file, or was cut off in the middle of it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
