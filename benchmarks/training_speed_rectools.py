"""RecTools' SASRec in its own environment, trained whenever it is its turn: a line on stdin asks for one.

Run by `python -m benchmarks.training_speed`, which makes that environment; only RecTools and what it needs is there.
Its own training loop, but for the number of batches; what is counted are real events, padding left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Watch(Callback):
    """Counts real events, and the time in training."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.events, self.seconds, self.began = 0, 0.0, 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's own
        """The clock runs."""
        del trainer, pl_module
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's own
        """Padding is item 0."""
        del trainer, pl_module, outputs, batch_idx
        self.events += int((batch["x"] > 0).sum())
        self.seconds = time.perf_counter() - self.began


def turn(dataset: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Train some batches from the beginning."""

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=1,
            min_epochs=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            devices=1,
            limit_train_batches=options.batches,
            callbacks=[Watch()],
        )

    model = SASRecModel(
        n_blocks=options.blocks,
        n_factors=options.width,
        session_max_len=options.length,
        dropout_rate=options.dropout,
        loss=options.loss,
        n_negatives=options.negatives,
        get_trainer_func=trainer,
    )
    model.fit(dataset)
    (watch,) = (one for one in model.fit_trainer.callbacks if isinstance(one, Watch))  # it trains with a copy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"events_per_s": watch.events / watch.seconds, "peak_mb": peak}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CSV of the training range alone")
    parser.add_argument("--loss", required=True)
    for name in ("blocks", "width", "length", "negatives", "threads", "batches"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    table = pd.read_csv(options.data)
    rows = pd.DataFrame(
        {
            Columns.User: table["user_id"],
            Columns.Item: table["item_id"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(table["position"], unit="D"),
        }
    )
    dataset = Dataset.construct(rows)
    for _ in sys.stdin:
        print(json.dumps(turn(dataset, options)), flush=True)


if __name__ == "__main__":
    main()
