"""Every fit of the fraud benchmark as a task of its own, spread over processes; and the choice on validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import fraud_handbook_peers as peers
from benchmarks.fraud_handbook_protocol import METRICS, Fold, Ruler
from training.config import EncoderConfig
from training.hybrids import network
from training.hybrids.hybrid import BoostingConfig, PaymentBook, blend, fit_boosting
from training.hybrids.network import NetworkConfig
from training.hybrids.payments import Floats, Floats32, Ints

BOOSTINGS = (BoostingConfig(depth=3), BoostingConfig(depth=4))
NETWORKS = (
    NetworkConfig(encoder=EncoderConfig(family="gru", width=16, dropout=0.0)),
    NetworkConfig(encoder=EncoderConfig(family="transformer", width=16, dropout=0.0)),
)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_AP = METRICS.index("ap")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What validation chose."""

    xgboost: peers.XGBoostConfig
    boosting: BoostingConfig
    network: NetworkConfig
    share: float


@dataclass(frozen=True, kw_only=True)
class Fits:
    """What all tasks read, and how many processes work on them."""

    book: Floats32 = field(repr=False)
    ours: PaymentBook = field(repr=False)
    fraud: Ints = field(repr=False)
    jobs: int

    def run(self, tasks: Sequence[tuple[Callable[..., Any], Fold, Any]], doing: str) -> list[Any]:
        """What each task (function, fold, further argument) gives, in their order."""
        from sklearn.utils.parallel import Parallel, delayed

        # the arrays are mapped into the processes, not copied; each process keeps to one thread
        work = Parallel(n_jobs=self.jobs, return_as="generator")(
            delayed(function)(self, one, argument) for function, one, argument in tasks
        )
        return list(tqdm(work, total=len(tasks), desc=doing))

    def measured(self, folds: Sequence[Fold], test: int, settings: Settings, seeds: Iterable[int]) -> dict[str, Any]:
        """Scores by method and fold, None where a method has none; peers that lose have the test week alone."""
        seeds = list(seeds)
        week = folds[test]
        tasks: list[tuple[Callable[..., Any], Fold, Any]] = [
            (forest, week, None),
            (logistic, week, None),
            (xgboost, week, peers.XGBoostConfig()),
        ]
        tasks += [(xgboost, one, settings.xgboost) for one in folds]
        tasks += [(boosting, one, (settings.boosting, seed)) for seed in seeds for one in folds]
        tasks += [(sequence, one, (settings.network, seed)) for seed in seeds for one in folds]
        done = iter(self.run(tasks, "measured weeks"))

        def alone(score: Floats) -> list[Floats | None]:
            return [score if at == test else None for at in range(len(folds))]

        def every() -> list[Floats]:
            return list(itertools.islice(done, len(folds)))

        found: dict[str, Any] = {name: alone(next(done)) for name in ("random_forest", "logistic_regression")}
        found["xgboost_defaults"] = alone(next(done)[peers.XGBoostConfig().rounds])
        found["xgboost"] = [by_rounds[settings.xgboost.rounds] for by_rounds in every()]
        trees, nets = [every() for _ in seeds], [every() for _ in seeds]
        for seed, tree, net in zip(seeds, trees, nets, strict=True):
            halves = list(zip(tree, net, strict=True))
            found[f"hybrid_{seed}"] = [blend(*one, share=settings.share) for one in halves]
            found[f"boosting_{seed}"] = [blend(*one, share=0.0) for one in halves]
            found[f"network_{seed}"] = [blend(*one, share=1.0) for one in halves]
        return found


def choose(fits: Fits, folds: Sequence[Fold]) -> Settings:
    """Each method's settings of best mean average precision over the validation folds; of equals, the first."""
    kinds: list[tuple[Callable[..., Any], Sequence[Any]]] = [
        (xgboost, peers.GRID),
        (boosting, [(one, 0) for one in BOOSTINGS]),
        (sequence, [(one, 0) for one in NETWORKS]),
    ]
    tasks = [(function, one, setting) for function, settings in kinds for setting in settings for one in folds]
    done = iter(fits.run(tasks, "validation weeks"))
    by_setting = [[list(itertools.islice(done, len(folds))) for _ in settings] for _, settings in kinds]

    def mean_ap(scores: Iterable[Floats]) -> float:
        return float(np.mean([_average_precision(fits, one, s) for one, s in zip(folds, scores, strict=True)]))

    book = {
        peers.XGBoostConfig(depth=one.depth, rate=one.rate, rounds=rounds): mean_ap(week[rounds] for week in weeks)
        for one, weeks in zip(peers.GRID, by_setting[0], strict=True)
        for rounds in peers.ROUNDS
    }
    blends = {
        (tree, net, share): mean_ap(blend(a, b, share=share) for a, b in zip(trees, nets, strict=True))
        for tree, trees in zip(BOOSTINGS, by_setting[1], strict=True)
        for net, nets in zip(NETWORKS, by_setting[2], strict=True)
        for share in SHARES
    }
    tree, net, share = max(blends, key=lambda one: blends[one])
    return Settings(xgboost=max(book, key=lambda one: book[one]), boosting=tree, network=net, share=share)


def _average_precision(fits: Fits, one: Fold, score: Floats) -> float:
    nothing = np.zeros(len(one.test), np.int64)  # neither cards nor days matter to it
    return float(Ruler(score, fits.fraud[one.test], nothing, nothing).measure(np.ones(1))[_AP])


def xgboost(fits: Fits, one: Fold, config: peers.XGBoostConfig) -> dict[int, Floats]:
    """XGBoost on the book's features: scores by number of trees."""
    found = peers.xgboost_scores(fits.book[one.train], fits.fraud[one.train], fits.book[one.test], config)
    return {at.rounds: scores for at, scores in found}


def forest(fits: Fits, one: Fold, _: None) -> Floats:
    """The random forest on the book's features."""
    return peers.forest_scores(fits.book[one.train], fits.fraud[one.train], fits.book[one.test])


def logistic(fits: Fits, one: Fold, _: None) -> Floats:
    """Logistic regression on the book's features."""
    return peers.logistic_scores(fits.book[one.train], fits.fraud[one.train], fits.book[one.test])


def boosting(fits: Fits, one: Fold, setting: tuple[BoostingConfig, int]) -> Floats:
    """Log-odds by our trees."""
    config, seed = setting
    model = fit_boosting(fits.ours.features(one.train), fits.fraud[one.train], config=config, seed=seed)
    return model.logit(fits.ours.features(one.test))


def sequence(fits: Fits, one: Fold, setting: tuple[NetworkConfig, int]) -> Floats:
    """Log-odds by our network."""
    import torch

    torch.set_num_threads(1)
    config, seed = setting
    fitted = network.fit(fits.ours.sequences(one.train), fits.fraud[one.train], config=config, seed=seed)
    return fitted.logit(fits.ours.sequences(one.test))
