"""Where compiled kernels are kept: in one folder for one content of this package, wherever the package lies.

numba's own way is a folder beside the source, or one named after the source's path. Every bundle has its own copy of
this package at its own path, so each new one would compile for seconds what is compiled already, and write machine
code (as pickles) among its files. Named after the content of all kernels, the folder is shared by every copy, and a
kernel is compiled anew too when one that it calls in another file changes, which numba does not see.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import UserWideCacheLocator

HERE = Path(__file__).resolve().parent


class SharedLocator(UserWideCacheLocator):
    """In NUMBA_CACHE_DIR, else in the user's cache folder; for the kernels of this package alone."""

    def __init__(self, py_func: Any, py_file: str) -> None:  # noqa: ANN401 - numba's
        """As numba calls it: a function, and the file that it stands in."""
        super().__init__(py_func, py_file)
        base = Path(config.CACHE_DIR) if config.CACHE_DIR else Path(self.get_cache_path()).parent
        self._cache_path = str(base / f"clicktrail-{content()}")

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> SharedLocator | None:  # noqa: ANN401
        """A locator, or None where somebody else's function is asked for, or nothing can be written."""
        return super().from_function(py_func, py_file) if Path(py_file).resolve().parent == HERE else None


@cache
def content() -> str:
    """Names the content of all kernels."""
    files = sorted(HERE.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
