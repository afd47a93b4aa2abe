"""Which partitions are whose: updaters share them, so that they do not do the same work twice.

For efficiency alone: what is applied once is decided by the heads (`clicktrail.advance`), also while two updaters
believe that a partition is theirs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from clicktrail.state_store import StateStore, Step

SECONDS = 5.0
"""How long a lease lasts: a killed updater's partitions wait so long for another one."""


class Leases:
    """The partitions of one updater."""

    def __init__(self, store: StateStore, owner: str, *, clock: Callable[[], float] = time.time) -> None:
        """`owner` names this updater among others; `clock` gives seconds, about the same for all of them."""
        self._store, self._owner, self._clock = store, owner, clock
        self._mine: set[int] = set()
        self._renewed = -math.inf

    def mine(self, partitions: int) -> set[int]:
        """The partitions out of so many that are this updater's now: an equal share, once the others have made room."""
        now = self._clock()
        if now - self._renewed > SECONDS / 3:
            self._mine, self._renewed = self._renew(partitions, now), now
        return self._mine

    def release(self) -> None:
        """Let go of everything: another updater need not wait."""
        held = self._store.texts("lease:")
        steps = [Step(expect={}, put={f"updater:{self._owner}": None})]
        for partition, text in held.items():
            if _owner(text) == self._owner:
                steps.append(Step(expect={f"lease:{partition}": text}, put={f"lease:{partition}": None}))
        self._store.apply(steps)
        self._mine, self._renewed = set(), -math.inf

    def _renew(self, partitions: int, now: float) -> set[int]:
        until = f"{now + SECONDS:.3f}"
        others = {name: float(text) for name, text in self._store.texts("updater:").items() if name != self._owner}
        gone = [name for name, end in others.items() if end < now]
        put = {f"updater:{self._owner}": until, **{f"updater:{name}": None for name in gone}}
        steps = [Step(expect={}, put=put)]
        share = math.ceil(partitions / (1 + len(others) - len(gone)))
        held = self._store.texts("lease:")
        mine = sorted(int(place) for place, text in held.items() if _owner(text) == self._owner)
        free = [
            place
            for place in range(partitions)
            if str(place) not in held or (place not in mine and _end(held[str(place)]) < now)
        ]
        kept = [*mine, *free][:share]
        places = sorted({*mine, *kept})
        for place in places:
            name = f"lease:{place}"
            text = f"{self._owner} {until}" if place in kept else None
            steps.append(Step(expect={name: held.get(str(place))}, put={name: text}))
        done = dict(zip(places, self._store.apply(steps)[1:], strict=True))
        return {place for place in kept if done[place]}


def _owner(text: str) -> str:
    return text.rpartition(" ")[0]


def _end(text: str) -> float:
    return float(text.rpartition(" ")[2])
