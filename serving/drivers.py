"""What moved a score: the model is asked again with one thing at a time as if it were nothing special.

Things are what a person can follow: a field of the request, an aggregate over all its windows, a history of events. A
number becomes the average of the training range, a label rate the overall one, a field what is usual for the card or
user (its mean amount, its most frequent terminal), a history empty. How far that moves the log odds is the thing's
contribution. All questions about a row are one run of the model. Contributions do not add up to the score: where two
things say the same, taking one away changes little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

import numpy as np

from clicktrail.declarations import Declaration
from clicktrail.encoding import Encoding
from clicktrail.rows import Rows
from serving import driver_words
from serving.decision import Read
from serving.driver_words import mean_of, usual
from serving.model import Model

_LEAST = 0.01
"""Smaller contributions say nothing, log odds."""

_EDGE = 1e-7
"""Probabilities are held this far from 0 and 1."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """One thing: the aggregates `names` (view__feature), the request's field or the sequence view `names[0]`."""

    code: str
    kind: Literal["numbers", "field", "sequence"]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What one thing contributed, log odds, in words."""

    code: str
    contribution: float
    text: str

    @property
    def told(self) -> dict[str, Any]:
        """As an answer says it."""
        direction = "raises" if self.contribution > 0 else "lowers"
        return {"code": self.code, "direction": direction, "contribution": self.contribution, "text": self.text}


class Drivers:
    """Explains scores of one binary model."""

    def __init__(self, model: Model) -> None:
        """`model` has been checked."""
        self._model = model
        self._groups = groups_of(model.encoding, model.declarations)

    def of(self, found: Read, row: int) -> list[Driver]:
        """What moved the score of a row, the largest effect first."""
        encoding = self._model.encoding
        rows = found.features.rows(encoding.spec, found.fields, found.times)
        odds = _log_odds(self._model.run_rows(each_without(encoding, rows, row, self._groups)))
        contributions = odds[0] - odds[1:]
        order = np.argsort(-np.abs(contributions), kind="stable")
        return [
            Driver(
                code=self._groups[place].code,
                contribution=float(contributions[place]),
                text=self._text(self._groups[place], rows, row),
            )
            for place in order.tolist()
            if abs(contributions[place]) >= _LEAST
        ]

    def _text(self, group: Group, rows: Rows, row: int) -> str:
        encoding, declarations = self._model.encoding, {one.name: one for one in self._model.declarations}
        if group.kind == "field":
            return driver_words.of_field(encoding, declarations, group.names[0], rows, row)
        if group.kind == "sequence":
            return driver_words.of_sequence(encoding, declarations[group.names[0]], rows, row)
        return driver_words.of_numbers(encoding, declarations, group.names, rows, row)


def groups_of(encoding: Encoding, declarations: tuple[Declaration, ...]) -> tuple[Group, ...]:
    """Everything that a model sees, the time of the request aside."""
    spec = encoding.spec
    families: dict[object, list[str]] = {}
    by_name = {one.name: one for one in declarations}
    for name in (*spec.scalars, *spec.rates):
        view, _, feature = name.partition("__")
        one = next(one for one in by_name[view].aggregates if one.name == feature)
        # windows of one aggregate say much the same, so alone none of them would count
        families.setdefault((view, replace(one, name="", window_us=None, hop_us=0, over_us=None)), []).append(name)
    return (
        *(Group(code=field, kind="field", names=(field,)) for field in spec.request_fields),
        *(Group(code=_stem(names), kind="numbers", names=tuple(names)) for names in families.values()),
        *(Group(code=one.view, kind="sequence", names=(one.view,)) for one in spec.sequences),
    )


def each_without(encoding: Encoding, rows: Rows, row: int, groups: tuple[Group, ...]) -> Rows:
    """A row as it is, and then once for each group with that one as if it were nothing special."""
    times = len(groups) + 1
    scalars = {name: np.repeat(values[row : row + 1], times, axis=0) for name, values in rows.scalars.items()}
    request = {name: [values[row]] * times for name, values in rows.request.items()}
    lengths = {view: np.full(times, one.ends[row] - one.starts[row]) for view, one in rows.sequences.items()}
    for place, group in enumerate(groups, 1):
        for name in group.names:
            if group.kind == "field":
                request[name][place] = usual(encoding, name, rows, row)
            elif group.kind == "sequence":
                lengths[name][place] = 0
            elif name in encoding.priors:
                scalars[name][place, 0] = encoding.priors[name] * scalars[name][place, 1]
            else:
                scalars[name][place] = mean_of(encoding.scales[name])
    return Rows(
        sequences={
            view: replace(one, starts=np.repeat(one.starts[row], times), ends=one.starts[row] + lengths[view])
            for view, one in rows.sequences.items()
        },
        scalars=scalars,
        request=request,
        t=np.repeat(rows.t[row], times),
    )


def _stem(names: list[str]) -> str:
    """What the names of one aggregate have in common before their windows."""
    parts = (one.split("_") for one in names)
    return "_".join(same[0] for same in takewhile(lambda these: len(set(these)) == 1, zip(*parts, strict=False)))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(probability.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.log(kept) - np.log1p(-kept)
