"""Where compiled kernels are kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clicktrail

_HITS = """
import numpy as np
from clicktrail.kernels.order import group
group(np.array([0, 1]), 2)
print(sum(group.stats.cache_hits.values()), sum(group.stats.cache_misses.values()))
"""


def _copy(folder: Path) -> Path:
    (folder / "clicktrail").mkdir(parents=True)
    (folder / "clicktrail" / "__init__.py").touch()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(clicktrail.__file__).parent / "kernels", folder / "clicktrail" / "kernels", ignore=ignored)
    return folder


def _hits(copy: Path, home: Path, **more: str) -> list[int]:
    """Loads from the cache, and compilations, of one kernel in a process of its own."""
    passed = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environ = {**passed, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **more}
    done = subprocess.run(
        [sys.executable, "-c", _HITS], cwd=copy, env=environ, capture_output=True, text=True, check=True
    )
    return [int(one) for one in done.stdout.split()]


@pytest.mark.slow
def test_a_copy_of_the_package_compiles_nothing_anew(tmp_path: Path) -> None:
    """A new bundle starts with what another compiled, unless a kernel changed anywhere; nothing is left inside it."""
    first, second = _copy(tmp_path / "first"), _copy(tmp_path / "second")
    assert _hits(first, tmp_path) == [0, 1]
    assert _hits(second, tmp_path) == [1, 0]
    (second / "clicktrail" / "kernels" / "another.py").touch()
    assert _hits(second, tmp_path) == [0, 1]
    assert {path.suffix for folder in (first, second) for path in folder.rglob("*") if path.is_file()} == {".py"}
    assert len(list((tmp_path / ".cache").rglob("clicktrail-*"))) == 2


@pytest.mark.slow
def test_the_cache_is_where_numba_is_told_to_keep_it(tmp_path: Path) -> None:
    """NUMBA_CACHE_DIR comes first."""
    copy = _copy(tmp_path / "copy")
    assert _hits(copy, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "told")) == [0, 1]
    assert len(list((tmp_path / "told").glob("clicktrail-*/*.nbi"))) == 1
