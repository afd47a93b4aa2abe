"""Next-item recommendation on any file of interactions, full ranking, beside published figures.

python -m benchmarks.sequential --data beauty.parquet --order position --seeds 3             fitted on train alone
python -m benchmarks.sequential --data beauty.parquet --order position --seeds 3 --refit     ... and validation
python -m benchmarks.sequential --data events.parquet --order timestamp --seeds 3            global time split

The file has a user, an item, and a position or a timestamp; item attributes stand beside it as
`<name>_item_attributes.parquet`, or `--attributes FILE`. With an order alone: leave-one-out, what a user has seen is
left out of the ranking. With times: the last tenth of time is test, the tenth before validation, and seen items may
come again (`--leave-one-out` for the papers' protocol). Everything is chosen on validation. Leaves predictions.parquet
(user, target, rank by recommender, the blend's 100 best).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.sequential_data import Order, by_time, leave_one_out, read
from benchmarks.sequential_models import Protocol, Scores, Simple, neural, simple
from benchmarks.sequential_set import training_set
from benchmarks.sequential_settings import length, settings
from clicktrail.publish import publish_file
from clicktrail.settings import load
from training.baselines import subsample
from training.blend import Blend, Matrix, choose, ranks
from training.config import FAMILIES
from training.evaluation import paired_bootstrap, ranking_metrics
from training.training_set import TEST, VALIDATION

BLEND = "blend"
_TOP = 100
_JUDGES = 300_000_000
"""Scores of validation examples held at once, examples x items x recommenders: 1.2 GB of float32."""
_MOST_TEST = 50_000
_TOLD = 0.005
"""Weights below say nothing."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one seed gave on the test examples: ranks by recommender, the blend's best, and what it cost."""

    examples: np.ndarray
    ranks: dict[str, np.ndarray]
    best: np.ndarray
    blend: Blend
    validation: float
    seconds: float
    events_per_s: float


def main() -> None:
    """Command line."""
    given = _arguments()
    begun = time.monotonic()
    data = read(given.data, given.order, given.attributes)
    timed = given.order == "timestamp" and not given.leave_one_out
    split, last = by_time if timed else leave_one_out, given.length or length(data)
    print(
        f"{given.data.name}: {len(data.user):,} events, {len(data.users):,} users, {len(data.items):,} items, "
        f"{len(data.attributes):,} attributes; {'global time split' if timed else 'leave-one-out'}, "
        f"{'refitted on train + validation' if given.refit else 'fitted on train alone'}, histories of {last}"
    )
    protocol = Protocol(data=data, training=training_set(data, split(data, refit=False), last), unseen=not timed)
    others = simple(protocol, progress=given.progress)
    found = [seed(protocol, others, given, number) for number in range(given.seeds)]
    if given.refit:
        protocol = Protocol(data=data, training=training_set(data, split(data, refit=True), last), unseen=not timed)
        again = simple(protocol, progress=given.progress, chosen=others)
        found = [seed(protocol, again, given, number, blend=one.blend) for number, one in enumerate(found)]
    out = given.out or load().home / "bench" / "sequential" / (given.data.stem + ("_refit" if given.refit else ""))
    out.mkdir(parents=True, exist_ok=True)
    table = predictions(protocol, found[0])
    publish_file(out / "predictions.parquet", lambda path: pq.write_table(table, path), "bench.predictions")
    print(f"predictions of the first seed: {out / 'predictions.parquet'}")
    print(json.dumps(told(protocol, found) | {"seconds": round(time.monotonic() - begun, 1)}))


def seed(
    protocol: Protocol, others: Simple, given: argparse.Namespace, number: int, blend: Blend | None = None
) -> Found:
    """Fit the networks from one seed, choose the blend on validation unless it is given, and rank the test examples."""
    begun, training = time.monotonic(), protocol.training
    recommenders: dict[str, Scores] = {}
    speeds = []
    for family in given.encoders:
        config = settings(protocol.data, family=family, seed=number, epochs=given.epochs)
        with tempfile.TemporaryDirectory() as folder:
            fitted, recommenders[family] = neural(training, config, Path(folder), progress=given.progress)
        speeds.append(fitted.tokens_per_second)
    recommenders |= others.scores
    worth = 0.0
    if blend is None:
        blend, worth = _chosen(protocol, recommenders, progress=given.progress)
    test = _some(training.of(TEST), _MOST_TEST)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (BLEND, *recommenders)}
    order, best = [], []
    pieces = protocol.blocks(recommenders, test)
    for piece, judged in tqdm(pieces, desc="test", unit="block", disable=not given.progress):
        mixed = blend.scores(judged.distributions)
        for name, scores in {BLEND: mixed, **judged.distributions}.items():
            parts[name].append(ranks(scores, judged.target, judged.banned))
        best.append(top(mixed, judged.banned))
        order.append(piece)
    one = Found(
        examples=np.concatenate(order),
        ranks={name: np.concatenate(pieces) for name, pieces in parts.items()},
        best=np.concatenate(best),
        blend=blend,
        validation=worth,
        seconds=time.monotonic() - begun,
        events_per_s=float(np.mean(speeds)),
    )
    shown = ", ".join(f"{name} {weight:.2f}" for name, weight in blend.weights.items() if weight >= _TOLD)
    told_test = ranking_metrics(one.ranks[BLEND])
    print(
        f"seed {number}: {one.seconds:.0f} s, {one.events_per_s:,.0f} events/s in training; blend of {shown}; "
        f"{f'validation NDCG@10 {worth:.4f}; ' if worth else ''}"
        f"test HR@10 {told_test['hit_rate@10']:.4f} NDCG@10 {told_test['ndcg@10']:.4f}",
        flush=True,
    )
    return one


