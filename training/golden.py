"""Synthetic entities for golden requests: nobody's real history leaves with a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np

from clicktrail.input_spec import SequenceSpec
from training.training_set import TrainingSet

_DAY = 86_400_000_000
_ODD = {"item_id": "never-seen-item", "category_id": "never-seen-category", "device": "never-seen-device"}


def golden_rows(data: TrainingSet, count: int = 8) -> list[dict[str, Any]]:
    """Features, request and time (t, microseconds UTC) of made-up entities; the first knows nothing at all.

    Values come from the vocabularies, and now and then from outside of them; sequences have lengths from 0 to the
    longest. A pure function of the encoding.
    """
    rng = np.random.default_rng(20_240)
    spec, t0 = data.encoding.spec, int(np.max(data.t)) // _DAY * _DAY
    rows = []
    for place in range(count):
        t = t0 + int(rng.integers(0, _DAY))
        features: dict[str, dict[str, Any]] = {
            one.view: _sequence(data, one, 0 if place == 0 else int(rng.integers(1, one.last + 1)), t, rng)
            for one in spec.sequences
        }
        for name in (*spec.scalars, *spec.rates):
            view, feature = name.split("__", 1)
            features.setdefault(view, {})[feature] = _scalar(name in spec.rates, place == 0, rng)
        request = {name: _value(data, name, rng) for name in spec.request_fields}
        rows.append({"features": features, "request": request, "t": t})
    return rows


def _sequence(data: TrainingSet, spec: SequenceSpec, length: int, t: int, rng: np.random.Generator) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for field in spec.fields:
        if field == "event_timestamp":
            columns[field] = sorted(int(t - one) for one in rng.integers(1_000_000, 30 * _DAY, length))
        else:
            columns[field] = [_value(data, field, rng) for _ in range(length)]
    return columns


def _value(data: TrainingSet, field: str, rng: np.random.Generator) -> Any:  # noqa: ANN401 - a string or a number
    if field in data.encoding.scales:
        return int(rng.integers(50, 50_000))
    if field not in data.encoding.vocabularies:
        return f"{field}-{int(rng.integers(0, 4))}"
    names = data.encoding.vocabularies[field]
    return _ODD.get(field, "never-seen") if rng.random() < 0.1 or not names else str(rng.choice(names))  # noqa: PLR2004


def _scalar(rate: bool, nothing: bool, rng: np.random.Generator) -> Any:  # noqa: ANN401, FBT001 - a number or a pair
    if rate:
        labelled = int(rng.integers(0, 4))
        return None if nothing else [labelled, labelled + int(rng.integers(0, 200))]
    return None if nothing else int(rng.integers(0, 400))
