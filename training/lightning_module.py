"""Lightning's side of a fit: the step, the optimiser, averaged weights, and all that a checkpoint must hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn

from training.batches import Arrays, batches, own_windows
from training.config import FitConfig
from training.epochs import EpochBatches, Share, TrainingEpochs
from training.losses import item_loss, later_targets, log_draws
from training.memory import keep_freed_memory
from training.model import NEXT_ITEM, SequenceModel
from training.scoring import metric_of
from training.training_set import VALIDATION, TrainingSet

LOG_EVERY = 50
"""Steps between two entries of a step's loss; to ask for a number waits for the step, so not each is asked for."""
_NO_METRIC = -1e6
"""Stands for a metric that is none: below whatever an epoch may bring, a mean log-likelihood included."""
_DROPOUT, _LOSS, _VALIDATION = 0, 1, 2


class SequenceTask(pl.LightningModule):
    """Trains a `SequenceModel`. The validation metric is computed once an epoch on the validation range.

    What is random in a step is drawn anew from seed and step, so a resumed fit needs no state of a generator, and
    several processes draw the same negatives.
    """

    log_draws_I: torch.Tensor

    def __init__(self, model: SequenceModel, data: TrainingSet, config: FitConfig, metric: str, seed: int) -> None:
        """`metric`: the one to watch on validation; `seed`: of the order of batches and of all draws."""
        super().__init__()
        self.model, self.data, self.config, self.metric, self.seed = model, data, config, metric, seed
        self.epochs = TrainingEpochs(data, config, seed)
        self.steps = len(self.epochs.groups(0)) * config.epochs
        self.negative_rate = float(data.manifest.get("negative_rate", 1.0))
        self.average: list[torch.Tensor] = []
        self.swapped = False
        self.place = {"epoch": -1, "batch": 0}
        self.events_seen = 0
        self.now: EpochBatches | None = None
        self.arrays: Arrays | None = None
        self.loss_sum, self.asked = torch.zeros((), dtype=torch.float64), 0
        if model.head == NEXT_ITEM:
            assert data.items is not None  # noqa: S101 - next-item sets have items
            popularity_I = torch.from_numpy(data.items["popularity"].to_numpy().astype(np.float64))
            self.register_buffer("log_draws_I", log_draws(config.loss, popularity_I), persistent=False)

    # ---- batches

    def on_fit_start(self) -> None:
        """Bring all else to where the model is."""
        if self.device.type == "cpu":
            keep_freed_memory()
        elif why := self.model.fuse_attention():
            rank_zero_warn(f"{why}: masks are held in memory")
        self.arrays, self.loss_sum = Arrays(self.data, self.device), self.loss_sum.to(self.device)
        self.average = [mean.to(self.device) for mean in self.average]

    def train_dataloader(self) -> EpochBatches:
        """This epoch's batches, from where a checkpoint left it; the trainer asks again every epoch."""
        assert self.arrays is not None  # noqa: S101 - the trainer calls on_fit_start first
        if self.place["epoch"] != self.current_epoch:
            self.place = {"epoch": self.current_epoch, "batch": 0}
            self.loss_sum, self.asked = torch.zeros_like(self.loss_sum), 0
        share = Share(rank=self.global_rank, world=self.trainer.world_size)
        self.now = self.epochs.epoch(self.current_epoch, self.arrays, share, self.place["batch"])
        return self.now

    def val_dataloader(self) -> _ValidationBatches:
        """The validation range, the same in all processes."""
        assert self.arrays is not None  # noqa: S101 - the trainer calls on_fit_start first
        return _ValidationBatches(self.data, self.arrays)

    # ---- the step

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        """Loss of a batch."""
        self._draw(_DROPOUT, self.global_step, self.global_rank)
        loss = self.loss(batch, (_LOSS, self.global_step))
        self.loss_sum += loss.detach() * len(batch["target"])
        self.asked += len(batch["target"])
        return loss * batch["weight"] if "weight" in batch else loss

    def validation_step(self, batch: dict[str, torch.Tensor], place: int) -> None:
        """Validation loss of a batch."""
        self.log("val_loss", self.loss(batch, (_VALIDATION, place)), on_epoch=True, batch_size=len(batch["target"]))

    def loss(self, batch: dict[str, torch.Tensor], draw: tuple[int, int]) -> torch.Tensor:
        """Mean loss of a batch's queries; `draw` names what is drawn for it."""
        out = self.model(batch)
        if self.model.head != NEXT_ITEM:
            return self.model.predictor.loss(out, batch["target"], self.negative_rate if self.training else 1.0)
        self._draw(*draw)
        target_Q, loss = batch["target"], self.config.loss
        if self.training and loss.ahead > 1:
            target_Q = later_targets(target_Q, batch["window"], loss.ahead)
        return item_loss(loss, out, *self.model.item_vectors(), target_Q, self.log_draws_I)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """Count."""
        del batch, batch_idx
        assert self.now is not None  # noqa: S101 - this is one of its batches
        self.events_seen += self.now.events(self.place["batch"])
        self.place["batch"] += 1
        if self.global_step % LOG_EVERY == 0:
            for logger in self.loggers:
                logger.log_metrics({"step_loss": float(outputs["loss"])}, self.global_step)

    def on_validation_epoch_end(self) -> None:
        """The primary metric on the validation range, each query on its own window as in serving."""
        found = metric_of(self.model, self.data, self.data.of(VALIDATION), self.metric, self.arrays)
        parts = torch.stack([self.loss_sum, torch.full_like(self.loss_sum, max(1, self.asked))])
        total, asked = self.trainer.strategy.reduce(parts, reduce_op="sum")
        self.log("train_loss", total / asked, prog_bar=True)
        self.log("val_metric", found if math.isfinite(found) else _NO_METRIC, prog_bar=True)

    def _draw(self, *what: int) -> None:
        """Begin a stream of random numbers that is named by these numbers and the seed."""
        seed = int(np.random.SeedSequence([self.seed, *what]).generate_state(1, np.uint64)[0] >> 1)
        # not torch.manual_seed: it takes a stack trace for each kind of device that is not there, a millisecond a step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # ---- the optimiser

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; warm-up, then a cosine down to nothing."""
        decay = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        plain = [parameter for parameter in self.model.parameters() if parameter.ndim <= 1]
        groups = [{"params": decay, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.config.rate, betas=(0.9, 0.98), fused=True)
        warm = max(1, int(self.steps * self.config.warm_up))

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            progress = min(1.0, (step - warm) / max(1, self.steps - warm))
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Clip by the norm of all gradients, in few operations; Lightning's own way refuses a fused optimiser."""
        del given, named
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True)

    def optimizer_step(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Step, and move the running mean of the weights towards them."""
        super().optimizer_step(*given, **named)
        if not self.config.average:
            return
        weights = [parameter.detach() for parameter in self.model.parameters()]
        if not self.average:
            self.average = [weight.clone() for weight in weights]
        # a young mean follows fast, so that the first steps are soon forgotten
        keep = min(self.config.average, (2 + self.global_step) / (11 + self.global_step))
        torch._foreach_lerp_(self.average, weights, 1 - keep)

    # ---- averaged weights: what is validated and kept is the running mean, what learns goes on from its own weights

    def on_validation_start(self) -> None:
        """Put the running mean in place of the weights."""
        self._swap()

    def on_validation_end(self) -> None:
        """Put the weights back; the best were saved before, with the mean."""
        self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.model.parameters(), strict=bool(self.average)):
                kept = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(kept)
        self.swapped = bool(self.average) and not self.swapped

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep both weights: the state is the mean while it is in place, `other` holds what is not; and the place."""
        checkpoint["other"], checkpoint["swapped"] = [one.clone() for one in self.average], self.swapped
        checkpoint["place"], checkpoint["events_seen"] = dict(self.place), self.events_seen
        checkpoint["loss_sum"], checkpoint["asked"] = self.loss_sum.clone(), self.asked

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the weights, not from their mean, and from the batch after the last."""
        names = [f"model.{name}" for name, _ in self.model.named_parameters()]
        self.average = list(checkpoint["other"])
        if checkpoint["swapped"]:
            state = checkpoint["state_dict"]
            weights, self.average = self.average, [state[name].clone() for name in names]
            checkpoint["state_dict"] = state | dict(zip(names, weights, strict=True))
        self.place, self.events_seen = dict(checkpoint["place"]), checkpoint["events_seen"]
        self.loss_sum, self.asked = checkpoint["loss_sum"], checkpoint["asked"]


class _ValidationBatches:
    """The validation range, each query on its own window."""

    def __init__(self, data: TrainingSet, arrays: Arrays) -> None:
        examples = data.of(VALIDATION)
        if data.manifest["head"] in {NEXT_ITEM, "multiclass"}:  # what training had not seen cannot be predicted
            examples = examples[data.target[examples] >= 0]
        self.arrays, self.plan = arrays, own_windows(data, examples)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return batches(self.arrays, self.plan, tokens=32_768, rows=1_024)
