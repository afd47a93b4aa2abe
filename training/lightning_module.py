"""Lightning's side of a fit: the steps, the optimiser, and batches that are planned anew every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from training.batches import Plan, batch_windows, gather, plan
from training.config import FitConfig
from training.losses import binary_loss, item_loss, later_targets, log_draws
from training.model import NEXT_ITEM, SequenceModel
from training.scoring import metric_of, tensors
from training.training_set import TRAIN, VALIDATION, TrainingSet


class EpochBatches(IterableDataset[dict[str, torch.Tensor]]):
    """The training batches of one epoch; their order depends on seed and epoch alone, so a resumed fit repeats it."""

    def __init__(self, data: TrainingSet, plan: Plan, groups: list[np.ndarray]) -> None:
        """`groups`: the windows of each batch."""
        super().__init__()
        self.data, self.plan, self.groups = data, plan, groups

    def __len__(self) -> int:
        """Batches of this epoch."""
        return len(self.groups)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """One batch after the other."""
        for group in self.groups:
            yield tensors(gather(self.data, self.plan, group))


class TrainingBatches:
    """Training batches of any epoch: the windows are planned once, their order and company anew each time."""

    def __init__(self, data: TrainingSet, config: FitConfig, seed: int) -> None:
        """Plan the windows."""
        self.data, self.config, self.seed = data, config, seed
        examples = data.of(TRAIN)
        if data.manifest["head"] == NEXT_ITEM:
            examples = examples[data.target[examples] >= 0]
        self.plan: Plan = plan(data, examples, share=True)

    def epoch(self, number: int) -> EpochBatches:
        """The batches of an epoch; how many there are may change by a few from one to the next."""
        rng = np.random.default_rng([self.seed, 2, number])
        groups = batch_windows(self.plan, tokens=self.config.tokens, rows=self.config.rows, rng=rng)
        return EpochBatches(self.data, self.plan, groups)


class SequenceTask(pl.LightningModule):
    """Trains a `SequenceModel`. The validation metric is computed once an epoch on the validation range."""

    log_draws_I: torch.Tensor

    def __init__(self, model: SequenceModel, data: TrainingSet, config: FitConfig, metric: str, seed: int) -> None:
        """`metric`: the one to watch on validation; `seed`: of the order of batches."""
        super().__init__()
        self.model, self.config, self.metric = model, config, metric
        self.source = TrainingBatches(data, config, seed)
        self.steps = len(self.source.epoch(0)) * config.epochs
        self.data = data
        self.negative_rate = float(data.manifest.get("negative_rate", 1.0))
        self.tokens_seen = 0
        self.average: list[torch.Tensor] = []
        self.swapped = False
        if model.head == NEXT_ITEM:
            assert data.items is not None  # noqa: S101 - next-item sets have items
            popularity_I = torch.from_numpy(data.items["popularity"].to_numpy().astype(np.float64))
            self.register_buffer("log_draws_I", log_draws(config.loss, popularity_I), persistent=False)

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """This epoch's batches; the trainer asks again every epoch."""
        return DataLoader(self.source.epoch(self.current_epoch), batch_size=None)

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

    # ---- averaged weights: what is validated and kept is the running mean, what learns goes on from its own weights

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """Move the running mean towards the weights."""
        del outputs, batch, batch_idx
        if not self.config.average:
            return
        weights = [parameter.detach() for parameter in self.model.parameters()]
        if not self.average:
            self.average = [weight.clone() for weight in weights]
        # a young mean follows fast, so that the first steps are soon forgotten
        keep = min(self.config.average, (1 + self.global_step) / (10 + self.global_step))
        torch._foreach_lerp_(self.average, weights, 1 - keep)

    def on_validation_start(self) -> None:
        """Put the running mean in place of the weights."""
        self._swap()

    def on_validation_end(self) -> None:
        """Put the weights back; checkpoints were saved before, with the mean."""
        self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.model.parameters(), strict=bool(self.average)):
                kept = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(kept)
        self.swapped = bool(self.average) and not self.swapped

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep both: the state is the mean while it is in place, `other` holds what is not."""
        checkpoint["other"], checkpoint["swapped"] = [one.clone() for one in self.average], self.swapped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the weights, not from their mean."""
        names = [f"model.{name}" for name, _ in self.model.named_parameters()]
        self.average = list(checkpoint["other"])
        if checkpoint["swapped"]:
            state = checkpoint["state_dict"]
            weights, self.average = self.average, [state[name].clone() for name in names]
            checkpoint["state_dict"] = state | dict(zip(names, weights, strict=True))

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss of a batch of queries; targets that training had not seen say nothing."""
        out = self.model(batch)
        if self.model.head != NEXT_ITEM:
            return binary_loss(out, batch["target"], self.negative_rate if self.training else 1.0)
        known = batch["target"] >= 0
        q_QD, target_Q, loss = out[known], batch["target"][known], self.config.loss
        if self.training and loss.ahead > 1:
            target_Q = later_targets(target_Q, batch["window"][known], loss.ahead)
        return item_loss(loss, q_QD, *self.model.item_vectors(), target_Q, self.log_draws_I)

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
