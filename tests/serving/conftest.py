"""One small shop, its three bundles and its three servers for the whole session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.free_port import free_port
from clicktrail.settings import Settings
from serving.build import CHECKOUT, BuildConfig, Built, build
from serving.manifest import TASKS
from tests.serving import shop

BENTOML = Path(sys.executable).with_name("bentoml")

# an editable install leads every Python here to the checkout: this takes it off the path again
NO_CHECKOUT = """
import sys, pathlib
sys.path = [one for one in sys.path if not (pathlib.Path(one or ".") / "clicktrail").is_dir()]
"""


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """The bundles of the little shop, in a store of their own."""

    settings: Settings
    store: Path
    built: dict[str, Built]

    def config(self, task: str) -> BuildConfig:
        """How the bundle of a task was built."""
        run = (self.settings.runs / task / "latest").resolve()
        return BuildConfig(
            task=task, run=run, home=self.settings.home, shop="demo", clock="log", bentoml_home=self.store
        )

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a user of these bundles who set nothing but his store."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("CLICKTRAIL", "BENTOML"))
        }
        return {
            **inherited,
            "BENTOML_HOME": str(self.store),
            "BENTOML_DO_NOT_TRACK": "true",
            "OMP_NUM_THREADS": "1",
            **more,
        }


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home)
    shop.open_shop(settings)
    empty = Bundles(settings=settings, store=tmp_path_factory.mktemp("store"), built={})
    for task in TASKS:
        shop.write_run(settings.runs, task)
    with ThreadPoolExecutor(len(TASKS)) as pool:
        built = dict(zip(TASKS, pool.map(lambda task: build(empty.config(task)), TASKS), strict=True))
    return Bundles(settings=settings, store=empty.store, built=built)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running service."""

    client: httpx.Client
    process: subprocess.Popen[str]
    log: Path


def start(bundle: str, folder: Path, log: Path, environ: dict[str, str]) -> Server:
    """Start `bentoml serve` on a free port, from a folder."""
    port = free_port()
    with log.open("w") as stream:
        process = subprocess.Popen(
            [BENTOML, "serve", bundle],
            cwd=folder,
            env=environ | {"BENTOML_PORT": str(port)},
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Server(client=httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30), process=process, log=log)


def wait_until_ready(server: Server) -> None:
    """Return when the service answers, or fail with what it said."""
    deadline = time.monotonic() + 240  # three at once on a busy machine, each compiling what it needs
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if server.client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"not ready: {server.log.read_text()[-3000:]}")


def stop(server: Server) -> None:
    """End the command and its workers."""
    server.client.close()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def servers(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Recommendation and fraud as their builder serves them; retention exported, imported and served elsewhere.

    Fraud is served from the checkout, where other modules of the same names lie in the way.
    """
    abroad = tmp_path_factory.mktemp("abroad")
    carry_abroad(bundles, "retention", abroad)
    (abroad / "sitecustomize.py").write_text(NO_CHECKOUT)
    elsewhere = bundles.environ(
        BENTOML_HOME=str(abroad / "store"), CLICKTRAIL_HOME=str(bundles.settings.home), PYTHONPATH=str(abroad)
    )
    running = {
        task: start(
            f"clicktrail-{task}:latest",
            CHECKOUT if task == "fraud" else abroad,
            abroad / f"{task}.log",
            elsewhere if task == "retention" else bundles.environ(),
        )
        for task in TASKS
    }
    try:
        for server in running.values():
            wait_until_ready(server)
        yield running
    finally:
        for server in running.values():
            stop(server)


def carry_abroad(bundles: Bundles, task: str, abroad: Path) -> None:
    """`bentoml export` from the one store, `bentoml import` into another."""
    file = abroad / "carried.bento"
    for command, store in (
        (["export", bundles.built[task].tag, file], bundles.store),
        (["import", file], abroad / "store"),
    ):
        environ = bundles.environ(BENTOML_HOME=str(store))
        done = subprocess.run([BENTOML, *command], cwd=abroad, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
