"""Fit: it learns, it goes on where it was killed, and it needs neither Feast nor DuckDB."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import FAMILIES, Family, FitConfig, RunConfig
from training.fit import fit
from training.gpu_check import check
from training.presets import PRESETS, preset
from training.scoring import predict, rank_of
from training.task import task_names
from training.training_set import TEST, TrainingSet, load, save

Sets = Callable[[str], TrainingSet]


def quick(task: str, family: Family = "gru", epochs: int = 12) -> RunConfig:
    """A configuration that learns the synthetic sets in a second or two."""
    config = preset("small", task, encoder=family)
    return replace(config, fit=FitConfig(epochs=epochs, tokens=4_096, rows=64, rate=1e-2, patience=0))


def test_a_model_learns_the_next_item(synthetic: Sets, tmp_path: Path) -> None:
    """In data where an item is followed by the next one, the model names it far above chance (3 of 30)."""
    data = synthetic("recommendation")
    fitted = fit(data, quick("recommendation"), "ndcg@10", tmp_path, accelerator="cpu", progress=False)
    rank = predict(fitted.model, data, data.of(TEST))["rank"]
    assert (rank <= 3).mean() > 0.5
    assert list(fitted.curves.columns) == ["step", "epoch", "train_loss", "val_loss", "val_metric"]
    assert len(fitted.curves) == fitted.epochs == 12


def test_the_same_seed_gives_the_same_model(synthetic: Sets, tmp_path: Path) -> None:
    """Two fits with one seed end in the same weights to the bit; another seed ends elsewhere."""
    data = synthetic("fraud")

    def weights(seed: int, folder: str) -> torch.Tensor:
        config = replace(quick("fraud", epochs=1), seed=seed)
        model = fit(data, config, "average_precision", tmp_path / folder, accelerator="cpu", progress=False).model
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    first = weights(0, "a")
    assert torch.equal(first, weights(0, "b"))
    assert not torch.equal(first, weights(1, "c"))


def test_a_killed_fit_goes_on(synthetic: Sets, tmp_path: Path) -> None:
    """A fit that ended after two epochs goes on from its last checkpoint and counts on, curves included."""
    data, config = synthetic("fraud"), quick("fraud", epochs=4)
    fit(data, config, "average_precision", tmp_path, accelerator="cpu", progress=False, max_epochs=2)
    fitted = fit(data, config, "average_precision", tmp_path, accelerator="cpu", progress=False)
    assert fitted.epochs == 4
    assert fitted.curves["epoch"].tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_the_gpu_path_runs_on_a_cpu() -> None:
    """bf16 autocast and compiled steps train, evaluate and export on a CPU too, and the figures add up."""
    found = check("cpu", steps=3, width=16, layers=1, users=60)
    assert found["exported"]
    assert found["mfu"] is None  # what this machine could do at best is not known
    assert found["achieved_tflops"] == pytest.approx(
        found["tokens_per_second"] * found["flops_per_token"] / 1e12, abs=1e-4
    )


def test_ranks_count_ties_against_the_model() -> None:
    """Equal scores share the worst rank, and an item that the model does not know ranks past the last one."""
    scores = torch.tensor([[3.0, 3.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0]])
    assert rank_of(scores, torch.tensor([0, 2, -1])).tolist() == [2, 3, 3 + 1]


def test_every_preset_is_a_configuration() -> None:
    """Each preset gives a configuration for each task that survives JSON."""
    for name in PRESETS:
        for task in task_names():
            for family in FAMILIES:
                config = preset(name, task, encoder=family, seed=5)
                assert RunConfig.from_json(config.to_json()) == config


def test_a_training_set_survives_the_disk(synthetic: Sets, tmp_path: Path) -> None:
    """What is loaded is what was saved, and a changed file is refused by name."""
    data = synthetic("recommendation")
    save(data, tmp_path / "set")
    again = load(tmp_path / "set")
    assert again.items is not None
    assert again.items.equals(data.items)
    np.testing.assert_array_equal(again.target, data.target)
    for view, tokens in data.tokens.items():
        np.testing.assert_array_equal(again.tokens[view].ids, tokens.ids)
    with (tmp_path / "set" / "request_ids.npy").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(ValueError, match=r"request_ids\.npy changed"):
        load(tmp_path / "set")


def test_equal_content_has_an_equal_digest(synthetic: Sets, tmp_path: Path) -> None:
    """The digest is of content: saved twice, it is the same."""
    data = synthetic("retention")
    assert save(data, tmp_path / "a")["digest"] == save(data, tmp_path / "b")["digest"]


@pytest.mark.slow
def test_the_fit_needs_no_feast(synthetic: Sets, tmp_path: Path) -> None:
    """Loading a training set and fitting it imports neither Feast, DuckDB, scikit-learn nor ONNX."""
    save(synthetic("fraud"), tmp_path / "set")
    code = f"""
import sys
for name in ("feast", "duckdb", "sklearn", "onnx", "onnxruntime", "bentoml", "great_expectations"):
    sys.modules[name] = None
from pathlib import Path
from training.fit import fit
from training.gpu_check import check
from training.presets import preset
from training.training_set import load
fit(load(Path({str(tmp_path / "set")!r})), preset("small", "fraud"), "average_precision", Path({str(tmp_path)!r}),
    accelerator="cpu", max_steps=2, progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
