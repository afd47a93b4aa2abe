"""What would change if the feature repo were applied to this shop: `make plan`. Nothing is applied.

Views that are new or changed are really built, for a sample of entities: their values before and after, what they
cost, and how long they will take to build. Status 2 where `feast apply` would refuse.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clicktrail import backfills
from clicktrail.backfills import Backfill
from clicktrail.declarations import Declaration
from clicktrail.event_log import EventLog
from clicktrail.online_state import OnlineState
from clicktrail.plan_cost import ENTITIES, Measured, measure
from clicktrail.readers import Reader, readers_of
from clicktrail.settings import Settings, load

if TYPE_CHECKING:  # importing Feast costs seconds: not before the arguments are right
    from feast import FeatureStore

    from clicktrail.plan_changes import Change, Changes, Objects


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an apply would change.

    `after`: new and changed views as the repo declares them, by name; `before`: what stands beside them, the same
    view as the registry has it or the version before, as its name and what was measured. `readers`: by view, of
    those that change or go. `read_at`: when the sample was read, microseconds UTC.
    """

    shop: str
    repo: str
    log_offset: int
    read_at: int
    changes: Changes
    after: Mapping[str, Measured]
    before: Mapping[str, tuple[str, Measured]]
    readers: Mapping[str, Sequence[Reader]]
    backfills: Sequence[Backfill]


