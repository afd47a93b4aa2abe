"""What a user left behind, collected before it is forgotten: afterwards no reader of the log can say it any more."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.compute as pc

from clicktrail.contract import ENTITY_KEYS
from clicktrail.event_log import EventLog


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Of some users: their ids, the offset of their first event (None: the log holds none), and what it names.

    `event_ids`: their events and the labels that speak of these; `entities`: ids by entity key, user_id aside, of whom
    these events tell, so that a value of such an entity may have been made of them.
    """

    users: tuple[str, ...]
    first_offset: int | None = None
    event_ids: tuple[str, ...] = ()
    entities: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def merge(self, other: Traces) -> Traces:
        """Both together."""
        firsts = [one.first_offset for one in (self, other) if one.first_offset is not None]
        return Traces(
            users=_union(self.users, other.users),
            first_offset=min(firsts, default=None),
            event_ids=_union(self.event_ids, other.event_ids),
            entities={
                key: _union(self.entities.get(key, ()), other.entities.get(key, ()))
                for key in sorted({*self.entities, *other.entities})
            },
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Traces:
        """What `to_json` gave."""
        return Traces(
            users=tuple(data["users"]),
            first_offset=data["first_offset"],
            event_ids=tuple(data["event_ids"]),
            entities={key: tuple(ids) for key, ids in data["entities"].items()},
        )


def traces(log: EventLog, users: Collection[str]) -> Traces:
    """What readers of the log can see of these users now."""
    keys = [key for key in ENTITY_KEYS if key != "user_id"]
    theirs = ", ".join("'" + user.replace("'", "''") + "'" for user in sorted(users))
    events = log.query(f'select event_id, "offset", {", ".join(keys)} from events where user_id in ({theirs})')
    labels = log.labels_of(events["event_id"].combine_chunks(), ["event_id"])
    return Traces(
        users=_union(users),
        first_offset=pc.min(events["offset"]).as_py(),
        event_ids=_union(events["event_id"].to_pylist(), labels["event_id"].to_pylist()),
        entities={key: _union(pc.unique(events[key]).drop_null().to_pylist()) for key in keys},
    )


def naming(ids: Iterable[str]) -> re.Pattern[str]:
    """Finds any of these ids in a text, as a whole word."""
    every = sorted(set(ids), key=len, reverse=True)
    return re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in every) or r"(?!)")


def _union(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({one for part in parts for one in part}))
