"""The guide to live events, carried out with servers of our own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks.free_port import free_port
from benchmarks.redis_server import redis_server
from tests.docs.guide import ROOT, checkout

_TOOLS = ("redis-server", "redis-cli", "curl", "make")


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, _TOOLS)), reason=f"needs {', '.join(_TOOLS)}")
def test_stream_events(tmp_path: Path) -> None:
    """Every block does what the guide says: push, refuse, quarantine, a Redis stream; on ports that are free here."""
    copy = checkout(tmp_path)
    guide = tmp_path / "stream-events.md"
    text = (ROOT / "docs" / "guides" / "stream-events.md").read_text()
    with redis_server() as url:
        ports = {"6379": url.removesuffix("/0").rpartition(":")[2], "8080": str(free_port())}
        for usual, here in ports.items():
            text = text.replace(usual, here)
        guide.write_text(text)
        try:
            copy.follow(guide)
        finally:
            for path in copy.root.glob("*.pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.read_text()), signal.SIGTERM)
