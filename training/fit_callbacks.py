"""What watches a fit: its speed and its end, its curves, and the checkpoints from which a killed one goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import TorchCheckpointIO

from clicktrail.publish import publish_file

_ASK_EVERY = 16
"""Steps between two times that several processes ask each other whether a checkpoint is due."""


class SyncedCheckpoints(TorchCheckpointIO):
    """Checkpoints that are synced before they are renamed: a power cut leaves the old one or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401 - Lightning's signature
        """Write aside, sync, rename."""
        del storage_options
        publish_file(Path(path), lambda aside: torch.save(checkpoint, aside), "fit.checkpoint")


class Checkpoints(Callback):
    """Keeps `last.ckpt`: at the end of each epoch, and within it when `seconds` have passed since (0: never).

    It is the last callback, so that what the others hold is of the same moment.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        """`path`: of the file."""
        self.path, self.seconds, self.kept = path, seconds, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts when training does; a fit that had come to its end stays there."""
        del trainer, pl_module
        self.kept = time.monotonic()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Between two batches; before the last one of an epoch it is not worth while."""
        del pl_module, batch
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.seconds and batch_idx and not last and self._due(trainer):
            self._keep(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After validation."""
        del pl_module
        self._keep(trainer)

    def _due(self, trainer: pl.Trainer) -> bool:
        passed = time.monotonic() - self.kept >= self.seconds
        if trainer.world_size == 1:
            return passed
        return trainer.global_step % _ASK_EVERY == 0 and trainer.strategy.reduce_boolean_decision(passed, all=False)

    def _keep(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.kept = time.monotonic()


class Speed(Callback):
    """Measures time in training alone, and ends the fit after the epoch in which its time is up.

    A fit that goes on counts the time before too; one that had been ended stays so.
    """

    def __init__(self, limit: float) -> None:
        """`limit`: seconds, 0 for none."""
        self.limit, self.seconds, self.training_seconds = limit, 0.0, 0.0
        self.ended = False
        self.since = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Times so far, and whether the fit is over."""
        return {"seconds": self.seconds, "training_seconds": self.training_seconds, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds, self.training_seconds = state_dict["seconds"], state_dict["training_seconds"]
        self.ended = state_dict["ended"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stay ended."""
        del pl_module
        self.since = time.monotonic()
        trainer.should_stop |= self.ended

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Count."""
        del trainer, pl_module, outputs, batch, batch_idx
        self.training_seconds += self._lap()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A GPU may still be at work on steps that were asked for long ago."""
        del trainer
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.training_seconds += self._lap()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End it."""
        del pl_module
        self._lap()
        if self.limit:
            trainer.should_stop |= trainer.strategy.reduce_boolean_decision(self.seconds > self.limit, all=False)
        self.ended = trainer.should_stop

    def _lap(self) -> float:
        now = time.monotonic()
        lap, self.since = now - self.since, now
        self.seconds += lap
        return lap


class Curves(Callback):
    """One line an epoch in curves.csv; a fit that goes on from a checkpoint goes on with the file."""

    columns = ("step", "epoch", "train_loss", "val_loss", "val_metric")

    def __init__(self, path: Path) -> None:
        """`path`: of the file."""
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it."""
        del pl_module
        if not trainer.is_global_zero:
            return
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


class Deterministic(Callback):
    """On a CPU operations that have a reproducible form take it, which costs nothing there; on a GPU it would."""

    def __init__(self) -> None:
        """Nothing is set yet."""
        self.before: tuple[bool, bool] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set it."""
        del trainer
        if pl_module.device.type == "cpu":
            self.before = (
                torch.are_deterministic_algorithms_enabled(),
                torch.utils.deterministic.fill_uninitialized_memory,
            )
            torch.use_deterministic_algorithms(mode=True)
            torch.utils.deterministic.fill_uninitialized_memory = False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave things as they were."""
        del trainer, pl_module
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same."""
        del trainer, pl_module, exception
        self._restore()

    def _restore(self) -> None:
        if self.before is not None:
            torch.use_deterministic_algorithms(self.before[0])
            torch.utils.deterministic.fill_uninitialized_memory = self.before[1]
            self.before = None
