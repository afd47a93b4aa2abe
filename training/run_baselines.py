"""A task's baselines on a training set: same examples, same histories, same aggregates as the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clicktrail.encoding import FIRST
from training.baselines import RankingExamples, ScalarExamples
from training.training_set import TRAIN, VALIDATION, TrainingSet


def run_baseline(name: str, data: TrainingSet, wanted: np.ndarray) -> np.ndarray:
    """Fit a baseline on the training range, choose its settings on validation, answer the wanted examples.

    Returns:
        Rows as in `wanted`: rank int64 [n] for ranking baselines, probability float64 [n] for the others.

    Raises:
        ValueError: there is no such baseline.
    """
    if name not in _BASELINES:
        message = f"baseline {name!r} does not exist; choose among: {', '.join(_BASELINES)}"
        raise ValueError(message)
    return _BASELINES[name](data, wanted)


def ranking_examples(data: TrainingSet, examples: np.ndarray) -> RankingExamples:
    """Examples over the flat history of the sequence that has items."""
    spec = next(one for one in data.encoding.spec.sequences if "item_id" in one.categories)
    tokens = data.tokens[spec.view]
    return RankingExamples(
        items=np.maximum(tokens.ids[:, spec.id_columns.index("item_id")].astype(np.int64) - FIRST, -1),
        starts=tokens.starts[examples],
        ends=tokens.ends[examples],
        targets=data.target[examples],
        times=data.t[examples],
    )


def scalar_examples(data: TrainingSet, examples: np.ndarray) -> ScalarExamples:
    """Binary examples over `scalar_values`."""
    names, values = scalar_values(data)
    return ScalarExamples(values=values[examples], names=names, labels=data.target[examples])


def scalar_values(data: TrainingSet) -> tuple[list[str], np.ndarray]:
    """Aggregates of the feature service and numbers of the request: names, and float64 [R, f], NaN for null."""
    names = [name for name in data.scalars.column_names if name != "group"]
    return names, np.stack([data.scalars[name].to_pandas().to_numpy(np.float64) for name in names], 1)


def _popularity(data: TrainingSet, wanted: np.ndarray) -> np.ndarray:
    from training.baselines import popularity

    train, validation = (ranking_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    return popularity.fit(train, validation, items=_items(data)).ranks(ranking_examples(data, wanted))


def _covisitation(data: TrainingSet, wanted: np.ndarray) -> np.ndarray:
    from training.baselines import covisitation

    train, validation = (ranking_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    return covisitation.fit(train, validation, items=_items(data)).ranks(ranking_examples(data, wanted))


def _recency_frequency(data: TrainingSet, wanted: np.ndarray) -> np.ndarray:
    from training.baselines import recency_frequency

    train, validation = (scalar_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    found = recency_frequency.fit(train, validation).score(scalar_examples(data, wanted).values)
    return calibrated(found, data)


def _gradient_boosting(data: TrainingSet, wanted: np.ndarray) -> np.ndarray:
    from training.baselines import gradient_boosting

    train, validation = (scalar_examples(data, data.of(split)) for split in (TRAIN, VALIDATION))
    found = gradient_boosting.fit(train, validation).score(scalar_examples(data, wanted).values)
    return calibrated(found, data)


def calibrated(score: np.ndarray, data: TrainingSet) -> np.ndarray:
    """Probabilities of a model that was fitted where negatives were kept at a rate, for the whole population."""
    rate = float(data.manifest.get("negative_rate", 1.0))
    return score * rate / (score * rate + 1 - score)


def _items(data: TrainingSet) -> int:
    assert data.items is not None  # noqa: S101 - next-item sets have items
    return int(data.items.num_rows)


_BASELINES: dict[str, Callable[[TrainingSet, np.ndarray], np.ndarray]] = {
    "popularity": _popularity,
    "covisitation": _covisitation,
    "recency_frequency": _recency_frequency,
    "gradient_boosting": _gradient_boosting,
}
