"""A golden loss curve: a refactor of encoders, losses, batches or the optimiser must reproduce these losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from training.config import EncoderConfig, Family, FitConfig, LossConfig, RunConfig
from training.fit import fit
from training.training_set import TrainingSet

Sets = Callable[[str], TrainingSet]

GOLDEN = Path(__file__).parent / "golden"
STEPS = 20
CASES: dict[str, tuple[Family, LossConfig, bool]] = {
    "recommendation": ("transformer", LossConfig(kind="full"), True),
    "fraud": ("gru", LossConfig(), False),
}


class Losses(Callback):
    """The loss of each step, from weights that are the same on every machine (torch's own draws are not)."""

    def __init__(self) -> None:
        """Nothing found yet."""
        self.found: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Matrices by numpy; vectors that are not constant are zero."""
        del trainer
        rng = np.random.default_rng(0)
        for parameter in pl_module.parameters():
            weight = parameter.data
            if weight.ndim > 1:
                weight.copy_(torch.from_numpy(rng.normal(0, 0.1, tuple(weight.shape))))
            elif weight.min() != weight.max():
                weight.zero_()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: object,
        batch_idx: int,
    ) -> None:
        """Note it."""
        del trainer, pl_module, batch, batch_idx
        self.found.append(float(outputs["loss"]))


@pytest.mark.parametrize("task", CASES)
def test_the_first_losses_are_golden(task: str, synthetic: Sets, tmp_path: Path) -> None:
    """The first 20 losses on a fixed set are those in golden/, to a relative 1e-5 (no dropout: its draws differ)."""
    family, loss, packed = CASES[task]
    config = RunConfig(
        encoder=EncoderConfig(family=family, width=16, layers=2, heads=2, dropout=0.0),
        fit=FitConfig(epochs=10, tokens=1_000, rate=1e-2, average=0.99, packed=packed, loss=loss),
        head_width=16,
        head_dropout=0.0,
    )
    losses = Losses()
    data, metric = synthetic(task), "ndcg@10" if task == "recommendation" else "average_precision"
    fit(data, config, metric, tmp_path, accelerator="cpu", max_steps=STEPS, progress=False, callbacks=[losses])
    file = GOLDEN / f"{task}.json"
    golden = json.loads(file.read_text()) if file.is_file() else []
    if losses.found != pytest.approx(golden, rel=1e-5):
        new = tmp_path / file.name
        new.write_text(json.dumps(losses.found, indent=1) + "\n")
        pytest.fail(
            f"the losses are no longer those of {file.name}: {losses.found[:3]} ..., were {golden[:3]} ... "
            f"If that is meant (another model, loss, optimiser or order of batches), say why in the commit and renew "
            f"them: cp {new} {file.relative_to(Path.cwd())}"
        )
