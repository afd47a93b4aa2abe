"""The training batches of each epoch: which windows meet depends on seed and epoch alone, so it can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

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
        self.config, self.seed = config, seed
        examples = data.of(TRAIN)
        if data.manifest["head"] == NEXT_ITEM:
            examples = examples[data.target[examples] >= 0]
        self.plan: Plan = plan(data, examples, share=True)
        self.rows = row_lengths(self.plan, self.groups(0)) if config.packed else None

    def groups(self, epoch: int) -> list[np.ndarray]:
        """The windows of each batch of an epoch; how many batches there are may change by a few."""
        rng = np.random.default_rng([self.seed, 2, epoch])
        windows = mixed_windows if self.config.packed else like_windows
        return windows(self.plan, tokens=self.config.tokens, rows=self.config.rows, rng=rng)

    def epoch(self, number: int, arrays: Arrays, share: Share, begin: int = 0) -> EpochBatches:
        """The batches of an epoch, the first `begin` of them left out."""
        return EpochBatches(self, self.groups(number), arrays, share, begin)


class EpochBatches:
    """Iterates over the batches of one epoch (see `Arrays.batch`).

    Where there are several processes a batch has `weight` too, a scalar by which the mean over this process's queries
    is multiplied, so that the mean over processes is the mean over all queries of the batch.
    """

    def __init__(
        self, source: TrainingEpochs, groups: list[np.ndarray], arrays: Arrays, share: Share, begin: int
    ) -> None:
        """`groups`: the windows of each batch; `begin`: the batches that are left out, which count in the length."""
        self.source, self.groups, self.arrays, self.share, self.begin = source, groups, arrays, share, begin

    def __len__(self) -> int:
        """Batches of this epoch."""
        return len(self.groups)

    def events(self, place: int) -> int:
        """Real events of a batch, in all processes."""
        return int(self.source.plan.lengths[:, self.groups[place]].sum())

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """One batch after the other."""
        plan, (rank, world) = self.source.plan, (self.share.rank, self.share.world)
        for group in self.groups[self.begin :]:
            shared = 1 < world <= len(group)  # a batch too small to be shared is the same in all processes
            batch = self.arrays.batch(plan, group[rank::world] if shared else group, self.source.rows)
            if shared:
                batch["weight"] = torch.tensor(len(batch["example"]) * world / plan.queries[group].sum())
            yield batch
