"""The id of a request: under it stand its log lines, its spans and its decision, in every service that sees it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

HEADER = "x-request-id"

_WILL_DO = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""What a caller may give: short, and needing no quotes in a log."""

_NAME = HEADER.encode()


def request_id(given: str | None) -> str:
    """The caller's id of a request, or one of our own where there is none, or none that will do: UUID version 7."""
    if given is not None and _WILL_DO.fullmatch(given):
        return given
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
    text = f"{number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def identified(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A request's headers (ASGI's, so in lower case) with an id among them that every service will take."""
    headers = list(headers)
    given = next((value.decode("latin-1") for name, value in headers if name == _NAME), None)
    return [*(one for one in headers if one[0] != _NAME), (_NAME, request_id(given).encode())]
