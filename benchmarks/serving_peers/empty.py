"""A service of the same style that does nothing: reads the body, answers what it was told to.

Its configuration (workers, traffic) is that of the bundle it is held against.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_ANSWER = Path(os.environ["PEER_ANSWER"]).read_bytes()


async def _endpoint(request: Request) -> Response:
    await request.body()
    return Response(_ANSWER, media_type="application/json")


_APP = Starlette(routes=[Route(os.environ["PEER_PATH"], _endpoint, methods=["POST"])])


@bentoml.service(name="empty", **json.loads(os.environ["PEER_CONFIG"]))
@bentoml.asgi_app(_APP, path="/")
class Empty:
    """Nothing."""
