"""ONNX Runtime against torch on the CPU, for what a service does with a model: size, start, latency.

    python -m benchmarks.serving_runtime

The same next-item model (transformer, d = 64, two blocks, sequences of 50, 10,000 items, weights by chance) is run by
training's own code in eager torch and by its export. Each runtime has its own process with one thread, and they take
turns, so that noise meets both. Start: from the process's beginning to its first answer, imports and loading within.
Size: the files of the packages that a service needs, with the one runtime or the other, without compiled bytecode.
The last line is one JSON object; megabytes are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import distribution, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from clicktrail.encoding import Encoding
    from training.model import SequenceModel

RUNTIMES = ("onnx", "torch")
BATCHES = (1, 32)
ITEMS, LENGTH, WIDTH, BLOCKS = 10_000, 50, 64, 2

_VIEW = "user_recent_v1"
_TYPES = ("view", "cart", "purchase")

Answer = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5, help="starts of each runtime")
    parser.add_argument("--rounds", type=int, default=10, help="turns that each takes at each batch size")
    parser.add_argument("--answer", choices=RUNTIMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        figures = environments() | measure(Path(folder), options.starts, options.rounds)
    for name, figure in figures.items():
        print(f"{name:>20}  {figure}")
    print(json.dumps(figures))


# ---- size


def environments() -> dict[str, float]:
    """Megabytes of a service's packages with ONNX Runtime, and with torch in its place."""
    from serving.build import CHECKOUT, ENTRIES
    from serving.sources import needed

    requirements = needed(CHECKOUT, ENTRIES).requirements
    others = [one for one in requirements if not one.startswith("onnxruntime==")]
    return {
        "environment_mb": round(megabytes(requirements), 1),
        "torch_environment_mb": round(megabytes([*others, f"torch=={version('torch').partition('+')[0]}"]), 1),
    }


def megabytes(requirements: list[str]) -> float:
    """What the packages and all that they need occupy where they are installed here."""
    from serving.bill_of_materials import closure

    return sum(_size(name) for name in closure(requirements)) / 1e6


def _size(package: str) -> int:
    files = [Path(str(one.locate())) for one in distribution(package).files or () if one.suffix != ".pyc"]
    return sum(path.stat().st_size for path in files if path.is_file())


# ---- the model


def encoding() -> Encoding:
    """As training would fit it: every item known, prices in quantiles."""
    from clicktrail.encoding import Encoding
    from clicktrail.input_spec import InputSpec, SequenceSpec
    from clicktrail.rows import rows_of_lists

    sequence = SequenceSpec(
        view=_VIEW, last=LENGTH, categories=("item_id", "event_type"), numbers=("price_minor",), rise=True
    )
    spec = InputSpec(sequences=(sequence,))
    views, t = histories(32)
    rows = rows_of_lists(spec, views, {}, t)
    return Encoding.fit(spec, rows, more={"item_id": tuple(f"i{one}" for one in range(ITEMS))})


def histories(users: int) -> tuple[dict[str, dict[str, list[Any]]], np.ndarray]:
    """Full sequences of so many users: view -> feature -> lists, and read times."""
    rng = np.random.default_rng(0)
    t = 1_772_000_000_000_000
    shape = (users, LENGTH)
    return {
        _VIEW: {
            "item_id": [[f"i{one}" for one in row] for row in rng.integers(0, ITEMS, shape)],
            "event_type": [[_TYPES[one] for one in row] for row in rng.integers(0, len(_TYPES), shape)],
            "price_minor": rng.integers(100, 100_000, shape).tolist(),
            "event_timestamp": (t - np.sort(rng.integers(1, 10**12, shape))[:, ::-1]).tolist(),
        }
    }, np.full(users, t, np.int64)


