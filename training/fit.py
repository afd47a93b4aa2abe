"""Fit a model to a training set. Needs torch, lightning, numpy, pyarrow and pandas alone: it runs on any GPU machine.

In float32 on a CPU, with bf16 and compiled steps on a GPU. Killed, it goes on from `checkpoints/last.ckpt`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch.utils.data import DataLoader, IterableDataset

from training.batches import batches, own_windows
from training.config import RunConfig
from training.lightning_module import SequenceTask
from training.loggers import loggers
from training.model import NEXT_ITEM, SequenceModel
from training.scoring import tensors
from training.training_set import TRAIN, VALIDATION, TrainingSet

Accelerator = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model (the epoch of best validation), its curves and how fast it went."""

    model: SequenceModel
    curves: pd.DataFrame
    best_metric: float
    epochs: int
    seconds: float
    tokens_per_second: float


def build_model(data: TrainingSet, config: RunConfig) -> SequenceModel:
    """The model of a configuration for a training set, weights drawn from the configuration's seed."""
    torch.manual_seed(config.seed)
    if data.manifest["head"] == NEXT_ITEM:
        return SequenceModel(config, data.encoding, NEXT_ITEM, facts=item_facts(data))
    labels = data.target[data.of(TRAIN)]
    rate = float(data.manifest.get("negative_rate", 1.0))
    mean = np.clip(labels.mean(), 1e-6, 1 - 1e-6)
    return SequenceModel(config, data.encoding, "binary", prior=float(np.log(mean / (1 - mean)) + np.log(rate)))


def item_facts(data: TrainingSet) -> np.ndarray:
    """Encoded category and price bucket of each item, int64 [I, 1 or 2]; zero where the data has none."""
    assert data.items is not None  # noqa: S101 - next-item sets have items
    columns = []
    if "category_id" in data.items.column_names:
        columns.append(data.encoding.codes("category_id", data.items["category_id"].to_pylist()))
    if "price_minor" in data.items.column_names:
        price = data.items["price_minor"].to_pandas().to_numpy(np.float64, na_value=np.nan)
        columns.append(data.encoding.scales["price_minor"].bucket(price))
    return np.stack(columns or [np.zeros(data.items.num_rows, np.int64)], 1)


def fit(  # noqa: PLR0913 - each is a choice of its own
    data: TrainingSet,
    config: RunConfig,
    metric: str,
    folder: Path,
    *,
    accelerator: Accelerator = "auto",
    compiled: bool | None = None,
    max_steps: int = -1,
    max_epochs: int | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train, and return the epoch that was best on the validation range.

    Args:
        data: the training set.
        config: what and how.
        metric: the primary metric, watched on validation; more is better.
        folder: checkpoints and curves go here; a `last.ckpt` found there is gone on from.
        accelerator: `auto` takes a GPU where there is one.
        compiled: whether steps are compiled; on a GPU by default.
        max_steps: stop after so many steps (a check of the machinery).
        max_epochs: stop after so many epochs, with the schedule of the whole fit.
        progress: show progress bars.
        callbacks: of Lightning, beside our own.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it would tell of devices and sell loggers
    pl.seed_everything(config.seed, verbose=False)
    gpu = accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())
    task = SequenceTask(build_model(data, config), data, config.fit, metric, config.seed)
    if gpu if compiled is None else compiled:
        task.model.compile_encoders()
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(
        checkpoints, "best", monitor="val_metric", mode="max", save_last=True, enable_version_counter=False
    )
    speed = _Speed(config.fit.seconds)
    curves = _Curves(folder / "curves.csv")
    watch: list[Callback] = [best, speed, curves, *callbacks]
    if config.fit.patience:
        watch.append(EarlyStopping("val_metric", mode="max", patience=config.fit.patience, strict=False))
    if progress:
        watch.append(TQDMProgressBar(refresh_rate=5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises on workers and log intervals; batches are planned here
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=1,
            precision="bf16-mixed" if gpu or compiled else "32-true",
            max_epochs=config.fit.epochs if max_epochs is None else max_epochs,
            max_steps=max_steps,
            gradient_clip_val=config.fit.clip,
            num_sanity_val_steps=0,
            callbacks=watch,
            logger=loggers(folder, config, str(data.manifest["task"])),
            enable_progress_bar=progress,
            enable_model_summary=False,
            log_every_n_steps=10,
            reload_dataloaders_every_n_epochs=1,
        )
        last = checkpoints / "last.ckpt"
        trainer.fit(
            task,
            val_dataloaders=DataLoader(_ValidationBatches(data), batch_size=None),
            ckpt_path=last if last.is_file() else None,
            weights_only=False,
        )
    if best.best_model_path and Path(best.best_model_path).is_file():
        state: dict[str, Any] = torch.load(best.best_model_path, map_location="cpu", weights_only=False)["state_dict"]
        own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        task.model.load_state_dict(own)
    # a fresh module: compiled ones cannot be exported
    model = build_model(data, config)
    model.load_state_dict(task.model.cpu().state_dict())
    return Fitted(
        model=model.eval(),
        curves=curves.read(),
        best_metric=float(best.best_model_score or 0.0),
        epochs=trainer.current_epoch,
        seconds=speed.seconds,
        tokens_per_second=task.tokens_seen / max(speed.training_seconds, 1e-9),
    )


class _ValidationBatches(IterableDataset[dict[str, torch.Tensor]]):
    """The validation range, each query on its own window."""

    def __init__(self, data: TrainingSet) -> None:
        super().__init__()
        examples = data.of(VALIDATION)
        if data.manifest["head"] == NEXT_ITEM:
            examples = examples[data.target[examples] >= 0]
        self.data, self.plan = data, own_windows(data, examples)

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator of batches
        return map(tensors, batches(self.data, self.plan, tokens=32_768, rows=1_024, rng=None))


class _Speed(Callback):
    """Measures time in training alone, and ends the fit after the epoch in which its time is up."""

    def __init__(self, limit: float) -> None:
        self.limit, self.begun, self.epoch_begun = limit, time.monotonic(), 0.0
        self.training_seconds = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer, pl_module
        self.epoch_begun = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del trainer, pl_module
        self.training_seconds += time.monotonic() - self.epoch_begun

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        if self.limit and self.seconds > self.limit:
            trainer.should_stop = True


class _Curves(Callback):
    """One line an epoch in curves.csv; a fit that goes on from a checkpoint goes on with the file."""

    columns = ("step", "epoch", "train_loss", "val_loss", "val_metric")

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        del pl_module
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch} | found
        line = pd.DataFrame([row]).reindex(columns=list(self.columns))
        kept = self.read()
        pd.concat([kept[kept["epoch"] < trainer.current_epoch], line]).to_csv(self.path, index=False)

    def read(self) -> pd.DataFrame:
        """What was written so far."""
        if not self.path.is_file():
            return pd.DataFrame(columns=list(self.columns))
        return pd.read_csv(self.path)
