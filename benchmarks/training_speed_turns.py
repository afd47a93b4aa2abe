"""A process that trains, or multiplies matrices, whenever it is its turn: a line on stdin asks for one.

    python -m benchmarks.training_speed_turns --kind packed|padded|products --set FOLDER

Each turn answers with one JSON line. Run by `python -m benchmarks.training_speed`.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pytorch_lightning import Callback

from benchmarks.sequential_set import VIEW
from benchmarks.training_speed import BLOCKS, DROPOUT, NEGATIVES, THREADS, WIDTH
from benchmarks.training_speed_products import Alone, Product, StepProducts
from clicktrail.encoding import FIRST
from clicktrail.publish import publish_file
from clicktrail.windows import window_positions
from training.batches import Arrays, batches, own_windows
from training.config import EncoderConfig, FitConfig, LossConfig, RunConfig
from training.fit import Fitted, fit
from training.model import SequenceModel
from training.training_set import TEST, TrainingSet, load

METRIC = "ndcg@10"
_EVENTS, _SECONDS, _TOP = 4_096, 2.0, 100


def config(*, packed: bool) -> RunConfig:
    """The run that is measured."""
    return RunConfig(
        content=False,  # as RecTools: what is timed is the step of items alone
        encoder=EncoderConfig(family="transformer", width=WIDTH, layers=BLOCKS, heads=2, dropout=DROPOUT),
        fit=FitConfig(
            epochs=20,
            tokens=_EVENTS,
            rows=2 * _EVENTS,
            rate=1e-3,
            patience=0,
            packed=packed,
            loss=LossConfig(kind="sampled", negatives=NEGATIVES),
        ),
    )


def epoch(data: TrainingSet, run: RunConfig) -> tuple[Fitted, dict[str, float]]:
    """Train one epoch through the engine; the model, and the figures of the turn."""
    fitted = _fit(data, run)
    return fitted, {"events_per_s": fitted.tokens_per_second, "peak_mb": peak_mb()}


def flops_per_event(data: TrainingSet, run: RunConfig) -> tuple[list[Product], float]:
    """The products of a step, and its floating point operations by event, what padding costs left out."""
    watch = StepProducts()
    _fit(data, run, callbacks=[watch])
    return watch.products, sum(one.flops for one in watch.products) / watch.places


def _fit(data: TrainingSet, run: RunConfig, callbacks: Sequence[Callback] = ()) -> Fitted:
    with tempfile.TemporaryDirectory() as folder:
        return fit(
            data,
            run,
            METRIC,
            Path(folder),
            accelerator="cpu",
            max_epochs=1,
            callbacks=callbacks,
            progress=False,
        )


def peak_mb() -> float:
    """The most memory that this process has held so far, 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def predictions(model: SequenceModel, data: TrainingSet, users: pa.ChunkedArray) -> pa.Table:
    """A row a test user: `user_id`, `target`, `ranked`, the best 100 that the user has not had."""
    examples = data.of(TEST)
    assert data.items is not None  # noqa: S101 - built with them
    items = np.array(data.items["item_id"].to_pylist(), object)
    ranked = top(model, data, examples, min(_TOP, len(items)))
    return pa.table(
        {
            "user_id": users.take(pa.array(data.entity[examples])),
            "target": pa.array(items[data.target[examples]]),
            "ranked": pa.array(list(items[ranked])),
        }
    )


@torch.no_grad()
def top(model: SequenceModel, data: TrainingSet, examples: np.ndarray, count: int) -> np.ndarray:
    """Positions of the best items that the user has not had, int64 [n, count]."""
    tokens, arrays = data.tokens[VIEW], Arrays(data)
    vectors, bias = model.item_vectors()
    ranked = np.empty((len(examples), count), np.int64)
    place = {int(example): at for at, example in enumerate(examples)}
    for batch in batches(arrays, own_windows(data, examples), tokens=32_768, rows=1_024):
        scores = model(batch) @ vectors.T + bias
        asked = batch["example"].numpy()
        starts, ends = tokens.starts[asked], tokens.ends[asked]
        row, had = np.repeat(np.arange(len(asked)), ends - starts), tokens.ids[window_positions(starts, ends), 0]
        scores[row[had >= FIRST], had[had >= FIRST].astype(np.int64) - FIRST] = -torch.inf
        ranked[[place[int(one)] for one in asked]] = scores.topk(count, 1).indices.numpy()
    return ranked


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("packed", "padded", "products"), required=True)
    parser.add_argument("--set", type=Path, required=True, help="a training set (training.training_set)")
    parser.add_argument("--users", type=Path, help="Parquet with the name of each user, for the predictions")
    parser.add_argument("--predictions", type=Path, help="left there at the end, of the last turn's model")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    data = load(options.set)
    run = config(packed=options.kind != "padded")
    if options.kind == "products":
        products, flops = flops_per_event(data, run)
        alone = Alone(products)
        for _ in sys.stdin:
            _say({"gemm_flops_per_s": alone.rate(_SECONDS), "flops_per_event": flops})
        return
    fitted = None
    for _ in sys.stdin:
        fitted, turn = epoch(data, run)
        _say(turn)
    if fitted and options.predictions:
        table = predictions(fitted.model, data, pq.read_table(options.users)["user_id"])
        publish_file(options.predictions, lambda path: pq.write_table(table, path), "bench")


def _say(turn: dict[str, float]) -> None:
    print(json.dumps(turn), flush=True)


if __name__ == "__main__":
    main()
