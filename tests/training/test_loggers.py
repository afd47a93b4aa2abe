"""Loggers: TensorBoard always, MLflow where it is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from training.loggers import log_result, loggers
from training.presets import preset

CONFIG = preset("small", "fraud")


def test_tensorboard_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable there is one logger, and a finished run tells nobody."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (one,) = loggers(tmp_path, CONFIG, "fraud")
    assert isinstance(one, TensorBoardLogger)
    log_result(tmp_path, {"model": {"auc": 0.8}})


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_mlflow_that_is_not_there_is_an_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets the variable wants it: training does not go on without."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ValueError, match="pip install mlflow-skinny"):
        loggers(tmp_path, CONFIG, "fraud")


def test_a_run_that_goes_on_goes_on_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run in a real store, with its configuration, the metrics of both parts and the figures of its end."""
    tracking = pytest.importorskip("mlflow.tracking")
    where = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    folder = tmp_path / ".0123.tmp"
    folder.mkdir()
    for step, value in enumerate((0.5, 0.6)):
        _, one = loggers(folder, CONFIG, "fraud")
        one.log_metrics({"val_metric": value}, step)
        one.finalize("success")
    log_result(folder, {"model": {"hit_rate@10": 0.25, "label": "no number"}, "beats": True})
    client = tracking.MlflowClient(where)
    (experiment,) = [one for one in client.search_experiments() if one.name == "fraud"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "0123"
    assert run.data.params["encoder/family"] == CONFIG.encoder.family
    assert [one.value for one in client.get_metric_history(run.info.run_id, "val_metric")] == [0.5, 0.6]
    assert run.data.metrics["model/hit_rate_at_10"] == 0.25
    assert set(run.data.metrics) == {"val_metric", "model/hit_rate_at_10"}
