"""What a bundle's service costs beside an empty endpoint, and how much it carries beside the obvious service.

    python -m benchmarks.serving --task recommendation|retention|fraud --store sqlite|redis
        [--items 10000] [--length 50] [--only added_cpu ...] [--profile]

A shop of 1,500 users with full histories, the real declarations, and a run whose weights are drawn by chance: speed does
not depend on them. Recommendation has the transformer of d = 64 and two blocks, the other tasks the model of the preset
`small`. The bundle is built and served by the commands that a user has; load comes from a process of its own
(benchmarks/serving_load.py) on the same cores. All figures of one run are ratios of servers that ran side by side and
were loaded in turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.redis_server import redis_server
from benchmarks.serving_load import Order
from benchmarks.serving_servers import Server, Step, served
from benchmarks.serving_shop import requests
from benchmarks.serving_world import Size, declared, fill_state, make_world
from clicktrail.settings import Settings

_CHECKOUT = Path(__file__).resolve().parent.parent
_PATHS = {"recommendation": "/recommend", "retention": "/score", "fraud": "/score"}
_RATE = 80.0
_ROUNDS = 4
_CONNECTIONS = 64
_PROFILED = 2_000


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One run: the world, the bundle in it, and how long a stretch of load takes."""

    size: Size
    settings: Settings
    folder: Path
    bento: Path
    seconds: float
    rate: float

    @property
    def environ(self) -> dict[str, str]:
        """Of the servers: this world's, and nothing else of whoever runs the benchmark."""
        return environment(self.settings)

    @property
    def config(self) -> dict[str, Any]:
        """How the bundle's service is configured: workers, traffic."""
        return dict(yaml.safe_load((self.bento / "bento.yaml").read_text())["services"][0]["config"])

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return _PATHS[self.size.task]

    def bodies(self, name: str, lines: Sequence[bytes]) -> str:
        """A file with these requests."""
        file = self.folder / f"{name}.jsonl"
        file.write_bytes(b"\n".join(lines))
        return str(file)

    def order(self, rate: float, seconds: float, seed: int = 0) -> Order:
        """Single requests as they come."""
        lines = requests(self.size.task, self.size.users, 5_000)
        bodies = self.bodies("requests", lines)
        connections = min(_CONNECTIONS, max(4, round(rate / 4)))
        return Order(
            port=0, path=self.path, bodies=bodies, rate=rate, seconds=seconds, connections=connections, seed=seed
        )


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which this world is built, served and read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLICKTRAIL", "BENTOML"))}
    return {
        **kept,
        "CLICKTRAIL_HOME": str(settings.home),
        "CLICKTRAIL_SHOP": settings.shop,
        "CLICKTRAIL_CLOCK": settings.clock,
        "CLICKTRAIL_ONLINE_URL": settings.online_url,
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": str(settings.home / "numba"),
    }


@contextmanager
def prepared(size: Size, store: str, home: Path | None, seconds: float, rate: float) -> Iterator[Bench]:
    """World, state and bundle; with `home` the world is kept there and found again, the bundle is always built anew."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"{stack.enter_context(redis_server())}#bench" if store == "redis" else ""
        settings = Settings(home=home or folder / "home", shop="bench", online_url=url)
        settings.home.mkdir(parents=True, exist_ok=True)
        _say("making the world")
        make_world(settings, size)
        fill_state(settings, declared(settings, size))
        _say("building the bundle")
        command = [sys.executable, "-m", "serving.build", "--task", size.task]
        subprocess.run(command, cwd=_CHECKOUT, env=environment(settings), check=True, stdout=sys.stderr)
        family = settings.home / "bentoml" / "bentos" / f"clicktrail-{size.task}"
        bento = family / (family / "latest").read_text()
        yield Bench(size=size, settings=settings, folder=folder, bento=bento, seconds=seconds, rate=rate)


# ---- servers


@contextmanager
def bundle(bench: Bench) -> Iterator[Server]:
    """The bundle, served as anybody serves it; it has answered once."""
    target = f"{bench.bento.parent.name}:{bench.bento.name}"
    with served("bundle", target, bench.folder, bench.environ, bench.folder / "bundle.log") as server:
        answer_of(bench, server)
        yield server


@contextmanager
def peer(bench: Bench, name: str, answer: bytes) -> Iterator[Server]:
    """A service of benchmarks/serving_peers, configured as the bundle's."""
    (bench.folder / "answer").write_bytes(answer)
    more = {
        "PEER_CONFIG": json.dumps(bench.config),
        "PEER_PATH": bench.path,
        "PEER_ANSWER": str(bench.folder / "answer"),
        "PEER_TASK": bench.size.task,
    }
    folder = _CHECKOUT / "benchmarks" / "serving_peers"
    target = f"{name}:{name.capitalize()}"
    with served(name, target, folder, bench.environ | more, bench.folder / f"{name}.log") as server:
        answer_of(bench, server)
        yield server


