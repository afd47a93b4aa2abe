"""One run of the serving benchmark: its world, the bundle that is built in it, and the servers that are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from benchmarks.redis_server import redis_server
from benchmarks.serving_load import Order, connections_for
from benchmarks.serving_servers import Server, served
from benchmarks.serving_shop import PATHS, requests
from benchmarks.serving_world import RUN, WEIGHTS, Size, declared, fill_state, make_world
from clicktrail.settings import Settings

CHECKOUT = Path(__file__).resolve().parent.parent

_BODIES = 5_000
_COMPILING_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A world with a bundle in it; `seconds`: of a stretch of load, `rate`: at which CPU is measured."""

    size: Size
    settings: Settings
    folder: Path
    bento: Path
    seconds: float
    rate: float

    @property
    def environ(self) -> dict[str, str]:
        """Of the servers."""
        return environment(self.settings)

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return PATHS[self.size.task]

    @property
    def config(self) -> dict[str, Any]:
        """How the bundle's service is configured: workers, traffic."""
        return dict(yaml.safe_load((self.bento / "bento.yaml").read_text())["services"][0]["config"])

    def order(self, rate: float, seconds: float, seed: int = 0) -> Order:
        """Single requests of known users, open loop."""
        bodies = self.bodies("requests", requests(self.size.task, self.size.users, _BODIES))
        connections = connections_for(rate)
        return Order(path=self.path, bodies=bodies, rate=rate, seconds=seconds, connections=connections, seed=seed)

    def bodies(self, name: str, lines: Sequence[bytes]) -> str:
        """A file that holds these requests."""
        file = self.folder / f"{name}.jsonl"
        file.write_bytes(b"\n".join(lines))
        return str(file)


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which this world is built and served, free of what else is set here.

    BENTOML_CONFIG_OPTIONS stays: with `services.workers=2` every server under test has two workers.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLICKTRAIL", "BENTOML"))}
    return {
        **kept,
        "BENTOML_CONFIG_OPTIONS": os.environ.get("BENTOML_CONFIG_OPTIONS", ""),
        "CLICKTRAIL_HOME": str(settings.home),
        "CLICKTRAIL_SHOP": settings.shop,
        "CLICKTRAIL_CLOCK": settings.clock,
        "CLICKTRAIL_ONLINE_URL": settings.online_url,
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def prepared(size: Size, store: str, home: Path | None, seconds: float, rate: float) -> Iterator[Bench]:
    """World, state and bundle; with `home` the world is kept there and found again, the bundle is always built anew.

    Raises:
        ValueError: `home` holds a world of another size.
        RuntimeError: the bundle cannot be built.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        url = f"{stack.enter_context(redis_server())}#bench" if store == "redis" else ""
        settings = Settings(home=home or folder / "home", shop="bench", online_url=url)
        settings.home.mkdir(parents=True, exist_ok=True)
        say("making the world")
        make_world(settings, size)
        fill_state(settings, declared(settings, size))
        say("building the bundle")
        bento = _build(settings, size.task)
        yield Bench(size=size, settings=settings, folder=folder, bento=bento, seconds=seconds, rate=rate)


def _build(settings: Settings, task: str) -> Path:
    command = [sys.executable, "-m", "serving.build", "--task", task]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(settings), capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"the bundle was not built:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    family = settings.home / "bentoml" / "bentos" / f"clicktrail-{task}"
    return family / (family / "latest").read_text()


@contextmanager
def bundle(bench: Bench) -> Iterator[Server]:
    """The bundle, served as anybody serves it; it has answered once."""
    target = f"{bench.bento.parent.name}:{bench.bento.name}"
    with served("bundle", target, bench.folder, bench.environ, bench.folder / "bundle.log") as server:
        answer_of(bench, server)
        yield server


@contextmanager
def empty(bench: Bench, answer: bytes) -> Iterator[Server]:
    """The service that answers this to everything."""
    (bench.folder / "answer").write_bytes(answer)
    more = {"PEER_PATH": bench.path, "PEER_ANSWER": str(bench.folder / "answer")}
    with _peer(bench, "empty", "empty:Empty", more) as server:
        yield server


@contextmanager
def naive(bench: Bench) -> Iterator[Server]:
    """The obvious service, over the same state."""
    with _peer(bench, "naive", f"naive:{bench.size.task.capitalize()}", obvious(bench)) as server:
        yield server


def obvious(bench: Bench) -> dict[str, str]:
    """What the obvious service reads of its environment."""
    return {
        **bench.environ,
        "PEER_CONFIG": json.dumps(bench.config),
        "PEER_EXPORT": str(bench.settings.runs / bench.size.task / RUN / "export"),
        "PEER_WEIGHTS": str(bench.settings.home / WEIGHTS),
    }


@contextmanager
def _peer(bench: Bench, name: str, target: str, more: dict[str, str]) -> Iterator[Server]:
    """A service of benchmarks/serving_peers, configured as the bundle's."""
    environ = {**bench.environ, "PEER_CONFIG": json.dumps(bench.config), **more}
    folder = CHECKOUT / "benchmarks" / "serving_peers"
    with served(name, target, folder, environ, bench.folder / f"{name}.log") as server:
        answer_of(bench, server)
        yield server


def answer_of(bench: Bench, server: Server) -> bytes:
    """What a server says to a first request; one that compiles its loops only then is given a few minutes for it.

    Raises:
        RuntimeError: an error.
    """
    deadline = time.monotonic() + _COMPILING_S
    body = requests(bench.size.task, bench.size.users, 1)[0]
    status, answer = server.ask(bench.path, body)
    while status == HTTPStatus.GATEWAY_TIMEOUT and time.monotonic() < deadline:
        status, answer = server.ask(bench.path, body)
    if status != HTTPStatus.OK:
        message = f"{server.name} answers {status}: {answer.decode(errors='replace')}"
        raise RuntimeError(message)
    return answer


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, file=sys.stderr, flush=True)
