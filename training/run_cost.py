"""The cost of a run, from what its fit left: counts one real step, measures what the machine can do."""

from __future__ import annotations

from typing import Any

import torch

from training.batches import Arrays
from training.config import RunConfig
from training.cost import cost, count, product_rate
from training.energy import EnergyMeter
from training.epochs import Share
from training.fit import Accelerator, Fitted
from training.lightning_module import SequenceTask
from training.training_set import TrainingSet


def on_gpu(accelerator: Accelerator) -> bool:
    """Whether a fit runs on a GPU."""
    return accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())


def meter_of(accelerator: Accelerator) -> EnergyMeter:
    """A meter for a run; a GPU's power is asked for where the driver's library is there."""
    if not on_gpu(accelerator):
        return EnergyMeter()
    try:
        torch.cuda.power_draw()
    except (ModuleNotFoundError, RuntimeError):  # without nvidia-ml-py the GPU's share stays unknown
        return EnergyMeter()
    return EnergyMeter(gpu_watts=lambda: torch.cuda.power_draw() / 1_000)


def cost_of(
    fitted: Fitted,
    data: TrainingSet,
    config: RunConfig,
    meter: EnergyMeter,
    *,
    seconds: float,
    accelerator: Accelerator = "auto",
) -> dict[str, Any]:
    """What a run cost, for metrics.json (see `training.cost.Cost`).

    Args:
        fitted: its fit.
        data: its training set.
        config: its configuration.
        meter: has measured since the run began, or was last gone on with; closed here.
        seconds: of the run so far.
        accelerator: that it ran on.
    """
    task = SequenceTask(fitted.model, data, config.fit, "", config.seed).train()
    batches = task.epochs.epoch(0, Arrays(data), Share())
    batch = next(iter(batches))
    step = count(lambda: task.loss(batch, (0, 0)))
    fitted.model.eval().zero_grad(set_to_none=True)
    gpu = on_gpu(accelerator)
    rate = product_rate(step.products, torch.device("cuda" if gpu else "cpu"), torch.bfloat16 if gpu else torch.float32)
    joules, energy = meter.read()
    meter.close()
    return cost(
        seconds=seconds,
        events=fitted.events,
        events_per_second=fitted.tokens_per_second,
        parameters=sum(weight.numel() for weight in fitted.model.parameters()),
        step=step,
        step_events=batches.events(0),
        rate=rate,
        joules=joules,
        energy=energy,
    ).to_json()
