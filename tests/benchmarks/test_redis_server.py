"""The private Redis is empty, answers, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis

from benchmarks.redis_server import redis_server


def test_a_server_of_ones_own_is_empty_and_goes_away() -> None:
    """Two servers at once know nothing of each other; after the block process and folder are gone."""
    with redis_server() as url, redis_server() as other:
        client = redis.Redis.from_url(url)
        client.set("key", "value")
        assert redis.Redis.from_url(other).dbsize() == 0
        process, folder = client.info("server")["process_id"], Path(client.config_get("dir")["dir"])
        assert client.config_get("save")["save"] == ""
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_options_reach_the_server() -> None:
    """A benchmark that needs a durable Redis says so."""
    with redis_server(("--appendonly", "yes")) as url:
        assert redis.Redis.from_url(url).config_get("appendonly")["appendonly"] == "yes"


def test_a_server_that_does_not_start_says_why() -> None:
    """What redis-server complained of is in the error."""
    with pytest.raises(RuntimeError, match="no-such-option"), redis_server(("--no-such-option", "1")):
        pass
