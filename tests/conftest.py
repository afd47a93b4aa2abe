"""What tests share: a Redis, and the folder of real data and worked cases, where a machine has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.redis_server import redis_server

_SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_configure() -> None:
    """Whose shop the caller stands in is none of the tests' business: make sets these for its own targets."""
    for name in [one for one in os.environ if one.startswith("CLICKTRAIL_") and one != "CLICKTRAIL_DATA"]:
        del os.environ[name]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that the tests of one worker share: add `#name` for a place of your own in it."""
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets; they may not be passed on, so a checkout alone does not have them."""
    folder = Path(os.environ.get("CLICKTRAIL_DATA") or _SHARED / "data")
    if not folder.is_dir():
        pytest.skip("no real data here: set CLICKTRAIL_DATA to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def time_cases() -> Path:
    """The worked cases of the time contract."""
    path = _SHARED / "time_cases.json"
    if not path.is_file():
        pytest.skip("no worked time cases here; the random worlds of tests/worlds.py stand for them")
    return path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hand xdist's groups on: xdist 3.8 writes them into `_nodeid`, which pytest 9.2 no longer reads.

    Without this, tests of one `xdist_group` are spread over the workers, and each worker sets up their fixtures again.
    """
    for item in items:
        named = getattr(item, "_nodeid", "")
        if "@" in named and "@" not in item.nodeid:
            item._id = type(item._id).parse(named)  # noqa: SLF001 - there is no other way in
