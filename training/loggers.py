"""Where a fit writes its figures while it goes on: TensorBoard, and MLflow where MLFLOW_TRACKING_URI says so."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import RunConfig

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger, MLFlowLogger

_RUN_FILE = "mlflow_run_id"


def loggers(folder: Path, config: RunConfig, name: str) -> list[Logger]:
    """The loggers of a fit in `folder`; `name`: MLflow's experiment, unless MLFLOW_EXPERIMENT_NAME says another.

    Raises:
        ValueError: MLflow is asked for and not installed.
    """
    from pytorch_lightning.loggers import TensorBoardLogger

    out: list[Logger] = [TensorBoardLogger(folder, "tensorboard", "")]
    where = os.environ.get("MLFLOW_TRACKING_URI")
    if where:
        out.append(_mlflow(folder, config, os.environ.get("MLFLOW_EXPERIMENT_NAME") or name, where))
    return out


def _mlflow(folder: Path, config: RunConfig, name: str, where: str) -> MLFlowLogger:
    """MLflow's side of a fit; one that goes on after a kill goes on in the same MLflow run."""
    from pytorch_lightning.loggers import MLFlowLogger

    if find_spec("mlflow") is None:
        message = (
            f"MLFLOW_TRACKING_URI is {where!r}, but MLflow is not installed: "
            ".venv/bin/python -m pip install mlflow-skinny, or unset the variable"
        )
        raise ValueError(message)
    kept = folder / _RUN_FILE
    run = kept.read_text() if kept.is_file() else None
    logger = MLFlowLogger(name, run_name=folder.name.strip(".").removesuffix(".tmp"), tracking_uri=where, run_id=run)
    if run is None:
        logger.log_hyperparams(config.to_json())
        kept.write_text(str(logger.run_id))
    return logger


def log_result(folder: Path, figures: dict[str, Any]) -> None:
    """Give the figures of a finished run to the MLflow run of its fit, if there is one: nested ones as `model/auc`."""
    kept, where = folder / _RUN_FILE, os.environ.get("MLFLOW_TRACKING_URI")
    if not where or not kept.is_file():
        return
    from mlflow.tracking import MlflowClient

    client, run = MlflowClient(where), kept.read_text()
    for name, value in _numbers(figures).items():
        client.log_metric(run, name, value)


def _numbers(figures: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among nested figures, by path."""
    out: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            out |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            out[(prefix + name).replace("@", "_at_")] = float(value)  # MLflow's names know no @
    return out
