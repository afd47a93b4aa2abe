"""Events by HTTP, answered once they are durable.

    python -m ingestion.http_intake [--host 127.0.0.1] [--port 8080] [--shop SHOP]

POST /events   a JSON array of events, or one JSON object a line; says of each what became of it
GET  /healthz  the process answers
GET  /readyz   there is room, and the log could be written lately
GET  /metrics  for Prometheus

One process serves one shop. Requests wait together for a flush (`ingestion/batcher.py`), so producers send in groups
or side by side rather than one event after another.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clicktrail.settings import load
from ingestion.batcher import ROOM, Batcher, FullError
from ingestion.http_body import BadBodyError, split
from ingestion.live import ACCEPTED, COPY, FLUSH_EVENTS, FLUSH_SECONDS, Arrivals, LiveIntake, Taken
from ingestion.live_metrics import IntakeMetrics

STREAM = "http"
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_EVENTS = 10_000
_BODY_SECONDS = 10.0
_CONNECTIONS = 1_024


class Door:
    """The application of one shop's intake; what it takes goes through one batcher."""

    def __init__(
        self,
        live: LiveIntake,
        *,
        token: str = "",
        every: float = FLUSH_SECONDS,
        most: int = FLUSH_EVENTS,
        room: int = ROOM,
    ) -> None:
        """With a `token` producers must send it; `every`, `most` and `room` are the batcher's."""
        self._metrics = IntakeMetrics()
        self._batcher = Batcher(live.take_in, self._metrics, every=every, most=most, room=room)
        self._expected = f"Bearer {token}".encode() if token else b""
        self._position = 0
        self.app = Starlette(
            routes=[
                Route("/events", self._events, methods=["POST"]),
                Route("/healthz", self._healthz, methods=["GET"]),
                Route("/readyz", self._readyz, methods=["GET"]),
                Route("/metrics", self._scrape, methods=["GET"]),
            ],
            exception_handlers={_RefusedError: _refused, BadBodyError: _bad_body, Exception: _our_fault},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        flushing = asyncio.create_task(self._batcher.run())
        yield
        self._batcher.close()
        await flushing

    async def _events(self, request: Request) -> Response:
        self._demand_token(request)
        events = split(await _body(request))
        if len(events) > MAX_EVENTS:
            raise _RefusedError(413, f"{len(events)} events are more than {MAX_EVENTS}; send fewer at a time")
        if not events:
            return JSONResponse({"accepted": 0, "copies": 0, "rejected": []})
        return _answer(await self._submit(events))

    def _demand_token(self, request: Request) -> None:
        sent = request.headers.get("authorization", "").encode("latin-1")
        if self._expected and not hmac.compare_digest(sent, self._expected):
            message = "send the intake's token: Authorization: Bearer ..."
            raise _RefusedError(401, message, {"WWW-Authenticate": "Bearer"})

    async def _submit(self, events: list[Any]) -> Taken:
        now = time.time_ns() // 1_000
        # the order of arrival, also after a restart: a clock, but no number twice
        self._position = max(self._position, now)
        positions = self._position + np.arange(len(events))
        self._position += len(events)
        try:
            return await self._batcher.submit(
                Arrivals(stream=STREAM, events=events, positions=positions, arrived_at=now)
            )
        except FullError as error:
            message = "too many events wait already; send these again in a second"
            raise _RefusedError(429, message, {"Retry-After": "1"}) from error
        except OSError as error:
            message = "the log cannot be written now; nothing was taken, send these again"
            raise _RefusedError(503, message, {"Retry-After": "5"}) from error

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, _: Request) -> Response:
        if self._batcher.ready:
            return PlainTextResponse("ready")
        return PlainTextResponse("no room, closing, or the log could not be written", status_code=503)

    async def _scrape(self, _: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _answer(taken: Taken) -> Response:
    """What became of the events of one request; 422 where none of them may enter."""
    rejected = [
        {"index": int(index), **{key: value for key, value in row.items() if key not in {"file", "row"}}}
        for index, row in zip(taken.rejected_at, taken.rejected.to_pylist(), strict=True)
    ]
    body = {
        "accepted": taken.count(ACCEPTED),
        "copies": taken.count(COPY),
        "rejected": rejected,
        "log_offset": taken.version,
    }
    status = 422 if len(rejected) == len(taken.fates) else 200
    return Response(json.dumps(body), status_code=status, media_type="application/json")


async def _body(request: Request) -> bytes:
    """The whole body, unless it is too large or too slow."""
    large = _RefusedError(413, f"the body has more than {MAX_BODY_BYTES} bytes; send fewer events at a time")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise large
    except TimeoutError as error:
        raise _RefusedError(408, f"the body did not come within {_BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:  # nobody reads the answer: no traceback either
        raise _RefusedError(400, "the client went away before its request was whole") from error
    return bytes(body)


class _RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, _RefusedError)  # noqa: S101 - Starlette hands on what it was given this handler for
    return JSONResponse({"error": str(error)}, status_code=error.status, headers=error.headers)


def _bad_body(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadBodyError)  # noqa: S101
    return JSONResponse({"error": str(error), "problems": error.problems}, status_code=400)


def _our_fault(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "this is our fault; see the intake's log"}, status_code=500)


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ingestion.http_intake", description="Take events by HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--shop", default="", help="whose data (default: CLICKTRAIL_SHOP, else demo)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        settings = load({**os.environ, "CLICKTRAIL_SHOP": options.shop} if options.shop else None)
        if not settings.intake_token and not _loopback(options.host):
            message = f"whoever reaches {options.host} could write into the log: set CLICKTRAIL_INTAKE_TOKEN first"
            raise ValueError(message)  # noqa: TRY301 - one place that words errors
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    live = LiveIntake(settings)
    logging.getLogger("clicktrail.intake").info("events of shop %s go into %s", settings.shop, settings.log)
    uvicorn.run(
        Door(live, token=settings.intake_token).app,
        host=options.host,
        port=options.port,
        access_log=False,  # a line a request costs as much as the request
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=30,
        log_config=None,
    )
    return 0


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


if __name__ == "__main__":
    sys.exit(main())
