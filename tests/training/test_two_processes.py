"""Several processes that share each batch do what one would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.config import EncoderConfig, FitConfig, LossConfig, RunConfig
from training.fit import fit
from training.training_set import TrainingSet

Sets = Callable[[str], TrainingSet]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(synthetic: Sets, tmp_path: Path) -> None:
    """Weights, curves and counted events are the same to 1e-5, with drawn negatives and batches of uneven halves."""
    data = synthetic("recommendation")
    config = RunConfig(
        encoder=EncoderConfig(family="transformer", width=16, layers=1, heads=2, dropout=0.0),
        fit=FitConfig(
            epochs=2, tokens=1_000, rate=1e-3, average=0.9, loss=LossConfig(kind="sampled", negatives=16), patience=0
        ),
        head_width=16,
        head_dropout=0.0,
    )
    one, two = (
        fit(data, config, "ndcg@10", tmp_path / str(devices), accelerator="cpu", devices=devices, progress=False)
        for devices in (1, 2)
    )
    for (name, first), second in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert two.curves["train_loss"].tolist() == pytest.approx(one.curves["train_loss"].tolist(), rel=1e-5)
    assert two.events == one.events