def answer_of(bench: Bench, server: Server) -> bytes:
    """What it answers to the first request.

    Raises:
        RuntimeError: an error.
    """
    status, answer = server.ask(bench.path, requests(bench.size.task, bench.size.users, 1)[0])
    if status != 200:  # noqa: PLR2004 - HTTP's
        message = f"{server.name} answers {status}: {answer.decode(errors='replace')}"
        raise RuntimeError(message)
    return answer


# ---- figures


def added_cpu(bench: Bench, servers: Sequence[Server]) -> dict[str, Step]:
    """Each server at the fixed rate, in turns; the medians of the rounds by name."""
    for server in servers:
        server.load(bench.order(bench.rate, bench.seconds / _ROUNDS))  # what the first requests load is not counted
    found: dict[str, list[Step]] = {server.name: [] for server in servers}
    for turn in range(_ROUNDS):
        for server in servers:
            step = server.load(bench.order(bench.rate, bench.seconds / _ROUNDS, seed=turn + 1))
            _show(server, step)
            found[server.name].append(step)
    return {name: _middle(steps) for name, steps in found.items()}


def _middle(steps: Sequence[Step]) -> Step:
    """The step in the middle of them by CPU."""
    return sorted(steps, key=lambda step: step.cpu_ms)[len(steps) // 2]


def profile(bench: Bench) -> dict[str, Any]:
    """The bundle's own code in one process, without HTTP; see benchmarks/serving_profile.py."""
    bodies = bench.bodies("profiled", requests(bench.size.task, bench.size.users, _PROFILED))
    script = Path(__file__).with_name("serving_profile.py")
    command = [sys.executable, script, bench.bento, bench.size.task, bench.path, bodies]
    done = subprocess.run(command, cwd=bench.folder, env=bench.environ, check=True, stdout=subprocess.PIPE, text=True)
    *told, last = done.stdout.splitlines()
    print("\n".join(told))
    return dict(json.loads(last))


def measure(bench: Bench, only: Sequence[str]) -> dict[str, Any]:
    """All figures that were asked for."""
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(bundle(bench))
        empty = stack.enter_context(peer(bench, "empty", answer_of(bench, ours)))
        if "added_cpu" in only:
            steps = added_cpu(bench, [ours, empty])
            figures["cpu_ms"] = round(steps["bundle"].cpu_ms, 3)
            figures["empty_cpu_ms"] = round(steps["empty"].cpu_ms, 3)
            figures["added_cpu_ms"] = round(steps["bundle"].cpu_ms - steps["empty"].cpu_ms, 3)
            figures["client_cpu_ms"] = round(steps["bundle"].client_cpu_ms, 3)
    return figures


def _show(server: Server, step: Step) -> None:
    _say(
        f"{server.name:8} {step.rate:7.1f}/s: {step.requests:6} requests, {step.failed} failed, p50 {step.p50_ms:6.2f} ms, "
        f"p99 {step.p99_ms:7.2f} ms, CPU {step.cpu_ms:.3f} ms a request (client {step.client_cpu_ms:.3f}) {step.said[:200]}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


MEASUREMENTS = ("added_cpu",)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(_PATHS), required=True)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--items", type=int, default=10_000, help="items of the catalogue")
    parser.add_argument("--length", type=int, default=50, help="events of a user that the recommendation model reads")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a stretch of load")
    parser.add_argument("--rate", type=float, default=_RATE, help="requests a second at which CPU is measured")
    parser.add_argument("--home", type=Path, help="keep the world here and find it again (default: made and removed)")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS, help="these figures alone")
    parser.add_argument("--profile", action="store_true", help="instead: where the time of a request goes")
    given = parser.parse_args()
    size = Size(task=given.task, items=given.items, length=given.length)
    home = given.home.resolve() if given.home else None
    figures: dict[str, Any] = {"task": given.task, "store": given.store, "items": given.items, "length": given.length}
    with prepared(size, given.store, home, given.seconds, given.rate) as bench:
        figures |= profile(bench) if given.profile else measure(bench, given.only)
    print("\n".join(f"{name:28}{value!s:>14}" for name, value in figures.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
