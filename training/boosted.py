"""Trees beside the network of a binary task: fitted apart, blended by their log-odds, the share chosen on validation.

Networks read order, trees read thresholds of aggregates, and their errors differ. Fitted apart, the trees never see
the network's answers on rows that it learned from. They read what the model reads of a request (ids and scaled values
of `Encoding.request`), so that a bundle needs nothing more.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from training.evaluation import binary_metrics
from training.model import SequenceModel
from training.parts import NETWORK, TOGETHER, Parts
from training.scoring import predict
from training.training_set import TRAIN, VALIDATION, TrainingSet
from training.trees import Trees, read

TREES = "trees"
_SHARES = np.linspace(0, 1, 11)
_MOST_ROUNDS, _PATIENCE = 600, 30
_DEPTHS, _DRAWS = (4, 6), 2
_LEAST, _ROWS = 1e-7, 1_024
_FEW = 10_000
"""Up to so many rows threads would wait for each other longer than they work."""


def add_trees(model: SequenceModel, data: TrainingSet, metric: str, *, seed: int) -> Parts:
    """Grow trees on the training range and give them to the model, unless validation says that they add nothing.

    Args:
        model: fitted, of a binary task, without trees.
        data: its training set.
        metric: the task's primary metric; more is better.
        seed: of what each tree is grown on.
    """
    validation = data.of(VALIDATION)
    label = data.target[validation]
    trees = grow(data, seed=seed)
    logit, margin = _log_odds(predict(model, data, validation)["score"]), margins(trees, data, validation)
    found = [binary_metrics(label, _probability((1 - one) * logit + one * margin), 0.5)[metric] for one in _SHARES]
    best = int(np.argmax(found))
    share = float(_SHARES[best])
    if share:
        model.add_trees(trees, share)
    return Parts(
        weights={NETWORK: 1 - share, TREES: share},
        validation={NETWORK: found[0], TREES: found[-1], TOGETHER: found[best]},
    )


def alone(model: SequenceModel, data: TrainingSet, examples: np.ndarray) -> dict[str, np.ndarray]:
    """What each part of a model would have answered to these examples by itself; nothing where there is one part."""
    if model.trees is None:
        return {}
    network = predict(model.with_share(0.0), data, examples)["score"]
    return {NETWORK: network, TREES: _probability(margins(model.trees, data, examples))}


@torch.no_grad()
def margins(trees: Trees, data: TrainingSet, examples: np.ndarray) -> np.ndarray:
    """Log-odds by the trees, float64 [n]."""
    x_NF = _read(data, examples).to(trees.value_TN.device)
    return np.asarray(torch.cat([trees(x_BF) for x_BF in x_NF.split(_ROWS)]).double().cpu().numpy())


def grow(data: TrainingSet, *, seed: int) -> Trees:
    """Trees on the training range, as many as validation wants; the mean of two depths and of two draws of each.

    Rare labels make one ensemble a matter of chance, and validation has too few to choose by: a mean needs no choice.
    Negatives that the training set left out are made up for by weight, so margins are those of the whole population.
    """
    from xgboost import XGBClassifier

    train, validation = data.of(TRAIN), data.of(VALIDATION)
    label, rate = data.target[train], float(data.manifest.get("negative_rate", 1.0))
    weight = np.where(label == 1, 1.0, 1 / rate)
    mean = float(np.average(label, weights=weight))
    x, held_out = _read(data, train).numpy(), (_read(data, validation).numpy(), data.target[validation])
    boosters = []
    for depth, draw in product(_DEPTHS, range(_DRAWS)):
        grown = XGBClassifier(
            n_estimators=_MOST_ROUNDS,
            early_stopping_rounds=_PATIENCE,
            eval_metric="logloss",
            learning_rate=0.05,
            max_depth=depth,
            min_child_weight=3.0,
            reg_lambda=2.0,
            subsample=0.7,
            colsample_bytree=0.5,
            max_bin=1024,  # what speaks for a rare label is rare itself: few quantiles would put it all in one
            base_score=mean,
            random_state=_DRAWS * seed + draw,
            n_jobs=torch.get_num_threads() if len(x) > _FEW else 1,
        ).fit(x, label, sample_weight=weight, eval_set=[held_out], verbose=False)
        boosters.append((bytes(grown.get_booster().save_raw("json")), grown.best_iteration + 1))
    return Trees.of_boosters(boosters, float(np.log(mean) - np.log1p(-mean)))


def _read(data: TrainingSet, rows: np.ndarray) -> torch.Tensor:
    return read(torch.from_numpy(data.request_ids[rows]), torch.from_numpy(data.request_numbers[rows]))


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _probability(log_odds: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
