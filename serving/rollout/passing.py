"""One request to one bundle: what is passed on, what is left out, and how it can go wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)

from serving.rollout.backend import Backend

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
"""Headers that speak of one connection (RFC 9110, 7.6.1): those of the next one are its own."""

_REQUEST_OWN = frozenset({b"host", b"content-length", b"expect"})
_ANSWER_OWN = frozenset({b"content-length", b"date", b"server"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, whole. `target` is its path with the query, as it came."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, whole, of one bundle."""

    status: int
    headers: Headers
    body: bytes


class UnreachedError(Exception):
    """No answer came from the bundle; `late` where it may still be at it."""

    def __init__(self, message: str, *, late: bool) -> None:
        """`message` is for whoever asked."""
        super().__init__(message)
        self.late = late


def open_session() -> ClientSession:
    """Connections that are kept, and nothing between them and what is sent."""
    return ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=30),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=ClientTimeout(total=None),
    )


async def ask(session: ClientSession, backend: Backend, asked: Asked, seconds: float) -> Reply:
    """The bundle's answer to a request, within so many seconds.

    Raises:
        UnreachedError: none came, or not in time.
    """
    if not backend.up:  # its door may be open while nobody is behind it: nothing is to wait there
        message = f"{backend.tag} is not ready now"
        raise UnreachedError(message, late=False)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            backend.asked.add(limit)
            async with session.request(
                asked.method,
                backend.url(asked.target),
                data=asked.body or None,
                headers=_texts(passed_on(asked.headers, _REQUEST_OWN)),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                own = _ANSWER_OWN - {b"content-length"} if asked.method == "HEAD" else _ANSWER_OWN
                return Reply(status=response.status, headers=passed_on(response.raw_headers, own), body=body)
    except TimeoutError as error:
        late = backend.up
        backend.suspect()
        message = f"{backend.tag} gave no answer within {seconds:g} s" if late else f"{backend.tag} went away"
        raise UnreachedError(message, late=late) from error
    except (ClientConnectionError, OSError) as error:
        backend.suspect()
        message = f"{backend.tag} cannot be reached"
        raise UnreachedError(message, late=False) from error
    except ClientError as error:
        message = f"{backend.tag} gave an answer that cannot be read ({type(error).__name__})"
        raise UnreachedError(message, late=False) from error
    finally:
        backend.asked.discard(limit)


def passed_on(headers: Headers | tuple[tuple[bytes, bytes], ...], own: frozenset[bytes]) -> Headers:
    """Headers in lower case, without those of the connection, those that it names, and `own`."""
    lower = [(name.lower(), value) for name, value in headers]
    named = {
        one.strip().lower()
        for name, value in lower
        if name == b"connection"
        for one in value.split(b",")
        if one.strip()
    }
    return [(name, value) for name, value in lower if name not in _HOP_BY_HOP and name not in own and name not in named]


def _texts(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
