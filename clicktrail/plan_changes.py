"""What an apply would change: the objects of a feature repo beside those of a registry. Nothing is computed or read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feast import Entity, FeatureService

from clicktrail.data_source import declaration_of
from clicktrail.declarations import Declaration
from clicktrail.naming import changed
from clicktrail.request_views import REQUEST_TAG

Kind = Literal["new", "changed", "removed", "described", "same"]
"""`described`: only what it says of itself changes (owner, description, tags), no value does."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What a feature repo declares, or a registry holds; views are of any of Feast's kinds."""

    views: Sequence[Any] = ()
    services: Sequence[FeatureService] = ()
    entities: Sequence[Entity] = ()


@dataclass(frozen=True, kw_only=True)
class Change:
    """What would become of one view, service or entity.

    `schema`: features (or what a service reads) that come, go or change their type, as lines; `texts`: what else
    changes, as lines; `refusal`: what an apply would answer, "" where it would not refuse. `before` and `after` are the
    declarations behind a view of the event log.
    """

    name: str
    kind: Kind
    schema: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    refusal: str = ""
    owner: str = ""
    description: str = ""
    before: Declaration | None = None
    after: Declaration | None = None


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All that would change, by name; what stays as it is among it."""

    views: tuple[Change, ...]
    services: tuple[Change, ...]
    entities: tuple[Change, ...]

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why an apply would be refused; empty where it would not."""
        return tuple(one.refusal for one in self.views if one.refusal)


def compare(here: Objects, repo: Objects, state: Mapping[str, str]) -> Changes:
    """What applying `repo` would change.

    Args:
        here: what the registry holds.
        repo: what the feature repo declares.
        state: fingerprint of the declaration that the online state of each view follows: an apply respects it too.
    """
    return Changes(
        views=_pairs(here.views, repo.views, lambda before, after: _view(before, after, state)),
        services=_pairs(here.services, repo.services, _service),
        entities=_pairs(here.entities, repo.entities, _entity),
    )


def predecessor(name: str, views: Iterable[Any]) -> Any:  # noqa: ANN401 - a view of any of Feast's kinds
    """The view that `name` is the next version of: the highest lower `_vN`; None where there is none."""
    stem, version = _version(name)
    older = {
        number: view for view in views for one, number in [_version(view.name)] if one == stem and number < version
    }
    return older[max(older)] if older else None


def _version(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)_v(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _pairs(before: Iterable[Any], after: Iterable[Any], make: Any) -> tuple[Change, ...]:  # noqa: ANN401 - a function
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    return tuple(make(old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys()))


def _view(before: Any, after: Any, state: Mapping[str, str]) -> Change:  # noqa: ANN401
    schema = _differences(_features(before), _features(after))
    texts = _texts(before, after)
    old, new = _decides(before), _decides(after)
    said = (after or before).name
    stands = state.get(said, "")
    refused = bool(after and ((before and old and new != old) or (stands and new and new != stands)))
    if before is None or after is None:
        kind: Kind = "new" if before is None else "removed"
    elif refused or old != new or schema:
        kind = "changed"
    else:
        kind = "described" if texts else "same"
    return Change(
        name=said,
        kind="changed" if refused else kind,
        schema=schema,
        texts=texts if before and after else (),
        refusal=changed(said) if refused else "",
        owner=(after or before).owner,
        description=(after or before).description,
        before=None if before is None else declaration_of(before),
        after=None if after is None else declaration_of(after),
    )


def _service(before: FeatureService | None, after: FeatureService | None) -> Change:
    return _simple(before, after, _reading(_reads(before), _reads(after)), _texts(before, after))


def _entity(before: Entity | None, after: Entity | None) -> Change:
    keys = [{} if one is None else {f"join key {one.join_key}": one.value_type.name} for one in (before, after)]
    return _simple(before, after, _differences(*keys), _texts(before, after))


def _simple(before: Any, after: Any, schema: tuple[str, ...], texts: tuple[str, ...]) -> Change:  # noqa: ANN401
    if before is None or after is None:
        kind: Kind = "new" if before is None else "removed"
        texts = ()
    else:
        kind = "changed" if schema else "described" if texts else "same"
    one = after or before
    return Change(
        name=one.name, kind=kind, schema=schema, texts=texts, owner=one.owner or "", description=one.description or ""
    )


def _decides(view: Any) -> str:  # noqa: ANN401
    """What decides a view's values, as the registry compares it; "" of a view that is not of the event log."""
    if view is None:
        return ""
    declaration = declaration_of(view)
    return declaration.fingerprint if declaration else str((view.tags or {}).get(REQUEST_TAG, ""))


def _features(view: Any) -> dict[str, str]:  # noqa: ANN401
    return {} if view is None else {one.name: str(one.dtype) for one in view.features}


def _reads(service: FeatureService | None) -> dict[str, tuple[str, ...]]:
    """By view the features that a service reads of it."""
    parts = [] if service is None else service.feature_view_projections
    return {one.name_to_use(): tuple(feature.name for feature in one.features) for one in parts}


def _reading(before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Views that a service reads no more, or newly, and features of those that it goes on reading."""
    lines = _differences(*({name: f"({len(read)} features)" for name, read in one.items()} for one in (before, after)))
    kept = [name for name in before if name in after]
    gone = [f"- {name}:{one}" for name in kept for one in before[name] if one not in after[name]]
    new = [f"+ {name}:{one}" for name in kept for one in after[name] if one not in before[name]]
    return (*(line for line in lines if not line.startswith("~")), *gone, *new)


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    gone = [f"- {name} {before[name]}" for name in before if name not in after]
    new = [f"+ {name} {after[name]}" for name in after if name not in before]
    other = [
        f"~ {name} {before[name]} -> {after[name]}" for name in after if before.get(name, after[name]) != after[name]
    ]
    return (*gone, *other, *new)


def _texts(before: Any, after: Any) -> tuple[str, ...]:  # noqa: ANN401
    if before is None or after is None:
        return ()
    lines = [
        f"{name}: {getattr(before, name)!r} -> {getattr(after, name)!r}"
        for name in ("owner", "description")
        if (getattr(before, name) or "") != (getattr(after, name) or "")
    ]
    old, new = ({key: text for key, text in (one.tags or {}).items() if key != REQUEST_TAG} for one in (before, after))
    return (*lines, *(f"tag {line}" for line in _differences(old, new)))
