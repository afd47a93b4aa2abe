"""What the benchmark of training speed trains on: each user's last events, so that a window holds all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.sequential_data import OUTSIDE, Interactions, leave_one_out
from benchmarks.sequential_set import training_set
from training.baselines import subsample
from training.training_set import TEST, VALIDATION, TrainingSet


def last_events(data: Interactions, length: int) -> Interactions:
    """Each user's last events: `length` with a target each in training, one for validation, one for test."""
    left = data.first[data.user + 1] - np.arange(len(data.user)) - 1
    kept = left < length + 3
    return replace(data, user=data.user[kept], item=data.item[kept])


def speed_set(data: Interactions, length: int, validation: int) -> TrainingSet:
    """Leave-one-out examples of `last_events`; few validation ones, since validating is not what is timed."""
    split = leave_one_out(data, refit=False)
    judges = np.flatnonzero(split == VALIDATION)
    split[np.setdiff1d(judges, judges[subsample(len(judges), validation, 0)])] = OUTSIDE
    return training_set(data, split, length)


def train_range(data: Interactions) -> pd.DataFrame:
    """The rows of `last_events` that training may see, as RecTools reads them: `user_id`, `item_id`, `position`."""
    split = leave_one_out(data, refit=False)
    place = np.flatnonzero((split != VALIDATION) & (split != TEST))
    user = data.user[place]
    return pd.DataFrame({"user_id": user, "item_id": data.item[place], "position": place - data.first[user]})
