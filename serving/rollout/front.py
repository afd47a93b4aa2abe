"""The door of a rollout: takes a request whole, gives it whole to one bundle, and says which in the answer.

    any path            passed on to the champion, or to the canary for its users
    GET /healthz /livez the process answers
    GET /readyz         the champion answers, or the one before it
    GET /rollout        who answers now, as JSON
    GET /metrics        of this front; /metrics/champion, /metrics/canary ... are the bundles' own

A plain ASGI application: nothing stands between the socket and the bundle that is not needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from prometheus_client import CONTENT_TYPE_LATEST

from serving.request_ids import identified
from serving.rollout.answers import NOTHING, reading
from serving.rollout.backend import Backend
from serving.rollout.guard import Observation
from serving.rollout.metrics import RolloutMetrics
from serving.rollout.passing import Asked, Headers, Reply, UnreachedError, ask, open_session
from serving.rollout.routing import is_in, user_of
from serving.rollout.shadow import Shadow
from serving.rollout.supervisor import Routes, Supervisor
from serving.schema import MAX_BODY_BYTES

logger = logging.getLogger("clicktrail.rollout")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_BODY_SECONDS = 10.0
_MOST_IN_FLIGHT = 256
"""As the services have it: more would only wait longer."""
_TIMEOUT_S = 10.0
_CANARY_TIMEOUT_S = 2.5
"""Leaves the champion time to answer instead."""
_END_S = 40.0
"""For bundles to answer what they were asked, and to end; no stop of the front takes longer."""
_CLOSE_S = 2.0
_RETRIED = 500
"""Statuses from here on, and a 429, are the bundle's fault: a canary's users get the champion's answer."""
_TOO_MANY = 429
_OK = 200
_MODEL, _ROLE = b"x-clicktrail-model", b"x-clicktrail-role"


class Front:
    """The application of one task's rollout."""

    def __init__(self, task: str, file: Path, *, keep_warm_s: float, stop: Callable[[], None]) -> None:
        """`file` is the state that is followed; `stop` ends the server where nothing can be served."""
        self._file, self._keep_warm_s, self._stop = file, keep_warm_s, stop
        self._in_flight = 0
        self._metrics = RolloutMetrics(task, lambda: self._in_flight)
        self._session: ClientSession
        self._supervisor: Supervisor
        self._shadow: Shadow
        self._own: dict[str, Callable[[], Reply]] = {
            "/healthz": lambda: _text(200, "ok"),
            "/livez": lambda: _text(200, "ok"),
            "/readyz": self._readyz,
            "/rollout": lambda: _json(200, self._supervisor.tells()),
            "/metrics": lambda: _text(200, self._metrics.page(), CONTENT_TYPE_LATEST),
        }

    @property
    def fatal(self) -> str | None:
        """Why nothing could be served."""
        return self._supervisor.fatal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            self._in_flight += 1
            try:
                await self._http(scope, receive, send)
            finally:
                self._in_flight -= 1

    # ---- start and end

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._session = open_session()
        self._supervisor = Supervisor(
            self._file, self._session, self._metrics, keep_warm_s=self._keep_warm_s, stop=self._stop
        )
        self._shadow = Shadow(self._session, self._metrics)
        tasks = [asyncio.create_task(self._supervisor.run()), asyncio.create_task(self._shadow.run())]
        for task in tasks:
            task.add_done_callback(self._ended)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        _, unended = await asyncio.wait(tasks, timeout=_END_S)
        if unended:
            logger.error("not ended within %g s, and left: %s", _END_S, _where(asyncio.all_tasks()))
            self._supervisor.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._session.close(), _CLOSE_S)
        await send({"type": "lifespan.shutdown.complete"})

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without its supervisor a front would answer on and follow nothing."""
        if not task.cancelled() and task.exception() is not None:
            logger.error("the front cannot go on", exc_info=task.exception())
            self._stop()

    # ---- requests

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] == "GET" and path in self._own:
            await _send(send, self._own[path]())
            return
        body = await _body(scope, receive)
        if isinstance(body, Reply):
            reply = body
        elif self._in_flight > _MOST_IN_FLIGHT:
            reply = _error(_TOO_MANY, f"{_MOST_IN_FLIGHT} requests are in flight; try again in a second", retry_after=1)
        else:
            query: bytes = scope["query_string"]
            target = scope["raw_path"].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
            asked = Asked(method=scope["method"], target=target, headers=identified(scope["headers"]), body=body)
            reply = await (self._figures(asked) if path.startswith("/metrics/") else self._pass(asked))
            await _send(send, reply)
            return
        self._metrics.refused(reply.status)
        await _send(send, reply)

    def _readyz(self) -> Reply:
        routes = self._supervisor.routes
        if routes is not None and routes.steady[1].up:
            return _text(200, "ready")
        return _text(503, "the champion is not ready")

    async def _figures(self, asked: Asked) -> Reply:
        """What a bundle tells Prometheus."""
        routes = self._supervisor.routes
        backend = routes.backends.get(asked.target.removeprefix("/metrics/")) if routes else None
        if backend is None:
            return _error(404, "no bundle has that role now; there are champion, canary, shadow and previous")
        try:
            return await ask(self._session, backend, Asked(**{**vars(asked), "target": "/metrics"}), _TIMEOUT_S)
        except UnreachedError as error:
            return _error(503, str(error), retry_after=1)

    async def _pass(self, asked: Asked) -> Reply:
        # from here to the bundle's count of requests in flight nothing is awaited: it cannot be ended in between
        routes = self._supervisor.routes
        if routes is None:
            self._metrics.refused(503)
            return _error(503, "the champion is not ready yet; try again", retry_after=1)
        user = user_of(asked.body) if routes.canary is not None else None
        canary = routes.canary
        if canary is not None and canary.up and user is not None and is_in(canary.tag, routes.share, user):
            reply = await self._of_canary(canary, asked)
            if reply is not None:
                return reply
            self._metrics.retried("canary")
            return await self._of_champion(asked, watched=False)
        return await self._of_champion(asked, watched=user is not None)

    async def _of_canary(self, canary: Backend, asked: Asked) -> Reply | None:
        """The canary's answer, None where the champion has to answer instead."""
        began = time.monotonic()
        reply: Reply | None
        try:
            reply = await self._ask("canary", canary, asked, _CANARY_TIMEOUT_S)
        except UnreachedError:
            reply = None
        self._observe("canary", began, reply)
        if reply is None or reply.status >= _RETRIED or reply.status == _TOO_MANY:
            return None
        return _signed(reply, canary, "canary")

    async def _of_champion(self, asked: Asked, *, watched: bool) -> Reply:
        """The champion's answer, or while it is down that of the one before; `watched` where the guard compares."""
        began = time.monotonic()
        try:
            role, backend, reply = await self._steadily(asked)
        except UnreachedError as error:
            if watched:
                self._observe("champion", began, None)
            return _error(504, str(error)) if error.late else _error(503, str(error), retry_after=1)
        if role == "champion":
            if watched:
                self._observe("champion", began, reply)
            shadow = self._routes().shadow
            if shadow is not None and asked.method == "POST" and reply.status == _OK:
                self._shadow.offer(shadow, asked, reply)
        return _signed(reply, backend, role)

    async def _steadily(self, asked: Asked) -> tuple[str, Backend, Reply]:
        """Role, bundle and answer of whoever answers for all.

        Raises:
            UnreachedError: nobody did.
        """
        role, backend = self._routes().steady
        try:
            return role, backend, await self._ask(role, backend, asked, _TIMEOUT_S)
        except UnreachedError as error:
            if error.late:
                raise
        # it ended, it was replaced just now, or a connection was closed between two requests
        self._metrics.retried(role)
        routes = self._routes()
        role, backend = routes.steady
        if routes.previous is not None and routes.previous.up:
            role, backend = "previous", routes.previous
        return role, backend, await self._ask(role, backend, asked, _TIMEOUT_S)

    async def _ask(self, role: str, backend: Backend, asked: Asked, seconds: float) -> Reply:
        began = time.monotonic()
        try:
            reply = await ask(self._session, backend, asked, seconds)
        except UnreachedError:
            self._metrics.failed(role)
            raise
        self._metrics.answered(role, reply.status, time.monotonic() - began)
        return reply

    def _observe(self, role: str, began: float, reply: Reply | None) -> None:
        now = time.monotonic()
        failed = reply is None or reply.status >= 400  # noqa: PLR2004 - HTTP; bad requests come to both alike
        said = NOTHING if reply is None or failed else reading(reply.body)
        self._supervisor.observe(role, Observation(at=now, failed=failed, seconds=now - began, said=said))

    def _routes(self) -> Routes:
        routes = self._supervisor.routes
        assert routes is not None  # noqa: S101 - once there, a champion is only replaced
        return routes


