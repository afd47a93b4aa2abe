"""A Redis of one's own: a private server on a free port, empty, that is gone when the block ends.

with redis_server() as url:
    client = redis.Redis.from_url(url)
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.free_port import free_port

_START_S = 20.0
_ATTEMPTS = 5


@contextmanager
def redis_server(options: Sequence[str] = ()) -> Iterator[str]:
    """Start redis-server, yield its URL (`redis://127.0.0.1:PORT/0`), end it by its own process id.

    It listens on this machine alone, starts empty and writes nothing to disk, unless `options` say so.

    Args:
        options: of redis-server's command line, such as `("--appendonly", "yes")`; files go into a folder of its own.

    Raises:
        FileNotFoundError: redis-server is not installed.
        RuntimeError: it does not start; with what it said.
    """
    program = shutil.which("redis-server")
    if program is None:
        message = "redis-server is not on the PATH: install it (apt-get install redis-server), or use --store sqlite"
        raise FileNotFoundError(message)
    with tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True) as folder:
        process, port = _start(program, Path(folder), options)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()  # whatever it still wanted to write, the folder goes with it
            process.wait()


def _start(program: str, folder: Path, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers; another port is tried where somebody was quicker to take the one that was free."""
    said = ""
    for _ in range(_ATTEMPTS):
        port = free_port()
        place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with (folder / "redis.log").open("wb") as log:
            process = subprocess.Popen([program, *place, *quiet, *options], stdout=log, stderr=subprocess.STDOUT)
        if _answers(process, port):
            return process, port
        process.kill()
        process.wait()
        said = (folder / "redis.log").read_text()
    message = f"redis-server does not start:\n{said}"
    raise RuntimeError(message)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very process answers on the port."""
    deadline = time.monotonic() + _START_S
    once = Retry(NoBackoff(), 0)  # the client's own way is to wait a second before it tries again
    with redis.Redis(host="127.0.0.1", port=port, retry=once) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                return bool(client.info("server")["process_id"] == process.pid)
            time.sleep(0.02)
    return False