def _chosen(protocol: Protocol, recommenders: dict[str, Scores], *, progress: bool) -> tuple[Blend, float]:
    """The blend of best validation, and what it is worth there."""
    items = protocol.training.items
    assert items is not None  # noqa: S101 - sets of next items have them
    most = _JUDGES // (items.num_rows * len(recommenders))
    blocks = [one for _, one in protocol.blocks(recommenders, _some(protocol.training.of(VALIDATION), most))]
    blend = choose(blocks, progress=progress)
    found = [ranks(blend.scores(one.distributions), one.target, one.banned) for one in blocks]
    return blend, ranking_metrics(np.concatenate(found))["ndcg@10"]


def _some(examples: np.ndarray, most: int) -> np.ndarray:
    return examples[subsample(len(examples), most, 0)]


def top(scores: Matrix, banned: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """The best items of each row, best first, int64 [n, 100 at most]."""
    if banned is not None:
        scores = scores.copy()
        scores[banned] = -1
    most = min(_TOP, scores.shape[1])
    found = np.argpartition(-scores, most - 1, axis=1)[:, :most]
    return np.take_along_axis(found, np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable"), 1)


def told(protocol: Protocol, found: list[Found]) -> dict[str, Any]:
    """Print the table; gives the figures of the last line."""
    names = list(found[0].ranks)
    print(f"\n{'':>16} {'HR@10':>15} {'NDCG@10':>15}   blend's lead in NDCG@10, 95 %")
    spread: dict[str, dict[str, float]] = {}
    users = protocol.training.entity
    for name in names:
        worth = [ranking_metrics(one.ranks[name]) for one in found]
        mean = {key: float(np.mean([one[key] for one in worth])) for key in ("hit_rate@10", "ndcg@10")}
        std = {key: float(np.std([one[key] for one in worth])) for key in mean}
        spread[name] = {**mean, "hr_std": std["hit_rate@10"], "ndcg_std": std["ndcg@10"]}
        lead = ""
        if name != BLEND:
            first = found[0]
            gap = paired_bootstrap("ndcg@10", first.ranks[BLEND], first.ranks[name], groups=users[first.examples])
            lead = f"{gap['difference']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
            spread[name] |= {"lead_low": gap["low"], "lead_high": gap["high"]}
        cells = [f"{mean[key]:.4f} ± {std[key]:.4f}" for key in mean]
        print(f"{name:>16} {cells[0]:>15} {cells[1]:>15}   {lead}")
    best = spread[BLEND]
    return {
        "hr10": round(best["hit_rate@10"], 5),
        "ndcg10": round(best["ndcg@10"], 5),
        "hr10_std": round(best["hr_std"], 5),
        "ndcg10_std": round(best["ndcg_std"], 5),
        "model": "+".join(name for name, weight in found[0].blend.weights.items() if weight >= _TOLD),
        "weights": {name: round(weight, 3) for name, weight in found[0].blend.weights.items()},
        "seconds_a_seed": round(float(np.mean([one.seconds for one in found])), 1),
        "events_per_s": round(float(np.mean([one.events_per_s for one in found]))),
        "others": {name: {key: round(value, 5) for key, value in spread[name].items()} for name in names[1:]},
        "examples": len(found[0].examples),
    }


def predictions(protocol: Protocol, found: Found) -> pa.Table:
    """A row a test example: user, target, the blend's best, ranks; rows in the order of the file."""
    training, data = protocol.training, protocol.data
    assert training.items is not None  # noqa: S101 - sets of next items have them
    order = np.argsort(found.examples)
    examples = found.examples[order]
    names = training.items["item_id"].combine_chunks()
    best = found.best[order]
    return pa.table(
        {
            "user_id": data.users.take(pa.array(training.entity[examples])),
            "target": names.take(pa.array(training.target[examples])),
            "ranked": pa.ListArray.from_arrays(
                np.arange(len(best) + 1, dtype=np.int32) * best.shape[1], names.take(pa.array(best.ravel()))
            ),
            **{f"rank_{name}": found.ranks[name][order] for name in found.ranks},
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet of interactions")
    parser.add_argument("--order", choices=get_args(Order), required=True, help="what orders a user's events")
    parser.add_argument("--seeds", type=int, default=3, help="how many; the figures are their mean")
    parser.add_argument("--refit", action="store_true", help="fit again on train + validation with what was chosen")
    parser.add_argument("--attributes", type=Path, help="Parquet with the item and its list of attributes")
    parser.add_argument("--leave-one-out", action="store_true", help="the papers' protocol also where there are times")
    parser.add_argument("--encoders", nargs="+", choices=FAMILIES, default=["transformer"], help="networks to blend")
    parser.add_argument("--epochs", type=int, help="instead of what the settings say")
    parser.add_argument("--length", type=int, help="events of a history, instead of what the data suggests")
    parser.add_argument("--out", type=Path, help="folder of predictions.parquet")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no bars")
    return parser.parse_args()


if __name__ == "__main__":
    main()
