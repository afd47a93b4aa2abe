"""Train, evaluate and export on a GPU, and say how fast: `python -m training.gpu_check`.

Prints tokens/s and MFU (model FLOP utilisation: useful arithmetic as a share of what the device could do). Where there
is no GPU it says so and stops; `--accelerator cpu --steps 3` takes the same path (bf16, compiled steps) through a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clicktrail.encoding import Encoding
from clicktrail.input_spec import InputSpec, SequenceSpec
from clicktrail.jagged import JaggedSequence
from clicktrail.rows import Rows
from training.config import EncoderConfig, FitConfig, LossConfig, RunConfig
from training.training_set import TrainingSet

_DAY = 86_400_000_000
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40": 181.0, "L4": 121.0, "V100": 125.0, "T4": 65.0}
"""Dense bf16 (fp16 where there is no bf16) arithmetic that makers state, without sparsity."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 also where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m training.gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accelerator", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps that are timed")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--length", type=int, default=200, help="events of a window")
    parser.add_argument("--negatives", type=int, default=512)
    parser.add_argument("--users", type=int, default=10_000)
    given = parser.parse_args(arguments)
    import torch

    if given.accelerator == "gpu" and not torch.cuda.is_available():
        _say(
            "gpu-check: no GPU here (torch sees none): nothing was checked. "
            "The same path through a CPU: python -m training.gpu_check --accelerator cpu --steps 3"
        )
        return 0
    sizes = {"width": given.width, "layers": given.layers, "length": given.length, "negatives": given.negatives}
    found = check(given.accelerator, steps=given.steps, users=given.users, **sizes)
    for name, value in found.items():
        _say(f"{name:>20}: {value}")
    _say(json.dumps(found))
    return 0


def check(
    accelerator: str, *, steps: int, width: int, layers: int, users: int, length: int = 200, negatives: int = 512
) -> dict[str, Any]:
    """Fit, evaluate and export a transformer on made-up histories; gives the figures."""
    import torch

    from training.export import export
    from training.fit import fit
    from training.scoring import predict
    from training.training_set import TEST

    data = synthetic_set(users=users, events=2 * length, items=min(2_000, max(30, users)), last=length // 2)
    config = RunConfig(
        preset="gpu-check",
        encoder=EncoderConfig(family="transformer", width=width, layers=layers, heads=max(1, width // 64), dropout=0.0),
        fit=FitConfig(
            epochs=1_000,
            tokens=65_536,
            rows=65_536,
            rate=1e-3,
            patience=0,
            loss=LossConfig(kind="sampled", negatives=negatives),
        ),
        head_width=width,
        head_dropout=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        if (
            accelerator == "gpu"
        ):  # the first steps compile: a fit of their own, so that the timed one finds them compiled
            warm = Path(folder) / "warm"
            fit(data, config, "ndcg@10", warm, accelerator="gpu", compiled=True, max_steps=20, progress=False)
        fitted = fit(
            data,
            replace(config, seed=1),
            "ndcg@10",
            Path(folder) / "timed",
            accelerator=_of(accelerator),
            precision="bf16-mixed",
            compiled=True,
            max_steps=steps,
            progress=False,
        )
        rank = predict(fitted.model, data, data.of(TEST)[:2_000])["rank"]
        export(fitted.model, data, Path(folder) / "export")
    flops = flops_per_token(config, length)
    device = torch.cuda.get_device_name() if accelerator == "gpu" else "cpu"
    peak = next((value for name, value in PEAK_TFLOPS.items() if name in device), None)
    achieved = fitted.tokens_per_second * flops / 1e12
    return {
        "device": device,
        "tokens_per_second": round(fitted.tokens_per_second),
        "flops_per_token": flops,
        "achieved_tflops": round(achieved, 4),
        "peak_tflops": peak,
        "mfu": None if peak is None else round(achieved / peak, 4),
        "hit_rate@10": round(float((rank <= 10).mean()), 4),  # noqa: PLR2004 - the metric's own number
        "exported": True,
    }


def flops_per_token(config: RunConfig, length: int) -> int:
    """Useful arithmetic of a step by event: 6 x weights that multiply (2 forward, 4 backward), attention, loss.

    Attention over L events of width D costs 12 x L x D a layer in both directions, half of it where it is causal. Each
    event's query is held against its target and the shared negatives.
    """
    width, layers = config.encoder.width, config.encoder.layers
    return 6 * (12 * width * width * layers) + 6 * length * width * layers + 6 * config.fit.loss.negatives * width


def synthetic_set(*, users: int, events: int, items: int, last: int = 50) -> TrainingSet:
    """Histories in which an item is mostly followed by the next one, asked after every event.

    Queries share windows of twice `last` events.
    """
    rng = np.random.default_rng(0)
    total = users * events
    steps = rng.choice([1, 1, 1, 2, 5], (users, events))
    item = ((rng.integers(0, items, (users, 1)) + np.cumsum(steps, 1)) % items).ravel()
    time = (np.sort(rng.integers(0, 90 * _DAY, (users, events)), 1)).ravel()
    user = np.repeat(np.arange(users), events)
    asked = np.flatnonzero(np.arange(total) % events)
    sequence = JaggedSequence(
        values={"item_id": item, "event_timestamp": time},
        dictionaries={"item_id": [f"item-{one}" for one in range(items)]},
        nulls={},
        starts=user[asked] * events,
        ends=asked,
    )
    spec = InputSpec(sequences=(SequenceSpec(view="history", last=last, categories=("item_id",)),))
    rows = Rows(sequences={"history": sequence}, scalars={}, request={}, t=time[asked])
    encoding = Encoding.fit(spec, rows)
    names = encoding.vocabularies["item_id"]
    target = encoding.codes("item_id", [f"item-{one}" for one in item[asked]]) - 2
    ids, numbers = encoding.request(rows)
    split = np.zeros(len(asked), np.int8)
    split[user[asked] % 20 == 0], split[user[asked] % 20 == 1] = 1, 2
    return TrainingSet(
        manifest={
            "task": "gpu-check",
            "head": "next_item",
            "feature_service": "none",
            "declarations": [],
            "log_offset": 0,
            "events": total,
            "digest": "synthetic",
        },
        encoding=encoding,
        tokens={"history": encoding.tokens("history", rows)},
        request_ids=ids,
        request_numbers=numbers,
        target=np.maximum(target, -1),
        split=split,
        t=time[asked],
        entity=user[asked],
        example_id=pa.array([str(one) for one in asked]),
        scalars=pa.table({"group": user[asked]}),
        items=pa.table(
            {"item_id": pa.array(names), "popularity": np.bincount(target[target >= 0], minlength=len(names))}
        ),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _of(accelerator: str) -> Any:  # noqa: ANN401 - a literal of fit
    return accelerator


if __name__ == "__main__":
    sys.exit(main())
