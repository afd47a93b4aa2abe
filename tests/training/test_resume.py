"""A fit that is killed in the middle of an epoch ends where it would have ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.config import EncoderConfig, FitConfig, LossConfig, RunConfig
from training.fit import Fitted, fit
from training.training_set import TrainingSet, save

Sets = Callable[[str], TrainingSet]

KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from pytorch_lightning.callbacks import Callback
from training.config import RunConfig
from training.fit import fit
from training.training_set import load

class Killer(Callback):
    def on_train_batch_end(self, trainer, *others):
        if trainer.global_step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(int(sys.argv[4]))  # as many as the process that goes on: sums are the same to the bit
folder = Path(sys.argv[1])
config = RunConfig.from_json(json.loads(sys.argv[2]))
fit(load(folder / "set"), config, "ndcg@10", folder, accelerator="cpu", progress=False, callbacks=[Killer()])
"""

CONFIG = RunConfig(
    encoder=EncoderConfig(family="transformer", width=16, layers=1, heads=2, dropout=0.2),
    fit=FitConfig(
        epochs=3,
        tokens=1_000,
        rate=1e-2,
        average=0.9,
        checkpoint_seconds=1e-9,  # so before every batch
        loss=LossConfig(kind="sampled", negatives=16),
    ),
    head_width=16,
)


def weights(fitted: Fitted) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in fitted.model.parameters()])


@pytest.mark.slow
def test_killed_within_an_epoch_it_ends_in_the_same_weights(synthetic: Sets, tmp_path: Path) -> None:
    """After kill -9 within the second epoch weights and curves are the same to the bit as without.

    Dropout, drawn negatives, averaged weights, schedule and the order of batches all go on where they were.
    """
    data = synthetic("recommendation")
    save(data, tmp_path / "set")
    one_epoch = fit(data, CONFIG, "ndcg@10", tmp_path / "one", accelerator="cpu", max_epochs=1, progress=False)
    steps = int(one_epoch.curves["step"].iloc[-1])
    assert steps > 6
    words = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(CONFIG.to_json())]
    words += [str(steps + 4), str(torch.get_num_threads())]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert kept["place"] == {"epoch": 1, "batch": 3}  # the fourth had been done and was not yet kept

    resumed = fit(data, CONFIG, "ndcg@10", tmp_path, accelerator="cpu", progress=False)
    calm = replace(CONFIG, fit=replace(CONFIG.fit, checkpoint_seconds=0))
    undisturbed = fit(data, calm, "ndcg@10", tmp_path / "calm", accelerator="cpu", progress=False)
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert resumed.curves.equals(undisturbed.curves)
    ends = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False) for folder in (tmp_path, tmp_path / "calm")
    ]
    assert ends[0]["events_seen"] == ends[1]["events_seen"]
    for first, second in zip(ends[0]["other"], ends[1]["other"], strict=True):
        assert torch.equal(first, second)


def test_a_fit_that_had_ended_stays_so(synthetic: Sets, tmp_path: Path) -> None:
    """Stopped for want of patience and called again, a fit does no further step and gives the same."""
    data = synthetic("fraud")
    config = replace(CONFIG, fit=replace(CONFIG.fit, epochs=20, patience=1, rate=0.0))
    first = fit(data, config, "average_precision", tmp_path, accelerator="cpu", progress=False)
    assert first.epochs == 2  # the second brought nothing better
    again = fit(data, config, "average_precision", tmp_path, accelerator="cpu", progress=False)
    assert again.curves.equals(first.curves)
    assert torch.equal(weights(again), weights(first))
