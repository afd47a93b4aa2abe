"""The HTTP door of a service: a small ASGI application that BentoML mounts.

Mounted rather than typed endpoints: measured beside each other on 2 cores, an empty typed endpoint costs
2.0-2.7 ms of CPU a request and a mounted one 1.0-1.8 ms; and the wording of a 400 is ours.
A request is answered on the event loop itself: the work is about a millisecond and bounded (sequence
lengths by declaration, k and body by the schema), and a thread would cost more than it gives.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.decision import Decision, Mark
from serving.endpoints import ENDPOINTS
from serving.manifest import RefusedError
from serving.openapi import openapi
from serving.request_ids import HEADER, request_id
from serving.schema import MAX_BODY_BYTES, InvalidRequestError, parse
from serving.telling import Asked, Teller

Decide = Callable[[dict[str, Any]], Decision]


class Door:
    """Takes requests of one task in, once it is open."""

    def __init__(self, task: str) -> None:
        """`task` decides the path and its fields."""
        self._decide: Decide | None = None
        self._teller: Teller | None = None
        endpoint = ENDPOINTS[task]
        self._fields = endpoint.fields
        self.app = Starlette(
            routes=[
                Route(endpoint.path, self._endpoint, methods=["POST"]),
                # before BentoML's own, which knows typed endpoints only
                Route("/docs.json", lambda _: JSONResponse(openapi(task)), methods=["GET"]),
            ]
        )

    def open(self, decide: Decide, teller: Teller) -> None:
        """The service has verified itself: requests are decided, and told of."""
        self._decide, self._teller = decide, teller

    async def _endpoint(self, request: Request) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return _error(400, "the client went away before its request was whole")  # nobody reads it: no traceback
        if self._decide is None or self._teller is None:
            return _error(503, "the service has not verified itself yet; try again")
        asked = Asked(request_id=request_id(request.headers.get(HEADER)))
        response = self._answer(body, asked, self._decide, self._teller)
        response.headers[HEADER] = asked.request_id
        return response

    def _answer(self, body: bytes | None, asked: Asked, decide: Decide, teller: Teller) -> Response:
        if body is None:
            teller.refused(asked, 413)
            return _error(413, f"the body has more than {MAX_BODY_BYTES} bytes; a request needs a few hundred")
        try:
            request = parse(body, self._fields)
            parsed = time.perf_counter_ns()
            decision = decide(request)
            decided = time.perf_counter_ns()
            text = json.dumps(decision.answer, ensure_ascii=False, allow_nan=False)
            response = Response(text, media_type="application/json")
            done = time.perf_counter_ns()
            teller.answered(asked, decision, (Mark("parse", asked.began, parsed), Mark("respond", decided, done)))
        except InvalidRequestError as error:
            teller.refused(asked, 400)
            return _error(400, str(error), problems=[problem.__dict__ for problem in error.problems])
        except (sqlite3.Error, OSError, RefusedError) as error:
            teller.failed(asked, 503, "the online state cannot be read", error)
            return _error(503, "the online state cannot be read now; see the service's log")
        except Exception as error:  # noqa: BLE001 - told with its traceback
            teller.failed(asked, 500, "a request could not be answered", error)
            return _error(500, "this is our fault; see the service's log")
        return response


async def _body(request: Request) -> bytes | None:
    """The body, or None as soon as it is larger than allowed."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _error(status: int, error: str, **more: object) -> Response:
    return JSONResponse({"error": error, **more}, status_code=status)
