"""What `make tune` may change, as data: a path into the configuration and the values that it may take.

Where a good value grows with the size of a preset, the space is said in multiples of the preset's own, so that one
space does for all presets. The preset's own values are always among those that can be drawn, and are tried first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from training.config import AUGMENTS, RunConfig
from training.config_file import at


class Draw(Protocol):
    """Whoever picks values: an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between two."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number from one to another, both included."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:  # noqa: ANN401 - Optuna's signature
        """One of some."""


@dataclass(frozen=True)
class Choice:
    """One of these values, or the preset's."""

    path: str
    values: tuple[Any, ...]

    def draw(self, by: Draw, preset: RunConfig) -> Any:  # noqa: ANN401 - of the path's own type
        """A value for this path."""
        own = at(preset, self.path)
        return by.suggest_categorical(self.path, self.values if own in self.values else (*self.values, own))


@dataclass(frozen=True)
class Scaled:
    """The preset's whole number times one of these factors."""

    path: str
    factors: tuple[float, ...]

    def draw(self, by: Draw, preset: RunConfig) -> int:
        """A value for this path."""
        own = at(preset, self.path)
        return int(by.suggest_categorical(self.path, [max(1, int(own * factor)) for factor in self.factors]))


@dataclass(frozen=True)
class Around:
    """Between the preset's number divided and multiplied by `factor`, even in its logarithm."""

    path: str
    factor: float

    def draw(self, by: Draw, preset: RunConfig) -> float:
        """A value for this path."""
        own = at(preset, self.path)
        return by.suggest_float(self.path, own / self.factor, own * self.factor, log=True)


@dataclass(frozen=True)
class Between:
    """A number between two, both included; a whole one where the preset's is. The preset's own widens the range."""

    path: str
    low: float
    high: float

    def draw(self, by: Draw, preset: RunConfig) -> float:
        """A value for this path."""
        own = at(preset, self.path)
        low, high = min(self.low, own), max(self.high, own)
        if isinstance(own, int):
            return by.suggest_int(self.path, math.floor(low), math.ceil(high))
        return by.suggest_float(self.path, low, high)


Space = tuple[Choice | Scaled | Around | Between, ...]

_ALL: Space = (
    Choice("encoder.family", ("gru", "transformer", "hstu")),
    Choice("encoder.time_bias", (False, True)),
    Scaled("encoder.width", (0.5, 1, 2)),
    Between("encoder.layers", 1, 3),
    Between("encoder.dropout", 0.0, 0.5),
    Scaled("fit.tokens", (0.5, 1, 2)),
    Around("fit.rate", 4),
    Around("fit.weight_decay", 10),
    Choice("fit.average", (0.0, 0.99, 0.995, 0.999)),
)
_BINARY: Space = (
    *_ALL,
    Between("head_dropout", 0.0, 0.5),
    Choice("fit.augment.kind", ("none", "crop", "mask")),
)
_ITEMS: Space = (
    *_ALL,
    Choice("temperature", (0.0, 0.05, 0.1)),
    Choice("fit.loss.kind", ("auto", "sampled", "gbce")),
    Choice("fit.augment.kind", AUGMENTS),
)

SPACES: dict[str, Space] = {"recommendation": _ITEMS, "retention": _BINARY, "fraud": _BINARY}
"""By task; a task that is not named here has the space of retention."""


def space_of(task: str) -> Space:
    """What may be changed for a task."""
    return SPACES.get(task, _BINARY)


def drawn(space: Space, by: Draw, preset: RunConfig) -> dict[str, Any]:
    """A value for each path of the space."""
    return {one.path: one.draw(by, preset) for one in space}