def model(fitted: Encoding) -> SequenceModel:
    """The model of `training`, weights by chance."""
    import torch

    from training.config import EncoderConfig, RunConfig
    from training.model import NEXT_ITEM, SequenceModel

    torch.manual_seed(0)
    config = RunConfig(encoder=EncoderConfig(family="transformer", width=WIDTH, layers=BLOCKS))
    return SequenceModel(config, fitted, NEXT_ITEM, facts=np.zeros((ITEMS, 1), np.int64)).eval()


def write_model(folder: Path) -> None:
    """Leave what both runtimes load, and what they are asked."""
    import torch

    from training.export import write_onnx

    fitted = encoding()
    built = model(fitted)
    write_onnx(built, fitted, folder / "model.onnx")
    torch.save(built.state_dict(), folder / "weights.pt")
    (folder / "encoding.json").write_text(json.dumps(fitted.to_json()))
    for batch in BATCHES:
        views, t = histories(batch)
        arrays: dict[str, Any] = fitted.encode_lists(views, {}, t)
        np.savez(folder / f"asked_{batch}.npz", **arrays)


# ---- a runtime in its own process


def answer(runtime: str, folder: Path) -> None:
    """Load, answer once, say so; then for each batch size on stdin, say the median milliseconds of an answer."""
    asked = {batch: dict(np.load(folder / f"asked_{batch}.npz")) for batch in BATCHES}
    run = {"onnx": _onnx, "torch": _torch}[runtime](folder)
    print(json.dumps(run(asked[1])[0, :4].tolist()), flush=True)
    for line in sys.stdin:
        arrays = asked[int(line)]
        took: list[float] = []
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until or not took:
            began = time.perf_counter()
            run(arrays)
            took.append((time.perf_counter() - began) * 1000)
        print(median(took), flush=True)


def _onnx(folder: Path) -> Answer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda arrays: session.run(None, {name: arrays[name] for name in names})[0]


def _torch(folder: Path) -> Answer:
    import torch

    from clicktrail.encoding import Encoding
    from training.model import ServedModel

    torch.set_num_threads(1)
    fitted = Encoding.from_json(json.loads((folder / "encoding.json").read_text()))
    built = model(fitted)
    built.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    names = list(fitted.inputs())
    served = ServedModel(built, names).eval()

    def run(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return served(*(torch.from_numpy(arrays[name]) for name in names)).numpy()

    return run


# ---- both, in turns


def measure(folder: Path, starts: int, rounds: int) -> dict[str, float]:
    """Seconds of a start and milliseconds of an answer; ends with an error where the two answer differently."""
    took: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    for _ in range(starts):
        for name in RUNTIMES:
            began = time.perf_counter()
            with _running(name, folder):
                took[name].append(time.perf_counter() - began)
    figures = {f"{name}_start_s": round(median(took[name]), 2) for name in RUNTIMES}
    with ExitStack() as both:
        processes = {name: both.enter_context(_running(name, folder)) for name in RUNTIMES}
        onnx, torch = (np.array(answered) for _, answered in processes.values())
        if not np.allclose(onnx, torch, atol=1e-4):
            message = f"the runtimes answer differently: {onnx} and {torch}"
            raise RuntimeError(message)
        for batch in BATCHES:
            turns = [{name: _ask(process, batch) for name, (process, _) in processes.items()} for _ in range(rounds)]
            figures |= {f"{name}_ms_{batch}": round(median(one[name] for one in turns), 3) for name in RUNTIMES}
    return figures


@contextmanager
def _running(runtime: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[float]]]:
    """A process that has answered once, and its answer."""
    command = [sys.executable, "-m", "benchmarks.serving_runtime", "--answer", runtime, "--folder", str(folder)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
        yield process, json.loads(process.stdout.readline() or "[]")
        if process.stdin is not None:
            process.stdin.close()  # it ends


def _ask(process: subprocess.Popen[str], batch: int) -> float:
    assert process.stdin is not None  # noqa: S101 - pipes, as asked for
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(f"{batch}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


if __name__ == "__main__":
    main()
