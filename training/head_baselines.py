"""Baselines of classes, counts and times: same examples, histories and aggregates as the model, answers of its form.

Each is a function of the training set and the wanted examples, and gives float64 [n, P] (training/head_metrics.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.head_metrics import log_likelihoods
from training.run_baselines import scalar_values
from training.training_set import TRAIN, VALIDATION, TrainingSet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAY = 86_400.0
_ROUNDS, _PATIENCE = 600, 20
_TREES = {"max_depth": 6, "eta": 0.08, "min_child_weight": 20, "subsample": 0.8, "colsample_bytree": 0.8, "seed": 0}
_SHAPES = np.geomspace(0.02, 1e4, 120)
"""Of a negative binomial, from far more spread than Poisson to Poisson."""
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)


def head_baseline(name: str, data: TrainingSet, wanted: Ints) -> Floats:
    """Fit a baseline on the training range, choose its settings on validation, answer the wanted examples.

    Raises:
        ValueError: this head has no such baseline.
    """
    known = _BASELINES[data.manifest["head"]]
    if name not in known:
        message = f"baseline {name!r} does not exist for {data.manifest['head']}; choose among: {', '.join(known)}"
        raise ValueError(message)
    return known[name](data, wanted)


# ---- what is the same for everybody: where the head itself begins


def _alike(data: TrainingSet, wanted: Ints) -> Floats:
    """Shares of the classes; mean and spread of the counts; rates by piece of time (Kaplan-Meier's, but smooth)."""
    import torch

    from training.heads import head_of

    head = head_of(data.manifest)
    start = head.start(torch.from_numpy(data.target[data.of(TRAIN)])).double()
    return np.repeat(head.answers(start[None]).numpy(), len(wanted), 0)


# ---- classes


def _last_action(data: TrainingSet, wanted: Ints) -> Floats:
    """What followed the same last action, drawn towards the shares of all; how much, validation says."""
    train, classes = data.of(TRAIN), len(data.manifest["classes"])
    last = _last_types(data)
    counts = np.zeros((int(last.max()) + 1, classes))
    np.add.at(counts, (last[train], data.target[train]), 1)
    share = counts.sum(0) / counts.sum()

    def answers(strength: float, places: Ints) -> Floats:
        table = counts + strength * share
        found: Floats = (table / table.sum(1, keepdims=True))[last[places]]
        return found

    best = max(_STRENGTHS, key=lambda one: _worth(data, answers(one, data.of(VALIDATION))))
    return answers(best, wanted)


def _last_types(data: TrainingSet) -> Ints:
    """Code of the last event's type, 0 where nothing is known, [R]."""
    spec = next(one for one in data.encoding.spec.sequences if "event_type" in one.categories)
    tokens = data.tokens[spec.view]
    codes = tokens.ids[:, spec.id_columns.index("event_type")].astype(np.int64)
    return np.where(tokens.ends > tokens.starts, codes[np.maximum(tokens.ends - 1, 0)], 0)


def _boosted_classes(data: TrainingSet, wanted: Ints) -> Floats:
    """Trees by class, on the aggregates and the last action: without that they are below the table above."""
    values, labels = np.column_stack([scalar_values(data)[1], _last_types(data)]), data.target
    classes = len(data.manifest["classes"])
    known = data.of(VALIDATION)[labels[data.of(VALIDATION)] >= 0]
    fits = [_matrix(values[places], labels[places]) for places in (data.of(TRAIN), known)]
    booster = _boost({"objective": "multi:softprob", "num_class": classes}, *fits)
    found: Floats = booster.predict(_matrix(values[wanted])).astype(np.float64)
    return found / found.sum(1, keepdims=True)


# ---- counts


def _boosted_counts(data: TrainingSet, wanted: Ints) -> Floats:
    """Trees for the mean (Poisson); one shape for all, of greatest likelihood on validation."""
    values, labels = scalar_values(data)[1], data.target
    fits = [_matrix(values[places], labels[places]) for places in (data.of(TRAIN), data.of(VALIDATION))]
    booster = _boost({"objective": "count:poisson"}, *fits)

    def answers(shape: float, places: Ints) -> Floats:
        mean = booster.predict(_matrix(values[places])).astype(np.float64)
        some = -np.expm1(-shape * np.log1p(mean / shape))
        return np.stack([mean, some, np.full(len(mean), shape)], 1)

    shape = max(_SHAPES, key=lambda one: _worth(data, answers(one, data.of(VALIDATION))))
    return answers(float(shape), wanted)


# ---- times


def _boosted_hazards(data: TrainingSet, wanted: Ints) -> Floats:
    """Trees for the rate in each piece of time: events as Poisson counts in the time that an example spent there.

    That is the likelihood of the model's own head; the piece is a feature, so rates may change their order with time.
    """
    values, edges = scalar_values(data)[1], np.asarray(data.manifest["edges"], np.float64)
    fits = [_pieces(values[places], data.target[places], edges) for places in (data.of(TRAIN), data.of(VALIDATION))]
    booster = _boost({"objective": "count:poisson"}, *fits)
    expected = np.zeros((len(wanted), len(edges)))
    for at, width in enumerate(np.diff(edges, prepend=0.0) / _DAY):
        rows = np.column_stack([values[wanted], np.full(len(wanted), at)])
        expected[:, at] = booster.predict(_matrix(rows, offset=np.full(len(wanted), np.log(width))))
    found: Floats = -np.expm1(-expected.cumsum(1))
    return found


def _pieces(values: Floats, labels: Floats, edges: Floats) -> Any:  # noqa: ANN401 - xgboost is untyped
    """A row for each piece that an example spent time in; time after the last edge counts for nothing."""
    starts = np.concatenate([[0.0], edges[:-1]])
    spent = np.clip(labels[:, :1] - starts, 0, edges - starts) / _DAY
    ends = (labels[:, :1] >= starts) & (labels[:, :1] < edges)
    row, piece = np.nonzero((spent > 0) | ends)
    came = (ends[row, piece] & (labels[row, 1] == 1)).astype(np.float64)
    rows = np.column_stack([values[row], piece])
    return _matrix(rows, came, offset=np.log(np.maximum(spent[row, piece], 1e-6)))


# ---- trees


def _boost(objective: dict[str, Any], train: Any, validation: Any) -> Any:  # noqa: ANN401 - xgboost is untyped
    """Trees, until validation finds nothing in further ones."""
    import xgboost

    booster = xgboost.train(
        _TREES | objective,
        train,
        num_boost_round=_ROUNDS,
        evals=[(validation, "validation")],
        early_stopping_rounds=_PATIENCE,
        verbose_eval=False,
    )
    return booster[: booster.best_iteration + 1]


def _matrix(values: Floats, labels: NDArray[Any] | None = None, offset: Floats | None = None) -> Any:  # noqa: ANN401
    import xgboost

    return xgboost.DMatrix(values, label=labels, base_margin=offset)


def _worth(data: TrainingSet, answers: Floats) -> float:
    """Mean log-likelihood on validation."""
    return float(np.nanmean(log_likelihoods(data.manifest, data.target[data.of(VALIDATION)], answers)))


_BASELINES: dict[str, dict[str, Callable[[TrainingSet, Ints], Floats]]] = {
    "multiclass": {"class_shares": _alike, "last_action": _last_action, "gradient_boosting": _boosted_classes},
    "count": {"mean_count": _alike, "gradient_boosting": _boosted_counts},
    "time": {"constant_hazards": _alike, "gradient_boosting": _boosted_hazards},
}
