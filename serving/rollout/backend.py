"""One bundle in a process of its own: `bentoml serve` on a port of this machine, watched until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

logger = logging.getLogger("clicktrail.rollout")

_CHECKOUT = Path(__file__).resolve().parent.parent.parent
_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)  # below what Linux hands out to clients: 32,768 and up
_START_S = 180.0
_KEEP_ALIVE_S = 75
"""Longer than the front keeps idle connections, so that none is closed just as a request goes out."""
_PROBE_EVERY_S = 0.5
_BUSY_S = 2.0
"""Seconds that a probe may take, ..."""
_ALONE_S = 0.5
"""... and where a worker is missing."""
_LONGEST_BUSY_S = 15.0
_STARTING_EVERY_S = 0.1
_END_S = 15.0


class BundleError(Exception):
    """A bundle did not verify, did not start, or ended; the message says which, and all that is known."""


class Backend:
    """A bundle's process.

    `started` says whether it ever was ready, `up` whether it answered when it was asked last, and `failure` why
    it is of no use any more. `asked` are the time limits of the requests that it has now: when it goes down
    they end at once, since nobody is behind the door that would answer.
    """

    def __init__(self, tag: str, session: ClientSession) -> None:
        """Nothing is started yet; `session` asks whether it is ready."""
        self.tag = tag
        self.started = False
        self.up = False
        self.asked: set[asyncio.Timeout] = set()
        self.failure: str | None = None
        self._session = session
        self._process: asyncio.subprocess.Process | None = None
        self._family: list[psutil.Process] = []
        self._suspected = asyncio.Event()
        self._last_up = 0.0
        self._port = 0
        self._urls: dict[str, URL] = {}

    @property
    def down_s(self) -> float:
        """Seconds since it answered last, 0 where it does or never did."""
        return 0.0 if self.up or not self.started else time.monotonic() - self._last_up

    @property
    def in_flight(self) -> int:
        """Requests that it has now."""
        return len(self.asked)

    @property
    def pid(self) -> int | None:
        """Of the command, while it is there."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def url(self, target: str) -> URL:
        """Of a path with its query, as it came in."""
        known = self._urls.get(target)
        if known is None:
            known = URL(f"http://{_HOST}:{self._port}{target}", encoded=True)
            if len(self._urls) < 64:  # noqa: PLR2004 - a service has a handful of paths; strangers may ask for any
                self._urls[target] = known
        return known

    def suspect(self) -> None:
        """A request met a closed door: it is asked at once whether it is up, and has to answer soon."""
        self._suspected.set()

    async def start(self, *, verify: bool) -> None:
        """Return when it answers `/readyz`.

        Raises:
            BundleError: it doesn't verify, ends before it is ready, or takes too long.
        """
        try:
            if verify:
                await _verify(self.tag)
            await self._launch()
            await self._until_ready()
        except BundleError as error:
            self.failure = str(error)
            raise

    async def watch(self) -> None:
        """Ask whether it is up, until its process ends."""
        assert self._process is not None  # noqa: S101 - started
        ended = asyncio.create_task(self._process.wait())
        while not ended.done():
            suspected = asyncio.create_task(self._suspected.wait())
            await asyncio.wait({ended, suspected}, timeout=_PROBE_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            suspected.cancel()
            self._suspected.clear()
            whole = self._whole()
            said = await self._probe(_BUSY_S if whole else _ALONE_S)
            now = time.monotonic()
            if said:
                self._last_up = now
                if not whole:
                    self._family = self._children()  # a worker was started anew
            # its port is open also while no worker is behind it; but busy, with its workers there, is not down
            busy = said is None and whole and self.up and now - self._last_up < _LONGEST_BUSY_S
            self._is(up=bool(said) or busy)
        self._is(up=False)
        self.failure = f"its process ended with status {self._process.returncode}"

    async def end(self, drain_s: float) -> None:
        """Let it answer what it was asked, at most for so many seconds, then end it and all it had started."""
        deadline = time.monotonic() + drain_s
        while self.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - looked at for a moment only
            await asyncio.sleep(0.02)
        self.up = False
        if self._process is not None and self._process.returncode is None:
            self._family = self._children() or self._family
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_S)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self.kill()

    def kill(self) -> None:
        """End all processes now; killed from outside, the command leaves its workers behind."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        for one in self._family:
            with contextlib.suppress(psutil.Error):
                one.kill()

    def _is(self, *, up: bool) -> None:
        if self.up and not up:
            now = asyncio.get_running_loop().time()
            for limit in self.asked:
                if not limit.expired():
                    limit.reschedule(now)
        self.up = up

    async def _launch(self) -> None:
        self._port = _free_port()
        command = [
            *(sys.executable, str(Path(__file__).with_name("leash.py")), str(os.getpid())),
            *(sys.executable, "-m", "bentoml", "serve", self.tag, "--host", _HOST, "--port", str(self._port)),
            *("--timeout-keep-alive", str(_KEEP_ALIVE_S)),
        ]
        # a session of its own: Ctrl+C is for the front, which ends its bundles when they have answered
        self._process = await asyncio.create_subprocess_exec(*command, env=_environ(), start_new_session=True)
        logger.info("%s starts on port %d, process %d", self.tag, self._port, self._process.pid)

    async def _until_ready(self) -> None:
        assert self._process is not None  # noqa: S101 - launched
        deadline = time.monotonic() + _START_S
        while not await self._probe(_BUSY_S):
            if self._process.returncode is not None:
                message = (
                    f"{self.tag} ended with status {self._process.returncode} before it was ready; its lines say why"
                )
                raise BundleError(message)
            if time.monotonic() > deadline:
                message = f"{self.tag} was not ready within {_START_S:g} s"
                raise BundleError(message)
            await asyncio.sleep(_STARTING_EVERY_S)
        self.started = self.up = True
        self._last_up = time.monotonic()
        self._family = self._children()

    async def _probe(self, seconds: float) -> bool | None:
        """Whether it says that it is ready; None where it says nothing for so many seconds."""
        try:
            async with self._session.get(self.url("/readyz"), timeout=ClientTimeout(total=seconds)) as response:
                return response.status == 200  # noqa: PLR2004 - HTTP
        except TimeoutError:
            return None
        except (ClientError, OSError):
            return False

    def _whole(self) -> bool:
        """Whether the processes that it had when it was up are still there."""
        try:
            return all(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self._family)
        except psutil.Error:
            return False

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None  # noqa: S101 - launched
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.Error:
            return []


async def _verify(tag: str) -> None:
    """Let `serving.verify` compare its files, and its own code answer its golden requests."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serving.verify", tag),
        env=_environ(),
        cwd=_CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
        message = f"{tag} does not verify: {lines[-1]}"
        raise BundleError(message)
    logger.info("%s verified", tag)


def _environ() -> dict[str, str]:
    """Of a child: the code beside it and no other of ours, and no port or address that was meant for the front."""
    ours = ("PYTHONPATH", "BENTOML_PORT", "BENTOML_HOST", "CLICKTRAIL_FAILPOINT")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true", **kept}


def _free_port() -> int:
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            return port
    message = f"no free port from {_PORTS.start} to {_PORTS.stop - 1}"
    raise BundleError(message)
