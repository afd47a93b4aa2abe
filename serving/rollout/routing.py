"""Who answers for whom: a user's place among all users decides, and it never changes while a canary lasts.

The place is a hash of the canary's tag and the user. So it is the same in every front and after every
start; whoever is in at 5 % is in at 20 %; and the next canary meets other users first.
"""

from __future__ import annotations

import json
from hashlib import blake2b

_PLACES = 2**64


def user_of(body: bytes) -> str | None:
    """The user that a request is about, None where it is about none, several, or cannot be read.

    A body with several users is one request, and goes whole to the champion.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    user = said.get("user_id") if isinstance(said, dict) else None
    return user if isinstance(user, str) else None


def place(tag: str, user: str) -> float:
    """Where `user` stands among all users of the canary `tag`, from 0 to below 100 (per cent)."""
    digest = blake2b(f"{tag}\0{user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) * 100 / _PLACES


def is_in(tag: str, share: float, user: str) -> bool:
    """Whether the canary `tag` with `share` per cent of users answers for `user`."""
    return place(tag, user) < share
