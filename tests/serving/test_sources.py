"""What travels in a bundle is found in the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.build import CHECKOUT, ENTRIES
from serving.sources import needed


def write(folder: Path, **modules: str) -> None:
    for name, text in modules.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()


def test_follows_imports_through_our_packages(tmp_path: Path) -> None:
    """Modules that are imported at load time come along, with their packages; those inside functions do not."""
    write(
        tmp_path,
        serving__service="from clicktrail import reading\nimport numpy as np\n",
        serving__build="import yaml\n",
        clicktrail__reading="import json\ndef write():\n    from clicktrail import writing\n",
        clicktrail__writing="import duckdb\n",
    )
    found = needed(tmp_path, ("serving.service",))
    names = ["clicktrail/__init__.py", "clicktrail/reading.py", "serving/__init__.py", "serving/service.py"]
    assert [path.as_posix() for path in found.files] == names
    assert found.packages == ("numpy",)


def test_heavy_packages_are_refused(tmp_path: Path) -> None:
    """A service that would import torch, directly or not, is not built, and the module is named."""
    write(
        tmp_path,
        serving__service="from clicktrail.deep import x\n",
        clicktrail__deep="try:\n    import torch\nexcept ImportError:\n    torch = None\n",
    )
    with pytest.raises(ValueError, match=r"clicktrail\.deep imports torch"):
        needed(tmp_path, ("serving.service",))


def test_the_service_needs_little() -> None:
    """Our services need BentoML, ONNX Runtime, numba, numpy, pyarrow and redis, pinned; no feast, torch or DuckDB."""
    found = needed(CHECKOUT, ENTRIES)
    assert found.packages == ("bentoml", "numba", "numpy", "onnxruntime", "pyarrow", "redis", "starlette")
    assert all("==" in one for one in found.requirements)
    assert {path.parts[0] for path in found.files} == {"clicktrail", "serving"}
