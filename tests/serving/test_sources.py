"""What travels in a bundle is found in the sources."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from clicktrail import declaring as do
from clicktrail.declarations import Declaration, to_json
from serving.build import CHECKOUT, ENTRIES, entries
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
    """They need BentoML and what it brings, ONNX Runtime, numba, numpy, pyarrow and redis; no torch or DuckDB."""
    found = needed(CHECKOUT, ENTRIES)
    of_bentoml = {"bentoml", "opentelemetry", "prometheus_client", "starlette"}
    assert set(found.packages) <= of_bentoml | {"numba", "numpy", "onnxruntime", "pyarrow", "redis"}
    assert all("==" in one for one in found.requirements)
    assert {path.parts[0] for path in found.files} == {"clicktrail", "serving"}


def test_a_namespace_that_packages_share_needs_the_one_that_has_the_module(tmp_path: Path) -> None:
    """Of the packages below `opentelemetry` the one that brings the module is required, and no other."""
    write(tmp_path, serving__service="from opentelemetry.trace import TracerProvider\n")
    assert needed(tmp_path, ("serving.service",)).requirements == [f"opentelemetry-api=={version('opentelemetry-api')}"]


def carried(*declarations: Declaration) -> tuple[set[str], tuple[str, ...]]:
    """Modules and packages of a bundle whose model reads these views."""
    found = needed(CHECKOUT, entries({"declarations": [to_json(one) for one in declarations]}))
    return {path.as_posix() for path in found.files}, found.packages


def test_a_feature_in_sql_brings_duckdb() -> None:
    """Only a bundle that has one carries what computes it."""
    plain = do.sequence(name="s_v1", entity_key="user_id", last=3, fields=["item_id"])
    spread = do.sql("max(price_minor) - min(price_minor)", name="spread", windows=[do.days(1)])
    files, packages = carried(plain, do.aggregates(name="a_v1", entity_key="user_id", aggregations=[spread]))
    assert "clicktrail/sql_expressions.py" in files
    assert "duckdb" in packages
    files, packages = carried(plain)
    assert "clicktrail/sql_expressions.py" not in files
    assert "duckdb" not in packages


def test_a_field_of_the_catalogue_finds_its_reader_in_the_bundle() -> None:
    """`item_title` and its like are looked up by a module that every bundle carries."""
    files, _ = carried(do.sequence(name="s_v1", entity_key="user_id", last=3, fields=["item_title"]))
    assert "clicktrail/catalogue.py" in files
