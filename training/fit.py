"""Fit a model to a training set. Needs torch, lightning, numba, numpy, pyarrow, pandas: it runs on any GPU machine.

In float32 on a CPU, with bf16 and compiled steps on a GPU. Killed, it goes on from `checkpoints/last.ckpt`, on a CPU to
the same weights to the bit.
"""

from __future__ import annotations

import logging
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
from pytorch_lightning.strategies import DDPStrategy

from training.config import RunConfig
from training.content import content_of
from training.fit_callbacks import Checkpoints, Curves, Deterministic, Speed, SyncedCheckpoints
from training.heads import head_of
from training.lightning_module import SequenceTask
from training.loggers import loggers
from training.model import BINARY, NEXT_ITEM, SequenceModel
from training.training_set import TRAIN, TrainingSet

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model (the epoch of best validation), its curves and how fast it went.

    `events`: real ones that training read, padding not counted, each as often as it was read; `tokens_per_second`: they
    by the time in training alone.
    """

    model: SequenceModel
    curves: pd.DataFrame
    best_metric: float
    epochs: int
    seconds: float
    events: int
    tokens_per_second: float


def build_model(data: TrainingSet, config: RunConfig) -> SequenceModel:
    """The model of a configuration for a training set, weights drawn from the configuration's seed."""
    torch.manual_seed(config.seed)
    if data.manifest["head"] == NEXT_ITEM:
        assert data.items is not None  # noqa: S101 - next-item sets have items
        content = content_of(data.items, config.encoder.width) if config.content else None
        return SequenceModel(config, data.encoding, NEXT_ITEM, facts=item_facts(data), content=content)
    labels = data.target[data.of(TRAIN)]
    if data.manifest["head"] != BINARY:
        head = head_of(data.manifest)
        prior = head.start(torch.from_numpy(labels))
        return SequenceModel(config, data.encoding, data.manifest["head"], predictor=head, prior=prior)
    rate = float(data.manifest.get("negative_rate", 1.0))
    mean = np.clip(labels.mean(), 1e-6, 1 - 1e-6)
    return SequenceModel(config, data.encoding, BINARY, prior=float(np.log(mean / (1 - mean)) + np.log(rate)))


def item_facts(data: TrainingSet) -> np.ndarray:
    """Encoded category and price bucket of each item, int64 [I, columns]; none where the data has none."""
    assert data.items is not None  # noqa: S101 - next-item sets have items
    columns = []
    if "category_id" in data.items.column_names:
        columns.append(data.encoding.codes("category_id", data.items["category_id"].to_pylist()))
    if "price_minor" in data.items.column_names:
        price = data.items["price_minor"].to_pandas().to_numpy(np.float64, na_value=np.nan)
        columns.append(data.encoding.scales["price_minor"].bucket(price))
    return np.stack(columns, 1) if columns else np.zeros((data.items.num_rows, 0), np.int64)


def fit(  # noqa: PLR0913 - each is a choice of its own
    data: TrainingSet,
    config: RunConfig,
    metric: str,
    folder: Path,
    *,
    accelerator: Accelerator = "auto",
    devices: int = 1,
    precision: Precision | None = None,
    compiled: bool | None = None,
    max_steps: int = -1,
    max_epochs: int | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Fitted:
    """Train, and return the epoch that was best on the validation range.

    Args:
        data: the training set.
        config: what and how.
        metric: the primary metric, watched on validation; more is better.
        folder: checkpoints and curves go here; a `last.ckpt` found there is gone on from.
        accelerator: `auto` takes a GPU where there is one.
        devices: GPUs, or processes on a CPU, that share each batch; above 1 the caller's main module is imported
            anew in each, so it needs its `if __name__ == "__main__"`.
        precision: float32 on a CPU, bf16 on a GPU by default.
        compiled: whether encoders are compiled; on a GPU by default.
        max_steps: stop after so many steps (a check of the machinery).
        max_epochs: stop after so many epochs, with the schedule of the whole fit.
        callbacks: more that watch the fit.
        progress: show progress bars.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it would tell of devices and sell loggers
    gpu = accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())
    task = SequenceTask(build_model(data, config), data, config.fit, metric, config.seed)
    if gpu if compiled is None else compiled:
        task.model.compile_encoders()
    last, best, curves = folder / "checkpoints" / "last.ckpt", _best(folder), Curves(folder / "curves.csv")
    watch: list[Callback] = [*callbacks, Deterministic(), best, curves]
    if config.fit.patience:
        # at the end of validation, so that the checkpoint of the epoch knows
        stop = EarlyStopping("val_metric", mode="max", patience=config.fit.patience, check_on_train_epoch_end=False)
        watch.append(stop)
    if progress:
        watch.append(TQDMProgressBar(refresh_rate=5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning advises on workers and log intervals; batches are planned here
        trainer = pl.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=devices,
            strategy="auto" if devices == 1 else DDPStrategy(start_method="spawn", broadcast_buffers=False),
            plugins=[SyncedCheckpoints()],
            precision=precision or ("bf16-mixed" if gpu else "32-true"),
            max_epochs=config.fit.epochs if max_epochs is None else max_epochs,
            max_steps=max_steps,
            num_sanity_val_steps=0,
            callbacks=[*watch, Speed(config.fit.seconds), Checkpoints(last, config.fit.checkpoint_seconds)],
            logger=loggers(folder, config, str(data.manifest["task"])),
            enable_progress_bar=progress,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
        )
        trainer.fit(task, ckpt_path=last if last.is_file() else None, weights_only=False)
    return _read(data, config, last, Path(best.dirpath or "") / "best.ckpt", curves.read())


def _best(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder / "checkpoints",
        "best",
        monitor="val_metric",
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )


def _read(data: TrainingSet, config: RunConfig, last: Path, best: Path, curves: pd.DataFrame) -> Fitted:
    """What a fit left in its files: with several processes it did not happen in this one."""
    end = torch.load(last, map_location="cpu", weights_only=False)
    # a fit of a few steps was never validated
    state: dict[str, Any] = (torch.load(best, map_location="cpu") if best.is_file() else end)["state_dict"]
    model = build_model(data, config)
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    speed = end["callbacks"][Speed.__name__]
    return Fitted(
        model=model.eval(),
        curves=curves,
        best_metric=float(np.nan_to_num(curves["val_metric"].max())),  # a fit of a few steps has none
        epochs=int(curves["epoch"].max()) + 1,
        seconds=speed["seconds"],
        events=end["events_seen"],
        tokens_per_second=end["events_seen"] / max(speed["training_seconds"], 1e-9),
    )
