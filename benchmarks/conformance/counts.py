"""Counts of what came of the reads: by rule group, of one store set up in one way."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Count:
    """Of one group at one store."""

    reads: int = 0
    values: int = 0
    mismatches: int = 0
    inexpressible: int = 0
    example: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of one store, set up in one way.

    Attributes:
        store: as in the tables.
        build: how it was set up; empty for ours, which have one way.
        rows: written for the stock stores, all kinds of entities together; 0 for ours.
        groups: counts of each rule group.
    """

    store: str
    build: str = ""
    rows: int = 0
    groups: dict[str, Count] = field(default_factory=dict)

    def total(self) -> Count:
        """All groups together."""
        return Count(
            **{
                name: sum(getattr(one, name) for one in self.groups.values())
                for name in ("reads", "values", "mismatches", "inexpressible")
            }
        )
