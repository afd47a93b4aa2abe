"""What each choice of a next-item model is worth: one variant after the other, on validation, everything else alike.

python -m benchmarks.encoders --data beauty.parquet --order position
python -m benchmarks.encoders --data interactions.parquet --order timestamp --users 1000 --only transformer time

Files as for `benchmarks.sequential`. Every variant is the base (causal transformer, two blocks, sampled softmax) with
one thing changed, fitted by the same number of epochs; its figure is NDCG@10 and HR@10 of the best epoch on the
validation range, over all items, seen ones included. Test is never looked at. Leaves predictions.parquet (variant,
example, target, rank).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.sequential_data import Interactions, Order, by_time, leave_one_out, read
from benchmarks.sequential_set import training_set
from benchmarks.sequential_settings import length, settings
from clicktrail.publish import publish_file
from clicktrail.settings import load
from training.config import AUGMENTS, FAMILIES, AugmentConfig, EncoderConfig, Family, LossConfig, RunConfig
from training.evaluation import ranking_metrics
from training.fit import fit
from training.scoring import predict
from training.training_set import VALIDATION, TrainingSet

BASE: Family = "transformer"


def variants(base: RunConfig, *, timed: bool, content: bool) -> dict[str, RunConfig]:
    """Name -> configuration; `timed`: the file has times, `content`: its items have attributes."""

    def encoder(**change: Any) -> RunConfig:  # noqa: ANN401 - fields of a configuration
        return replace(base, encoder=replace(base.encoder, **change))

    def loss(**change: Any) -> RunConfig:  # noqa: ANN401 - fields of a configuration
        return replace(base, fit=replace(base.fit, loss=replace(base.fit.loss, **change)))

    out: dict[str, RunConfig] = {BASE: base}
    out |= {family: encoder(family=family) for family in FAMILIES if family != BASE}
    out |= {f"{count} blocks": encoder(layers=count) for count in (1, 4)}
    out |= {"full softmax": loss(kind="full"), "gbce": loss(kind="gbce"), "half uniform": loss(uniform=0.5)}
    out |= {f"cosine {one:g}": replace(base, temperature=one) for one in (0.05, 0.1)}
    out |= {"3 ahead": loss(ahead=3)}
    out |= {
        kind: replace(base, fit=replace(base.fit, augment=AugmentConfig(kind=kind)))
        for kind in AUGMENTS
        if kind != "none"
    }
    if timed:
        out |= {"time": encoder(time_bias=True), "hstu, time": encoder(family="hstu", time_bias=True)}
    if content:
        out |= {"no content": replace(base, content=False)}
    return out


def measure(data: TrainingSet, config: RunConfig, *, progress: bool) -> tuple[dict[str, Any], np.ndarray]:
    """Fit one variant; its figures, and the rank of each validation example's target."""
    begun, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(data, config, "ndcg@10", Path(folder), progress=progress)
    spent = {"seconds": round(time.monotonic() - begun, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    rank = predict(fitted.model, data, data.of(VALIDATION))["rank"]
    found = ranking_metrics(rank)
    weights = sum(parameter.numel() for parameter in fitted.model.encoders.parameters())
    figures = {"ndcg10": round(found["ndcg@10"], 4), "hr10": round(found["hit_rate@10"], 4)}
    return figures | spent | {"encoder_weights": weights, "events_per_s": round(fitted.tokens_per_second)}, rank


def main() -> None:
    """Command line."""
    given = _arguments()
    data = _some(read(given.data, given.order), given.users)
    timed = given.order == "timestamp"
    split = by_time(data, refit=False) if timed else leave_one_out(data, refit=False)
    training = training_set(data, split, length(data))
    base = settings(data, family=BASE, seed=given.seed, epochs=given.epochs)
    base = replace(
        base,
        encoder=EncoderConfig(family=BASE, width=64, layers=2, heads=2, dropout=base.encoder.dropout),
        fit=replace(base.fit, loss=LossConfig(kind="sampled", negatives=256)),
        temperature=0.0,
        content=True,
    )
    chosen = variants(base, timed=timed, content=len(data.attributes) > 0)
    chosen = {name: config for name, config in chosen.items() if not given.only or name in given.only}
    print(f"{given.data.name}: {len(data.user):,} events, {len(data.users):,} users, {base.fit.epochs} epochs")
    table, ranks = {}, {}
    for name, config in tqdm(chosen.items(), desc="variants", disable=not given.progress):
        table[name], ranks[name] = measure(training, config, progress=given.progress)
        print(f"{name:>14}  " + "  ".join(f"{key} {value:>9,}" for key, value in table[name].items()), flush=True)
    examples = training.of(VALIDATION)
    predictions = pa.table(
        {
            "variant": np.repeat(list(ranks), len(examples)),
            "example": np.tile(training.example_id.to_numpy(zero_copy_only=False)[examples], len(ranks)),
            "target": np.tile(training.target[examples], len(ranks)),
            "rank": np.concatenate(list(ranks.values())),
        }
    )
    out = given.out or load().home / "bench" / "encoders" / given.data.stem
    out.mkdir(parents=True, exist_ok=True)
    publish_file(out / "predictions.parquet", lambda path: pq.write_table(predictions, path), "bench.predictions")
    print(json.dumps(table))


def _some(data: Interactions, users: int | None) -> Interactions:
    """The interactions of the first so many users."""
    if users is None:
        return data
    kept = int(np.searchsorted(data.user, users))
    time_kept = None if data.time is None else data.time[:kept]
    return replace(data, user=data.user[:kept], item=data.item[:kept], time=time_kept, users=data.users[:users])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--order", choices=get_args(Order), default="position")
    parser.add_argument("--users", type=int, default=None, help="the first so many users alone")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="these variants alone")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