# ---- HTTP


async def _body(scope: Scope, receive: Receive) -> bytes | Reply:
    """The body, or why it is not taken."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            return _too_large()
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return _error(400, "the client went away before its request was whole")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return _too_large()
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        return _error(408, f"the body did not come within {_BODY_SECONDS:g} s")


def _too_large() -> Reply:
    return _error(413, f"the body has more than {MAX_BODY_BYTES} bytes; a request needs a few hundred")


def _signed(reply: Reply, backend: Backend, role: str) -> Reply:
    """An answer whose headers say whose it is."""
    own: Headers = [(_MODEL, backend.tag.encode()), (_ROLE, role.encode())]
    return Reply(status=reply.status, headers=[*reply.headers, *own], body=reply.body)


def _error(status: int, error: str, retry_after: int | None = None) -> Reply:
    return _json(status, {"error": error}, [(b"retry-after", str(retry_after).encode())] if retry_after else [])


def _json(status: int, content: object, headers: Headers | None = None) -> Reply:
    kind = (b"content-type", b"application/json")
    return Reply(status=status, headers=[kind, *(headers or [])], body=json.dumps(content).encode())


def _text(status: int, content: str | bytes, kind: str = "text/plain; charset=utf-8") -> Reply:
    body = content.encode() if isinstance(content, str) else content
    return Reply(status=status, headers=[(b"content-type", kind.encode())], body=body)


async def _send(send: Send, reply: Reply) -> None:
    headers = reply.headers
    if not any(name == b"content-length" for name, _ in headers):
        headers = [*headers, (b"content-length", str(len(reply.body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _where(tasks: set[asyncio.Task[Any]]) -> str:
    """What each task waits in, outermost call first."""
    return "; ".join(f"{task.get_name()}: {' > '.join(_calls(task.get_coro()))}" for task in tasks)


def _calls(waiting: Any) -> Iterator[str]:  # noqa: ANN401 - a coroutine, or whatever one waits for
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        yield f"{waiting.__qualname__}:{frame.f_lineno}"
        waiting = waiting.cr_await
