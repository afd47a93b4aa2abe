"""Runs a command that is told to end when its parent is gone: `python leash.py PARENT_PID COMMAND ...`.

A front that is killed would otherwise leave its bundles behind, each with its memory and its port. Only
Linux can do this; elsewhere the command runs as it is. A script of its own, since between fork and exec
of a process with threads no Python should run.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the leash was on
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the command comes from our own argument list


if __name__ == "__main__":
    main()
