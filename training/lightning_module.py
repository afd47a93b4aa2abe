"""Lightning's side of a fit: the steps, the optimiser, and batches that are planned anew every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import IterableDataset

from training.batches import Plan, batch_windows, gather, plan
from training.config import FitConfig
from training.losses import binary_loss, full_softmax, sampled_softmax
from training.model import NEXT_ITEM, SequenceModel
from training.scoring import metric_of, tensors
from training.training_set import TRAIN, VALIDATION, TrainingSet


class TrainingBatches(IterableDataset[dict[str, torch.Tensor]]):
    """One epoch of training batches; the order depends on the seed and the epoch alone, so a resumed fit repeats it."""

    def __init__(self, data: TrainingSet, config: FitConfig, seed: int) -> None:
        """Plan the windows once."""
        super().__init__()
        self.data, self.config, self.seed, self.epoch = data, config, seed, 0
        examples = data.of(TRAIN)
        if data.manifest["head"] == NEXT_ITEM:
            examples = examples[data.target[examples] >= 0]
        self.plan: Plan = plan(data, examples, share=True)
        self.count = len(self._groups(0))

    def _groups(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 2, epoch])
        return batch_windows(self.plan, tokens=self.config.tokens, rows=self.config.rows, rng=rng)

    def __len__(self) -> int:
        """Batches an epoch; jitter may change it by one or two."""
        return self.count

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the epoch that was set."""
        for group in self._groups(self.epoch):
            yield tensors(gather(self.data, self.plan, group))


class SequenceTask(pl.LightningModule):
    """Trains a `SequenceModel`. The validation metric is computed once an epoch on the validation range."""

    log_draws_I: torch.Tensor

    def __init__(self, model: SequenceModel, data: TrainingSet, config: FitConfig, metric: str, steps: int) -> None:
        """`steps`: optimiser steps of the whole fit, for the schedule."""
        super().__init__()
        self.model, self.config, self.metric, self.steps = model, config, metric, steps
        self.data = data
        self.negative_rate = float(data.manifest.get("negative_rate", 1.0))
        self.tokens_seen = 0
        if model.head == NEXT_ITEM:
            assert data.items is not None  # noqa: S101 - next-item sets have items
            popularity = data.items["popularity"].to_numpy().astype(np.float64) ** 0.75 + 1e-3
            draws = config.negatives * popularity / popularity.sum()
            self.register_buffer("log_draws_I", torch.from_numpy(np.log(draws)).float(), persistent=False)

    def on_train_epoch_start(self) -> None:
        """Tell the batches which epoch it is."""
        batches = self.trainer.train_dataloader.dataset
        batches.epoch = self.current_epoch

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        """Loss of a batch."""
        loss = self.loss(batch)
        self.tokens_seen += sum(
            array.shape[0] * array.shape[1] for name, array in batch.items() if name.endswith("__ids")
        )
        self.log(
            "train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["target"])
        )
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        """Validation loss of a batch."""
        self.log("val_loss", self.loss(batch), on_epoch=True, batch_size=len(batch["target"]))

    def on_validation_epoch_end(self) -> None:
        """The primary metric on the validation range, each query on its own window as in serving."""
        if self.trainer.sanity_checking:
            return
        found = metric_of(self.model, self.data, self.data.of(VALIDATION), self.metric)
        self.log("val_metric", found if math.isfinite(found) else 0.0, prog_bar=True)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of a batch of queries; targets that training had not seen say nothing."""
        out = self.model(batch)
        if self.model.head != NEXT_ITEM:
            return binary_loss(out, batch["target"], self.negative_rate if self.training else 1.0)
        known = batch["target"] >= 0
        q_QD, target_Q = out[known], batch["target"][known]
        e_ID, bias_I = self.model.item_vectors()
        if len(bias_I) <= self.config.full_softmax:
            return full_softmax(q_QD, e_ID, bias_I, target_Q)
        negative_N = torch.multinomial(self.log_draws_I.exp(), self.config.negatives, replacement=True)
        return sampled_softmax(q_QD, e_ID, bias_I, target_Q, negative_N, self.log_draws_I)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; warm-up, then a cosine down to nothing."""
        decay = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        plain = [parameter for parameter in self.model.parameters() if parameter.ndim <= 1]
        groups = [{"params": decay, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.config.rate, betas=(0.9, 0.98))
        warm = max(1, int(self.steps * self.config.warm_up))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            progress = min(1.0, (step - warm) / max(1, self.steps - warm))
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
