"""The training batches of each epoch: which windows meet depends on seed and epoch alone, so it can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from training.augment import Augmentation, flat_windows
from training.batches import Arrays, Plan, like_windows, mixed_windows, plan, row_lengths
from training.config import FitConfig
from training.model import NEXT_ITEM
from training.training_set import TRAIN, TrainingSet


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which process of how many this is: each takes its share of the windows of each batch."""

    rank: int = 0
    world: int = 1


class TrainingEpochs:
    """Plans the windows of a training set once, their order and company anew each epoch."""

    def __init__(self, data: TrainingSet, config: FitConfig, seed: int) -> None:
        """Plan the windows; examples of items that training had not seen ask nothing."""
        self.data, self.config, self.seed = data, config, seed
        examples = data.of(TRAIN)
        if data.manifest["head"] == NEXT_ITEM:
            examples = examples[data.target[examples] >= 0]
        self.plan: Plan = plan(data, examples, share=True)
        self.augmentation = Augmentation.of(config.augment, data, self.plan)
        self.rows = row_lengths(self.plan, self.groups(0)) if config.packed else None

    def plan_of(self, epoch: int) -> Plan:
        """The windows of an epoch."""
        if self.augmentation is None:
            return self.plan
        return self.augmentation.plan(self.data, self.plan, np.random.default_rng([self.seed, 3, epoch]))

    def groups(self, epoch: int, plan: Plan | None = None) -> list[np.ndarray]:
        """The windows of each batch of an epoch; how many batches there are may change by a few.

        `plan`: of this epoch, where it is at hand.
        """
        rng = np.random.default_rng([self.seed, 2, epoch])
        windows = mixed_windows if self.config.packed else like_windows
        return windows(plan or self.plan_of(epoch), tokens=self.config.tokens, rows=self.config.rows, rng=rng)

    def epoch(self, number: int, arrays: Arrays, share: Share, begin: int = 0) -> EpochBatches:
        """The batches of an epoch, the first `begin` of them left out."""
        return EpochBatches(self, number, arrays, share, begin)


class EpochBatches:
    """Iterates over the batches of one epoch (see `Arrays.batch`).

    Where there are several processes a batch has `weight` too, a scalar by which the mean over this process's queries
    is multiplied, so that the mean over processes is the mean over all queries of the batch.
    """

    def __init__(self, source: TrainingEpochs, epoch: int, arrays: Arrays, share: Share, begin: int) -> None:
        """`begin`: the batches that are left out, which count in the length."""
        self.source, self.epoch, self.arrays, self.share, self.begin = source, epoch, arrays, share, begin
        self.plan = source.plan_of(epoch)
        self.groups = source.groups(epoch, self.plan)

    def __len__(self) -> int:
        """Batches of this epoch."""
        return len(self.groups)

    def events(self, place: int) -> int:
        """Real events of a batch, in all processes."""
        return int(self.plan.lengths[:, self.groups[place]].sum())

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """One batch after the other."""
        plan, (rank, world) = self.plan, (self.share.rank, self.share.world)
        for place in range(self.begin, len(self.groups)):
            group = self.groups[place]
            shared = 1 < world <= len(group)  # a batch too small to be shared is the same in all processes
            own = group[rank::world] if shared else group
            batch = self.arrays.batch(plan, own, self.source.rows)
            if self.source.augmentation is not None:
                rng = np.random.default_rng([self.source.seed, 4, self.epoch, place, rank if shared else 0])
                batch = self.source.augmentation.batch(batch, flat_windows(batch, plan, own), rng)
            if shared:
                batch["weight"] = torch.tensor(len(batch["example"]) * world / plan.queries[group].sum())
            yield batch
