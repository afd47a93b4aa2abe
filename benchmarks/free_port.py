"""A port that no other server of this machine is handed."""

from __future__ import annotations

import random
import socket

_OWN = range(20_000, 32_000)  # below what Linux hands out for port 0: 32,768 and up


def free_port() -> int:
    """A free TCP port of this machine that stays free until its server starts, and while that is started again.

    A port that the kernel chose (bind to 0) may go to somebody else's server as soon as it is let go; a client that
    still asks the first server then meets the second. Another draw of this function is what may still be in the way.
    """
    while True:
        port = random.choice(_OWN)  # noqa: S311 - nothing secret
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):  # nobody answers
                return port
