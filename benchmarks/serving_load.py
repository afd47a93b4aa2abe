"""Load from a process of its own: `python -m benchmarks.serving_load`, order on stdin, result on stdout.

Open loop: requests arrive as a Poisson process whether or not earlier ones have been answered, and a latency counts
from the *scheduled* arrival, so a server that stalls is charged for everybody who waited. Closed loop: every connection
sends its next request as soon as it has its answer.

Bare sockets and epoll, since it shares the machine with the server: a request costs it about 0.1 ms of CPU.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_GRACE_S = 1.0
"""How long after the last arrival an answer may still come; what has none by then has failed."""

_FEWEST, _MOST = 4, 64
_PER_CONNECTION_S = 4
"""Requests a second on a connection, so that none is idle for as long as servers keep one open (5 s)."""

_CHUNK = 1 << 16
"""A larger buffer costs more to make than the answer takes to read."""

_OK = b"HTTP/1.1 200 "
_LENGTH = b"content-length:"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to send where: `rate` arrivals a second, or with 0 closed loop on all `connections`."""

    path: str
    bodies: str
    rate: float
    seconds: float
    connections: int
    seed: int = 0
    port: int = 0


def connections_for(rate: float) -> int:
    """How many connections an open loop of this rate uses."""
    return min(max(round(rate / _PER_CONNECTION_S), _FEWEST), _MOST)


@dataclass(kw_only=True)
class Result:
    """What came of it; `latency_ms` of the answered in order of their answers, `client_cpu_ms` a request."""

    sent: int = 0
    failed: int = 0
    wall_s: float = 0.0
    client_cpu_ms: float = 0.0
    latency_ms: list[float] = field(default_factory=list)
    said: str = ""


class _Connection:
    """One keep-alive connection; `due` is the scheduled moment of the request under way, 0 when idle."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.due = 0.0
        self._got = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._got = b""
        if self.socket.send(request) != len(request):
            message = "a request did not go out at once: bodies are meant to be small"
            raise RuntimeError(message)

    def answer(self) -> bytes | None:
        """The whole answer once it is there, None before that, nothing where the server hung up."""
        try:
            chunk = self.socket.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            return b""
        self._got += chunk
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        at = lower.index(_LENGTH) + len(_LENGTH)
        length = int(lower[at:].split(b"\r\n", 1)[0])
        return self._got if len(body) >= length else None


class Load:
    """One order being carried out."""

    def __init__(self, order: Order, bodies: Sequence[bytes]) -> None:
        """Opens the connections."""
        self._order = order
        self._requests = [_request(order, body) for body in bodies]
        self._poll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._result = Result()
        for _ in range(order.connections):
            self._connect()

    def run(self) -> Result:
        """Send everything, wait for the answers."""
        cpu, began = time.process_time(), time.perf_counter()
        self._go(began)
        self._result.wall_s = time.perf_counter() - began
        self._result.client_cpu_ms = (time.process_time() - cpu) * 1000 / max(self._result.sent, 1)
        for one in self._open.values():
            one.socket.close()
        return self._result

    def _go(self, began: float) -> None:
        end = began + self._order.seconds
        arrivals = iter(_arrivals(self._order, began, end))
        due = next(arrivals, None)
        waiting: deque[float] = deque()
        while True:
            now = time.perf_counter()
            while due is not None and due <= now:
                waiting.append(due)
                due = next(arrivals, None)
            if not self._order.rate and now < end:
                waiting.extend([now] * len(self._idle))
            while waiting and self._idle:
                self._send(self._idle.popleft(), waiting.popleft())
            busy = len(self._open) - len(self._idle)
            if due is None and now >= end and not busy and not waiting:
                break
            if now > end + _GRACE_S:
                self._result.sent += len(waiting)
                self._failed("no answer within the grace", busy + len(waiting))
                break
            wake = due or (end if now < end else end + _GRACE_S)
            self._receive(max(wake - now, 0.0))

    def _send(self, connection: _Connection, due: float) -> None:
        request = self._requests[self._result.sent % len(self._requests)]
        self._result.sent += 1
        try:
            connection.send(request, due)
        except ConnectionError as error:
            self._failed(repr(error))
            self._drop(connection)
            self._connect()

    def _receive(self, seconds: float) -> None:
        for number, _ in self._poll.poll(seconds):
            connection = self._open[number]
            answer = connection.answer()
            if answer is None:
                continue
            if connection.due:
                if answer.startswith(_OK):
                    self._result.latency_ms.append((time.perf_counter() - connection.due) * 1000)
                else:
                    self._failed(answer.decode(errors="replace") or "the server hung up")
            if answer:
                connection.due = 0.0
                self._idle.append(connection)
            else:  # also an idle connection may be closed: that is how keep-alive ends
                self._drop(connection)
                self._connect()

    def _failed(self, why: str, requests: int = 1) -> None:
        self._result.failed += requests
        self._result.said = self._result.said or why

    def _connect(self) -> None:
        connection = _Connection(self._order.port)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        self._idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        number = connection.socket.fileno()
        self._poll.unregister(number)
        del self._open[number]
        if connection in self._idle:
            self._idle.remove(connection)
        connection.socket.close()


def _arrivals(order: Order, began: float, end: float) -> Iterator[float]:
    """Moments of a Poisson process between two moments; none in a closed loop."""
    rng = random.Random(order.seed)  # noqa: S311 - nothing secret
    at = began
    while order.rate and (at := at + rng.expovariate(order.rate)) < end:
        yield at


def _request(order: Order, body: bytes) -> bytes:
    head = (
        f"POST {order.path} HTTP/1.1\r\nhost: 127.0.0.1:{order.port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Carry out the order on stdin."""
    order = Order(**json.load(sys.stdin))
    bodies = Path(order.bodies).read_bytes().splitlines()
    sys.stdout.write(json.dumps(asdict(Load(order, bodies).run())))


if __name__ == "__main__":
    main()