def make_plan(settings: Settings, *, entities: int = ENTITIES) -> Plan:
    """The plan for a shop; what backfills are expected to take is kept beside its log.

    Args:
        settings: whose repo, registry, log and online state.
        entities: how many entities of each new or changed view are looked at.

    Raises:
        ValueError: there is no feature repo, or the registry cannot be read.
    """
    from clicktrail.plan_changes import Objects, compare
    from clicktrail.repo_objects import repo_objects

    found = repo_objects(settings.feature_repo)
    views = (*found.feature_views, *found.on_demand_feature_views, *found.stream_feature_views, *found.label_views)
    repo = Objects(views=views, services=found.feature_services, entities=_own(found.entities))
    store = _store(settings)
    here = Objects() if store is None else _registered(store)
    state = {name: meta.fingerprint for name, meta in OnlineState(settings.online_state).views().items()}
    changes = compare(here, repo, state)
    log = EventLog(settings.log)
    t = log.end_time() + 1
    beside = _beside(changes.views, here)
    after = {one.name: one.after for one in changes.views if one.kind in ("new", "changed") and one.after}
    measured: dict[Declaration, Measured] = {}
    if log.version:
        wanted = {*after.values(), *(declaration for _, declaration in beside.values())}
        measured = measure(settings, sorted(wanted, key=lambda one: one.name), entities=entities, t=t)
    folder = backfills.folder_of(settings.log)
    declared = {one.after.fingerprint for one in changes.views if one.after is not None}
    for one in changes.views:
        if one.kind == "new" and one.after in measured:
            _expect(folder, one.after, measured[one.after])
    return Plan(
        shop=settings.shop,
        repo=settings.feature_repo.name,
        log_offset=log.version,
        read_at=t,
        changes=changes,
        after={name: measured[one] for name, one in after.items() if one in measured},
        before={name: (old, measured[one]) for name, (old, one) in beside.items() if one in measured},
        readers=_readers(changes.views, repo, settings, store),
        backfills=tuple(one for one in backfills.backfills(folder) if one.fingerprint in declared),
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    from dataclasses import asdict

    def measured(one: Measured) -> dict[str, Any]:
        return {"values": {name: asdict(value) for name, value in one.values.items()}, "cost": asdict(one.cost)}

    def change(one: Change) -> dict[str, Any]:
        sides = {
            side: declaration.fingerprint if declaration else None
            for side, declaration in (("before", one.before), ("after", one.after))
        }
        said = {name: getattr(one, name) for name in ("name", "kind", "schema", "texts", "refusal", "owner")}
        return {**said, "fingerprints": sides}

    return {
        "shop": plan.shop,
        "log_offset": plan.log_offset,
        "read_at": plan.read_at,
        **{what: [change(one) for one in getattr(plan.changes, what)] for what in ("views", "services", "entities")},
        "after": {name: measured(one) for name, one in plan.after.items()},
        "before": {name: {"view": old, **measured(one)} for name, (old, one) in plan.before.items()},
        "readers": {name: [asdict(one) for one in found] for name, found in plan.readers.items()},
        "backfills": [asdict(one) for one in plan.backfills],
        "refusals": list(plan.changes.refusals),
    }


def _store(settings: Settings) -> FeatureStore | None:
    """The shop's feature store; None where nothing was applied yet: opening it would make a registry."""
    from clicktrail.feast_repo import configuration, open_store

    in_a_file = configuration(settings)["registry"].get("registry_store_type")
    return None if in_a_file and not settings.registry.exists() else open_store(settings)


def _registered(store: FeatureStore) -> Objects:
    from clicktrail.plan_changes import Objects

    return Objects(
        views=store.list_all_feature_views(),
        services=store.list_feature_services(),
        entities=_own(store.list_entities()),
    )


def _own(entities: Sequence[Any]) -> list[Any]:
    """Without the entity that Feast puts beside those that were declared."""
    return [one for one in entities if not one.name.startswith("__")]


def _beside(views: Sequence[Change], here: Objects) -> dict[str, tuple[str, Declaration]]:
    """By new or changed view what it is to be compared with: its old declaration, or that of the version before."""
    from clicktrail.data_source import declaration_of
    from clicktrail.plan_changes import predecessor

    out = {}
    for one in views:
        if one.kind == "changed" and one.before is not None:
            out[one.name] = (one.name, one.before)
        elif one.kind == "new" and one.after is not None:
            older = predecessor(one.name, here.views)
            declaration = None if older is None else declaration_of(older)
            if declaration is not None and declaration.entity_keys == one.after.entity_keys:
                out[one.name] = (declaration.name, declaration)
    return out


def _expect(folder: Path, declaration: Declaration, measured: Measured) -> None:
    cost = measured.cost
    if cost.backfill_seconds is not None:
        expected = Backfill(
            view=declaration.name,
            fingerprint=declaration.fingerprint,
            rows=cost.rows,
            predicted_seconds=round(cost.backfill_seconds, 3),
        )
        backfills.predict(folder, expected)


def _readers(
    views: Sequence[Change], repo: Objects, settings: Settings, store: FeatureStore | None
) -> dict[str, list[Reader]]:
    """Who reads each view that is touched: as things stand, and for a new one as the repo has it."""
    out = {}
    for one in views:
        if one.kind == "same":
            continue
        if one.kind == "new":
            out[one.name] = [
                Reader(kind="service", name=service.name, detail=service.owner)
                for service in repo.services
                if one.name in {part.name for part in service.feature_view_projections}
            ]
        else:
            out[one.name] = readers_of(one.name, settings, store)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 2 where an apply would be refused."""
    parser = argparse.ArgumentParser(prog="python -m clicktrail.plan", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON as well")
    parser.add_argument(
        "--entities", type=int, default=ENTITIES, help=f"of each new or changed view so many are read ({ENTITIES})"
    )
    given = parser.parse_args(arguments)
    from clicktrail.plan_text import render

    try:
        plan = make_plan(load(), entities=given.entities)
    except ValueError as error:  # a repo or registry that an apply could not read either
        print(error)  # noqa: T201
        return 2
    except OSError as error:  # the online state is out of reach
        raise SystemExit(str(error)) from error
    print(render(plan))  # noqa: T201
    if given.json is not None:
        try:
            given.json.write_text(json.dumps(to_json(plan), indent=1) + "\n")
        except OSError as error:
            message = f"the plan cannot be written to {given.json} ({error.strerror}): give --json a file to write"
            raise SystemExit(message) from error
    return 2 if plan.changes.refusals else 0


if __name__ == "__main__":
    raise SystemExit(main())
