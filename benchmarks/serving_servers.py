"""Servers under test: `bentoml serve` as a user starts it, what it costs the processor, and load on it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.free_port import free_port
from benchmarks.serving_load import Order

_READY_S = 180.0
_TICKS = os.sysconf("SC_CLK_TCK")
_BENTOML = Path(sys.executable).with_name("bentoml")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Figures of one stretch of load; `cpu_ms` is the server's, a request."""

    rate: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    client_cpu_ms: float
    per_s: float
    said: str


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running service; `ready_s` is how long it took from its command to the first 200 of /readyz."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float

    def cpu_s(self) -> float:
        """Processor time of the command and all its processes so far, seconds."""
        return sum(_cpu_s(one) for one in family(self.process.pid))

    def load(self, order: Order) -> Step:
        """Load it from another process."""
        order = replace(order, port=self.port)
        before = self.cpu_s()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving_load"],
            input=json.dumps(asdict(order)),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        spent = self.cpu_s() - before
        found = json.loads(done.stdout)
        p50, p99 = np.percentile(found["latency_ms"], [50, 99]) if found["latency_ms"] else (np.inf, np.inf)
        return Step(
            rate=order.rate,
            requests=found["sent"],
            failed=found["failed"],
            p50_ms=float(p50),
            p99_ms=float(p99),
            cpu_ms=spent * 1000 / max(found["sent"], 1),
            client_cpu_ms=found["client_cpu_ms"],
            per_s=len(found["latency_ms"]) / found["wall_s"],
            said=found["said"],
        )

    def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        """One request; status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def served(name: str, target: str, folder: Path, environ: dict[str, str], log: Path) -> Iterator[Server]:
    """`bentoml serve TARGET` in a folder, ready, and ended with all its processes when the block ends.

    Raises:
        RuntimeError: it does not get ready; with what it said.
    """
    port = free_port()
    began = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [_BENTOML, "serve", target],
            cwd=folder,
            env=environ | {"BENTOML_PORT": str(port), "BENTOML_HOST": "127.0.0.1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        if not _ready(process, port):
            ended = process.poll() is not None
            message = f"{name} {'has ended' if ended else 'is not ready in time'}:\n{log.read_text()[-4000:]}"
            raise RuntimeError(message)
        yield Server(name=name, port=port, process=process, ready_s=time.perf_counter() - began)
    finally:
        _stop(process)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:  # it has just ended
                continue
    return found


def _cpu_s(pid: int) -> float:
    """User and system time of a process and of those that it has waited for, seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(one) for one in fields[11:13]) / _TICKS


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it as an operator would; what is left after that is killed."""
    mine = family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in mine[1:]:
        if Path(f"/proc/{one}").exists():
            os.kill(one, signal.SIGKILL)
