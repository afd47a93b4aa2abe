"""An encoding's columns as the numbers that kernels take: made once, from a spec and fitted scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clicktrail.flat_events import Fields
from clicktrail.input_spec import RHYTHM, InputSpec, SequenceSpec
from clicktrail.kernels.encode import TokenPlan
from clicktrail.kernels.encode_request import RequestPlan, WindowPlan
from clicktrail.scales import Scale

_MINUTE = 60_000_000


def token_plan(one: SequenceSpec, fields: Fields, scales: Mapping[str, Scale]) -> TokenPlan:
    """The tokens of a sequence view."""
    these = [scales[name] for name in one.numbers]
    return TokenPlan(
        last=one.last,
        request=one.request,
        categories=len(one.categories),
        same=_places(fields.strings, one.same),
        seen=_places(fields.strings, one.seen),
        age=one.age,
        steps=one.steps,
        rise=one.rise,
        visits=_microseconds(one.visits),
        means=np.array([scale.mean for scale in these], np.float64),
        stds=np.array([scale.std for scale in these], np.float64),
        edges=_edges(these),
        ids=len(one.id_columns),
        numbers=len(one.number_columns),
    )


def window_plan(spec: InputSpec, one: SequenceSpec, fields: Fields) -> WindowPlan:
    """The values of a request that a sequence view gives."""
    place = {name: number for number, name in enumerate(spec.value_columns)}
    ratios = [(one.numbers.index(name), place[f"{name}_to_{view}"]) for view, name in spec.ratios if view == one.view]
    matches = [
        (fields.strings.index(name), place[f"same_{name}_in_{view}"]) for view, name in spec.matches if view == one.view
    ]
    return WindowPlan(
        last=one.last,
        ratios=np.array(ratios, np.int64).reshape(-1, 2),
        matches=np.array(matches, np.int64).reshape(-1, 2),
        since=place[f"since_{one.view}"],
        pause=_microseconds(one.rhythm),
        rhythm=place[f"{RHYTHM[0]}_{one.view}"] if one.rhythm else 0,
    )


def request_plan(spec: InputSpec, scales: Mapping[str, Scale]) -> RequestPlan:
    """The request's ids and numbers."""
    columns = spec.value_columns
    return RequestPlan(
        means=np.array([scales[name].mean for name in columns], np.float64),
        stds=np.array([scales[name].std for name in columns], np.float64),
        since=_places(columns, [f"since_{one.view}" for one in spec.sequences]),
        bucketed=_places(columns, spec.request_numbers),
        edges=_edges([scales[name] for name in spec.request_numbers]),
    )


def _places(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    return np.array([names.index(name) for name in wanted], np.int64)


def _microseconds(minutes: int) -> int:
    """A pause as kernels take it; none is negative."""
    return minutes * _MINUTE if minutes else -1


def _edges(scales: Sequence[Scale]) -> np.ndarray:
    """Edges of scales side by side, float64 [scales, K], inf behind the last of each."""
    out = np.full((len(scales), max((len(scale.edges) for scale in scales), default=0)), np.inf)
    for place, scale in enumerate(scales):
        out[place, : len(scale.edges)] = scale.edges
    return out
