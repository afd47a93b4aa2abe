"""How fast a training step is: real events a second, against the machine's matrix products and against RecTools.

    python -m benchmarks.training_speed --data FILE

FILE has `user_id`, `item_id`, `position`, one row an interaction. What is trained is a causal transformer (d = 64, two
blocks, the last 50 events, 256 negatives that all queries share, dropout .2, AdamW) for one epoch through
`training.fit`: packed rows, and padded ones among windows of like length. RecTools' SASRec of the same size, in an
environment of its own that is made under var/bench at the first run, trains some batches by its own loop, once with
its default loss (softmax over all items) and once with 256 sampled negatives. Each has its own process with two
threads; they take turns, and medians are given. A padded position is no work done and does not count.

`share_of_gemm_rate`: the floating point operations of a step's matrix products (attention's within rows left out, of
what is computed for padding nothing counted) by the time of the step, over the rate at which the same products run one
after the other with nothing between them, measured in turn with the rest.

`turns.parquet` (each turn) and `predictions.parquet` (test users after one epoch: target and ranked top 100) are left
in --out. The last line is one JSON object; megabytes are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.sequential_data import Interactions, read
from benchmarks.training_speed_set import last_events, speed_set, train_range
from clicktrail.publish import publish_file
from clicktrail.settings import load
from training.training_set import save

LENGTH, WIDTH, BLOCKS, NEGATIVES, DROPOUT, THREADS = 50, 64, 2, 256, 0.2, 2
RECTOOLS = "0.19.0"
_VALIDATION = 200
LOSSES = ("softmax", "sampled_softmax")
PUBLISHED = {"probe, padded (measured 2026-11)": "13,000-17,500", "RecTools SASRec (measured 2026-11)": "598"}

Turn = dict[str, float]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7, help="turns of ours; RecTools has every third")
    parser.add_argument("--batches", type=int, default=6, help="of RecTools, a turn")
    parser.add_argument("--no-rectools", action="store_true", help="leave it out, for work on our own step")
    parser.add_argument("--out", type=Path, default=load().home / "bench" / "training_speed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = last_events(read(options.data, "position"), LENGTH)
        commands = own_commands(data, Path(folder), options.out)
        if not options.no_rectools:
            commands |= rectools_commands(data, Path(folder), options.out.parent, options.batches)
        turns = take_turns(commands, options.rounds)
    rows = [{"who": who, "turn": place} | one for who, taken in turns.items() for place, one in enumerate(taken)]
    publish_file(options.out / "turns.parquet", lambda path: pq.write_table(pa.Table.from_pylist(rows), path), "bench")
    print(as_table(turns))
    print(json.dumps(figures(turns)))


# ---- who takes part


def own_commands(data: Interactions, folder: Path, out: Path) -> dict[str, list[str]]:
    """Our processes: packed, padded, and the products alone; they load the training set that is left in `folder`."""
    save(speed_set(data, LENGTH, _VALIDATION), folder / "set")
    pq.write_table(pa.table({"user_id": data.users}), folder / "users.parquet")
    start = [sys.executable, "-m", "benchmarks.training_speed_turns", "--set", str(folder / "set")]
    predicted = ["--users", str(folder / "users.parquet"), "--predictions", str(out / "predictions.parquet")]
    kinds = {"packed": predicted, "padded": [], "products": []}
    return {kind: [*start, "--kind", kind, *more] for kind, more in kinds.items()}


def rectools_commands(data: Interactions, folder: Path, home: Path, batches: int) -> dict[str, list[str]]:
    """RecTools, once with each loss."""
    python = rectools_python(home / "rectools-env")
    train_range(data).to_csv(folder / "train.csv", index=False)  # it has no pyarrow
    sizes = {"width": WIDTH, "blocks": BLOCKS, "length": LENGTH, "negatives": NEGATIVES, "threads": THREADS}
    given = {"data": folder / "train.csv", "dropout": DROPOUT, "batches": batches, **sizes}
    start = [str(python), str(Path(__file__).with_name("training_speed_rectools.py"))]
    start += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return {f"rectools {loss}": [*start, "--loss", loss] for loss in LOSSES}


def rectools_python(folder: Path) -> Path:
    """The interpreter of RecTools' environment, which is made unless it is there, with our torch's version."""
    wanted = [f"rectools[torch]=={RECTOOLS}", f"torch=={version('torch').partition('+')[0]}"]
    stamp = folder / "holds.txt"
    if not stamp.is_file() or stamp.read_text().splitlines() != wanted:
        print(f"making {folder} for RecTools: a minute or two", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
        stamp.write_text("\n".join(wanted))
    return folder / "bin" / "python"


# ---- turns


def take_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Turn]]:
    """Each process's answers, in turn; the first of each, in which memory is got and caches fill, does not count."""
    turns: dict[str, list[Turn]] = {who: [] for who in commands}
    order = [who for place in range(rounds + 1) for who in commands if place % 3 == 0 or not who.startswith("rectools")]
    with ExitStack() as all_of_them:
        processes = {who: all_of_them.enter_context(_running(command)) for who, command in commands.items()}
        for who in tqdm(order, desc="turns", file=sys.stderr):
            turns[who].append(_ask(processes[who], commands[who]))
    return {who: taken[1:] or taken for who, taken in turns.items()}


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        if process.stdin is not None:
            process.stdin.close()  # it ends


