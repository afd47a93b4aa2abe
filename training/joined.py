"""What joins the network of a run: boosted trees in a binary task, simple recommenders in a next-item task.

Each is fitted apart on the training range, and validation chooses what it has to say. What each part is worth alone
stands in metrics.json under `parts`, and its own answers in columns `part_<name>` of predictions.parquet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.blended import COVISITS, Blended, blend_on_validation
from training.boosted import add_trees, alone
from training.config import RunConfig
from training.model import BINARY, NEXT_ITEM, SequenceModel
from training.parts import PART, Parts
from training.run_baselines import ranking_examples, run_baseline
from training.scoring import predict
from training.task import Task
from training.training_set import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Joined:
    """`parts`: of what the model is made, None where nobody was asked to join; `blended`: the recommenders that did."""

    parts: Parts | None = None
    blended: Blended | None = None

    def predict(self, model: SequenceModel, data: TrainingSet, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The answers of all together as `training.scoring.predict` gives them, and `part_<name>` of each alone."""
        if self.blended is not None:
            found = self.blended.predict(model, data, examples)
            parts = self.blended.blend.weights
            return {PART + name if name in parts else name: values for name, values in found.items()}
        own = alone(model, data, examples)
        return predict(model, data, examples) | {PART + name: values for name, values in own.items()}

    def baseline(self, name: str, data: TrainingSet, examples: np.ndarray) -> np.ndarray:
        """As `training.run_baselines.run_baseline`; what was fitted for the blend already is not fitted again."""
        if self.blended is not None and name == COVISITS:
            return self.blended.companions.whole.ranks(ranking_examples(data, examples))
        return run_baseline(name, data, examples)


def join(
    task: Task,
    data: TrainingSet,
    config: RunConfig,
    model: SequenceModel,
    say: Callable[[str], None],
    *,
    progress: bool = False,
) -> Joined:
    """Ask who may join the fitted network; trees become part of it. `progress`: show a bar where that takes long."""
    if not config.hybrid or task.head not in {BINARY, NEXT_ITEM}:
        return Joined()
    blended = None
    if task.head == BINARY:
        parts = add_trees(model, data, task.primary_metric, seed=config.seed)
    else:
        blended = blend_on_validation(model, data, task.primary_metric, progress=progress)
        parts = blended.parts
    shares = ", ".join(f"{name} {share:.0%}" for name, share in parts.weights.items())
    worth = ", ".join(f"{name} {value:.4f}" for name, value in parts.validation.items())
    say(f"{task.name}: {shares} of the say; validation {task.primary_metric}: {worth}")
    return Joined(parts=parts, blended=blended)
