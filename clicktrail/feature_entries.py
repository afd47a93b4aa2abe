"""What a shop's registry knows of each feature, put together for people: the content of the catalogue's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from feast import FeatureStore, FeatureView, OnDemandFeatureView

from clicktrail.contract import EVENT_COLUMNS, LABEL
from clicktrail.data_source import declaration_of
from clicktrail.declarations import CATALOGUE_FIELDS, Aggregate, Declaration
from clicktrail.distributions import Distribution
from clicktrail.event_log import EventLog
from clicktrail.feature_facts import personal_data_of, request_personal_data_of, request_unit_of, unit_of
from clicktrail.feature_meaning import meaning_of, request_meaning_of, type_text
from clicktrail.feature_samples import request_distributions, stored_distributions
from clicktrail.online_state import OnlineState, ViewMeta
from clicktrail.readers import DEPRECATED, REPLACED_BY, Reader, readers_of
from clicktrail.request_declarations import RequestView
from clicktrail.request_views import REQUEST_TAG, request_view_of
from clicktrail.settings import Settings

SAMPLE = 500
"""Entities (or requests) that a distribution is made of, at most."""

_PERSONAL_DATA = {one.name: one.personal_data for one in EVENT_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class FeatureEntry:
    """One feature. What cannot be derived (of a view with another source) is "" or empty.

    `events` and `columns`: types of events and columns of the contract that it is made of; `inputs`: stored features
    that it is made of; `read_by`: services and request views. `distribution`: of a sample at the log's end; None
    where there is none. `examples`: its most frequent values, of texts that tell nothing of a person.
    """

    name: str
    meaning: str
    type: str
    unit: str
    personal_data: str
    events: tuple[str, ...]
    columns: tuple[str, ...]
    inputs: tuple[str, ...]
    read_by: tuple[str, ...]
    distribution: Distribution | None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ViewEntry:
    """One view. `state`: how far its online state has come; None where it has none (of its own).

    `inputs` are the views that a request view reads, `fingerprint` is "" where no declaration of ours is behind it.
    """

    name: str
    kind: str
    entities: tuple[str, ...]
    keys: tuple[str, ...]
    owner: str
    description: str
    tags: Mapping[str, str]
    deprecated: str
    replaced_by: str
    fingerprint: str
    inputs: tuple[str, ...]
    readers: tuple[Reader, ...]
    state: ViewMeta | None
    features: tuple[FeatureEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Entries:
    """All views of a shop, by name; `log_end` is the largest known_at of the log, microseconds UTC."""

    shop: str
    project: str
    log_offset: int
    log_epoch: str
    log_end: int
    views: tuple[ViewEntry, ...]


def entries(store: FeatureStore, settings: Settings, *, sample: int = SAMPLE) -> Entries:
    """Every view of the shop's registry.

    Args:
        store: the shop's feature store.
        settings: whose log, online state, runs and bundles.
        sample: of how many entities distributions are made.

    Raises:
        ValueError: nothing is registered, or the online state is of other rules than this library's.
    """
    views = sorted(store.list_all_feature_views(), key=lambda one: one.name)
    if not views:
        message = f"no view is registered for shop {settings.shop!r}: run `make features` (feast apply)"
        raise ValueError(message)
    log = EventLog(settings.log)
    stored = {one.name: declaration for one in views if (declaration := declaration_of(one)) is not None}
    requested = {one.name: request for one in views if (request := request_view_of(one)) is not None}
    distributions: dict[str, dict[str, Distribution]] = {}
    if log.version:
        distributions = stored_distributions(settings, list(stored.values()), sample)
        distributions |= request_distributions(settings, list(requested.values()), stored, sample)
    states = OnlineState(settings.online_state).views()
    read_by = _read_by(store, requested.values())
    found = []
    for view in views:
        if view.name in stored:
            features = _stored(view, stored[view.name], distributions.get(view.name, {}), read_by)
        elif view.name in requested:
            features = _requested(view, requested[view.name], stored, distributions.get(view.name, {}), read_by)
        else:
            features = _others(view, read_by)
        found.append(_entry(view, features, readers_of(view.name, settings, store), states.get(view.name), store))
    return Entries(
        shop=settings.shop,
        project=store.project,
        log_offset=log.version,
        log_epoch=log.epoch,
        log_end=log.end_time(),
        views=tuple(found),
    )


_ReadBy = Mapping[tuple[str, str], tuple[str, ...]]


def _read_by(store: FeatureStore, requested: Iterable[RequestView]) -> _ReadBy:
    """Services and request views that read a feature, by (view, feature)."""
    out: dict[tuple[str, str], tuple[str, ...]] = {}
    for service in sorted(store.list_feature_services(), key=lambda one: one.name):
        for part in service.feature_view_projections:
            for field in part.features:
                key = (part.name, field.name)
                out[key] = (*out.get(key, ()), service.name)
    for request in requested:
        for view, known in request.inputs:
            for name in known:
                out[view, name] = (*out.get((view, name), ()), request.name)
    return out


def _stored(
    view: FeatureView, declaration: Declaration, distributions: Mapping[str, Distribution], read_by: _ReadBy
) -> list[FeatureEntry]:
    parts = {one.name: one for one in declaration.aggregates}
    out = []
    for name, type_ in declaration.outputs.items():
        alone = declaration.only({name})
        out.append(
            FeatureEntry(
                name=name,
                meaning=meaning_of(declaration, name),
                type=type_text(type_),
                unit=unit_of(declaration, name, view.tags),
                personal_data=personal_data_of(alone),
                events=_events(declaration, parts.get(name)),
                columns=_columns(alone),
                inputs=(),
                read_by=read_by.get((view.name, name), ()),
                distribution=distributions.get(name),
                examples=_examples(alone, distributions.get(name)),
            )
        )
    return out


def _events(declaration: Declaration, part: Aggregate | None) -> tuple[str, ...]:
    if part is None:
        return declaration.events
    return (*part.events, LABEL) if part.label else part.events


def _columns(alone: Declaration) -> tuple[str, ...]:
    """Columns of events that a value is made of, and fields of the catalogue."""
    known = {name for name in alone.inputs if name in CATALOGUE_FIELDS}
    return tuple(sorted({*alone.columns, *known, *alone.entity_keys, "event_type", "event_timestamp"}))


def _examples(alone: Declaration, lies: Distribution | None) -> tuple[str, ...]:
    """What may be shown: of lists nothing, since theirs is one person's; of texts those that are nobody's."""
    impersonal = all(_PERSONAL_DATA.get(name, "none") == "none" for name in (*alone.columns, *alone.inputs))
    return lies.examples if lies is not None and lies.measured == "text" and impersonal else ()


def _requested(
    view: OnDemandFeatureView,
    request: RequestView,
    stored: Mapping[str, Declaration],
    distributions: Mapping[str, Distribution],
    read_by: _ReadBy,
) -> list[FeatureEntry]:
    return [
        FeatureEntry(
            name=one.name,
            meaning=request_meaning_of(request, one.name),
            type=type_text(pa.type_for_alias(one.type)),
            unit=request_unit_of(request, one.name, stored, view.tags),
            personal_data=request_personal_data_of(_alone(request, one.name), stored),
            events=(),
            columns=tuple(operand for operand in one.of if operand in request.request),
            inputs=tuple(operand.replace("__", ".", 1) for operand in one.of if operand not in request.request),
            read_by=read_by.get((view.name, one.name), ()),
            distribution=distributions.get(one.name),
        )
        for one in request.features
    ]


def _alone(request: RequestView, feature: str) -> RequestView:
    """The request view as if it had this feature alone."""
    of = next(one.of for one in request.features if one.name == feature)
    inputs = ((view, tuple(name for name in known if f"{view}__{name}" in of)) for view, known in request.inputs)
    return replace(
        request,
        request=tuple(name for name in request.request if name in of),
        inputs=tuple((view, known) for view, known in inputs if known),
    )


def _others(view: Any, read_by: _ReadBy) -> list[FeatureEntry]:  # noqa: ANN401 - Feast has several classes of view
    """Features of a view with another source: what Feast itself knows."""
    return [
        FeatureEntry(
            name=field.name,
            meaning=field.description or "",
            type=str(field.dtype).lower(),
            unit=view.tags.get(f"unit.{field.name}", ""),
            personal_data=view.tags.get("personal_data", ""),
            events=(),
            columns=(),
            inputs=(),
            read_by=read_by.get((view.name, field.name), ()),
            distribution=None,
        )
        for field in view.features
    ]


def _entry(
    view: Any,  # noqa: ANN401 - Feast has several classes of view without a common base
    features: Sequence[FeatureEntry],
    readers: Sequence[Reader],
    state: ViewMeta | None,
    store: FeatureStore,
) -> ViewEntry:
    declaration, request = declaration_of(view), request_view_of(view)
    inputs = tuple(name for name, _ in request.inputs) if request else ()
    if declaration:
        kind, fingerprint = "sequence" if declaration.is_sequence else "aggregates", declaration.fingerprint
    else:
        kind, fingerprint = "at request time" if request else "another source", ""
    with_entities = [view] if not request else [store.get_feature_view(name) for name in inputs]
    entities = sorted({name for one in with_entities for name in getattr(one, "entities", []) or []})
    keys = sorted({key for one in with_entities for key in getattr(one, "join_keys", [])})
    own = {DEPRECATED, REPLACED_BY, REQUEST_TAG}
    return ViewEntry(
        name=view.name,
        kind=kind,
        entities=tuple(name for name in entities if not name.startswith("__")),
        keys=tuple(declaration.entity_keys if declaration else keys),
        owner=view.owner,
        description=view.description,
        tags={name: value for name, value in sorted(view.tags.items()) if name not in own},
        deprecated=view.tags.get(DEPRECATED, ""),
        replaced_by=view.tags.get(REPLACED_BY, ""),
        fingerprint=fingerprint,
        inputs=inputs,
        readers=tuple(readers),
        state=state,
        features=tuple(features),
    )
