"""What an online read has to do, worked out once for each list of features and kept while Feast's registry stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from feast import FeatureService, utils
from feast.infra.registry.base_registry import BaseRegistry
from feast.value_type import ValueType

from clicktrail.data_source import declaration_of
from clicktrail.declarations import Declaration
from clicktrail.readers import warn_if_deprecated
from clicktrail.request_declarations import RequestFeature, RequestView
from clicktrail.request_views import request_view_of


@dataclass(frozen=True, kw_only=True)
class PlannedView:
    """An event-log view under its name in the request: features with their names in the answer, columns of its keys."""

    name: str
    declaration: Declaration
    key_columns: tuple[str, ...]
    features: tuple[tuple[str, str, ValueType], ...]
    version: int


@dataclass(frozen=True, kw_only=True)
class PlannedRequest:
    """One request view: its declaration, and the features to show under their names in the answer."""

    view: RequestView
    features: tuple[tuple[RequestFeature, str, ValueType], ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`join_keys` and their types: what the answer repeats of the entity rows; `others`: references left to Feast."""

    views: tuple[PlannedView, ...]
    fingerprints: tuple[str, ...]
    requests: tuple[PlannedRequest, ...]
    join_keys: Mapping[str, ValueType]
    request_fields: frozenset[str]
    others: tuple[str, ...]


@dataclass
class Plans:
    """Plans by what was asked for. A plan ends with the registry's cached copy that it was made from."""

    _kept: dict[tuple[Any, ...], tuple[datetime | None, float, Plan | None]] = field(default_factory=dict)

    def get(
        self,
        registry: BaseRegistry,
        project: str,
        features: list[str] | FeatureService,
        full_feature_names: bool,  # noqa: FBT001 - as Feast passes it on
    ) -> Plan | None:
        """The plan; None where the whole is left to Feast: a version is asked for, vectors are precomputed."""
        named = (features.name,) if isinstance(features, FeatureService) else (None, *features)
        key = (project, full_feature_names, *named)
        kept = self._kept.get(key)
        made_from = getattr(registry, "cached_registry_proto_created", None)
        if kept is not None and kept[0] is not None and kept[0] == made_from and time.monotonic() < kept[1]:
            return kept[2]
        plan = _plan(registry, project, features, full_feature_names=full_feature_names)
        made_from = getattr(registry, "cached_registry_proto_created", None)  # planning may have refreshed it
        self._kept[key] = (made_from, _end(registry, made_from), plan)
        return plan


def _end(registry: BaseRegistry, made_from: datetime | None) -> float:
    """When the registry's cached copy has to be read again, on the monotonic clock."""
    ttl = getattr(registry, "cached_registry_proto_ttl", None)
    if made_from is None or ttl is None:
        return 0.0
    if not ttl:
        return float("inf")
    created = made_from if made_from.tzinfo else made_from.replace(tzinfo=UTC)
    return time.monotonic() + (created + ttl - datetime.now(UTC)).total_seconds()


def _plan(
    registry: BaseRegistry, project: str, features: list[str] | FeatureService, *, full_feature_names: bool
) -> Plan | None:
    refs, on_demand, _, entity_types, join_keys, grouped, _, _, _ = utils._get_cached_request_context(  # noqa: SLF001 - the seam
        registry, project, features, full_feature_names
    )
    for view in (*(table for table, _ in grouped), *on_demand):
        warn_if_deprecated(view)
    if getattr(features, "precompute_online", False) or any("@" in ref for ref in refs):
        return None
    asked: dict[str, list[str]] = {}
    for ref in refs:
        name, feature = ref.split(":")
        asked.setdefault(name, []).append(feature)

    def shown(view: str, feature: str) -> str:
        return f"{view}__{feature}" if full_feature_names else feature

    tables = {table.projection.name_to_use(): table for table, _ in grouped if declaration_of(table) is not None}
    ours = set(tables)
    read: set[str] = set()
    requests = []
    for on_demand_view in on_demand:
        declared = request_view_of(on_demand_view)
        if declared is None:
            continue
        name = on_demand_view.projection.name_to_use()
        ours.add(name)
        read |= {source for source, _ in declared.inputs}
        types = {one.name: one.dtype.to_value_type() for one in on_demand_view.features}
        known = {one.name: one for one in declared.features}
        requests.append(
            PlannedRequest(
                view=declared, features=tuple((known[one], shown(name, one), types[one]) for one in asked.get(name, []))
            )
        )
    views = []
    for name, table in tables.items():
        if name not in asked and name not in read:
            continue  # an on-demand view of somebody else's reads it, and will do so through `online_read`
        declaration = declaration_of(table)
        assert declaration is not None  # noqa: S101 - so chosen
        types = {one.name: one.dtype.to_value_type() for one in table.features}
        aliases = table.projection.join_key_map
        views.append(
            PlannedView(
                name=name,
                declaration=declaration,
                key_columns=tuple(aliases.get(key, key) for key in declaration.entity_keys),
                features=tuple((one, shown(name, one), types[one]) for one in asked.get(name, [])),
                version=getattr(table, "current_version_number", 0) or 0,
            )
        )
    others = tuple(ref for ref in refs if ref.split(":")[0] not in ours)
    theirs = [table for table, _ in grouped if declaration_of(table) is None]
    if others and isinstance(features, FeatureService) and any(_aliased(one) for one in [*theirs, *on_demand]):
        return None  # an alias means nothing outside its service
    return Plan(
        views=tuple(views),
        fingerprints=tuple(view.declaration.fingerprint for view in views),
        requests=tuple(requests),
        join_keys={key: entity_types.get(key, ValueType.UNKNOWN) for key in join_keys},
        request_fields=frozenset(field for one in requests for field in one.view.request),
        others=others,
    )


def _aliased(view: Any) -> bool:  # noqa: ANN401 - Feast has several classes of view without a common base
    return bool(view.projection.name_alias or view.projection.join_key_map)