def _ask(process: subprocess.Popen[str], command: Sequence[str]) -> Turn:
    assert process.stdin is not None  # noqa: S101 - pipes, as asked for
    assert process.stdout is not None  # noqa: S101
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):  # libraries print too
            answer: dict[str, Any] = json.loads(line)
            return {name: float(value) for name, value in answer.items()}
    message = f"{' '.join(command[:3])} ended before its turn did, with status {process.wait()}; see above"
    raise RuntimeError(message)


# ---- figures


def figures(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """What the last line says."""
    packed, padded = (_median(turns[who], "events_per_s") for who in ("packed", "padded"))
    rate, flops = _median(turns["products"], "gemm_flops_per_s"), _median(turns["products"], "flops_per_event")
    peak = _peak(turns["packed"])
    found = {
        "events_per_s": round(packed),
        "share_of_gemm_rate": round(packed * flops / rate, 3),
        "speedup_over_padded": round(packed / padded, 2),
        "padded_events_per_s": round(padded),
        "gemm_gflops_per_s": round(rate / 1e9, 1),
        "kflops_per_event": round(flops / 1e3, 1),
        "peak_mb": round(peak),
    }
    theirs = {who: taken for who, taken in turns.items() if who.startswith("rectools")}
    if theirs:
        # theirs at its best: the faster loss, and the smaller memory
        fastest = max(_median(taken, "events_per_s") for taken in theirs.values())
        least = min(_peak(taken) for taken in theirs.values())
        found |= {
            "speedup_over_rectools": round(packed / fastest, 1),
            "memory_ratio": round(peak / least, 3),
            "rectools_events_per_s": round(fastest),
            "rectools_peak_mb": round(least),
        }
    return found


def as_table(turns: dict[str, list[Turn]]) -> str:
    """A line each: real events a second (median, least, most) and peak memory."""
    lines = [f"{'':36}{'real events/s':>14}{'least':>9}{'most':>9}{'peak MB':>9}"]
    for who, taken in turns.items():
        if who != "products":
            speeds = [one["events_per_s"] for one in taken]
            spread = f"{median(speeds):14,.0f}{min(speeds):9,.0f}{max(speeds):9,.0f}"
            lines.append(f"{who:36}{spread}{_peak(taken):9,.0f}")
    lines += [f"{who:36}{speed:>14}" for who, speed in PUBLISHED.items()]
    rate = _median(turns["products"], "gemm_flops_per_s")
    return "\n".join([*lines, f"{'products of a step alone':36}{rate / 1e9:14,.1f} GFLOP/s"])


def _median(taken: Sequence[Turn], name: str) -> float:
    return median(one[name] for one in taken)


def _peak(taken: Sequence[Turn]) -> float:
    return max(one["peak_mb"] for one in taken)


if __name__ == "__main__":
    main()
