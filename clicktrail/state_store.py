"""Where online state lies: named texts and the records of entities, changed in steps that happen whole or not at all.

A store knows nothing of views. It compares and sets texts (how far a view has come, which generation is live), and in
the same step appends to records or replaces them; it reads both at one moment, in one round trip. What that makes
is the same over SQLite and Redis (`clicktrail.state_views`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class StateMissingError(ValueError):
    """There is no state of a view, or none that is complete: nothing is known, of nobody."""


class StateWentBackError(ValueError):
    """A store is behind what was read from it before: it was emptied, or an older copy took its place."""


class StateUnreachableError(OSError):
    """The store does not answer, or cannot do what it was asked."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change that happens whole or not at all.

    `expect`: texts as they must be, None for one that must not be there; else nothing happens. `put`: texts to
    set, None to remove. `append` and `replace`: bytes by entity of one `generation`, empty bytes to remove; `moment`
    rises from step to step of one entity.
    """

    expect: Mapping[str, str | None]
    put: Mapping[str, str | None] = field(default_factory=dict)
    generation: str = ""
    moment: int = 0
    append: Sequence[tuple[str, bytes]] = ()
    replace: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a store holds of some entities: their bytes in pieces, one entity after the other, and how many each has."""

    pieces: list[bytes]
    sizes: list[int]


class StateStore(Protocol):
    """A place for state; safe to share between threads and processes.

    `piece`: what reading an entity costs for every append since it was replaced, in bytes that would take as long.
    """

    piece: int

    def texts(self, prefix: str) -> dict[str, str]:
        """The texts whose names begin so, by the rest of the name."""

    def read(
        self, names: Sequence[str], wanted: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[list[str | None], list[Held]]:
        """Texts by name, and by (generation, entities) what is held of them, all of one moment."""

    def sizes(self, generation: str, entities: Sequence[str]) -> list[int]:
        """How many bytes are held of each entity."""

    def apply(self, steps: Sequence[Step]) -> list[bool]:
        """Take steps; says of each whether it happened."""

    def entities(self, generation: str) -> Iterator[str]:
        """Every entity of a generation; while others write, some of theirs."""

    def clear(self, generation: str) -> None:
        """Remove the records of a generation, a part at a time so that others are not kept waiting."""

    def identity(self) -> object:
        """Differs where the store is not the one that it was, as far as can be told without asking it."""
