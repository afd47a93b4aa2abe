"""The bill of materials: all that a bundle needs, in the form that others read."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from serving.bill_of_materials import bill_of_materials, closure

REQUIREMENTS = [f"redis[hiredis]=={version('redis')}", f"starlette=={version('starlette')}"]


def test_names_what_the_required_packages_need_in_turn() -> None:
    """Packages of packages are there, and those of an extra that is asked for; those of other extras are not."""
    needs = closure(REQUIREMENTS)
    assert "hiredis" in needs["redis"]
    assert "anyio" in needs["starlette"]
    assert "idna" in needs["anyio"]
    assert "hiredis" not in closure(["redis"])["redis"]


def test_a_package_that_is_not_installed_is_named() -> None:
    """What cannot be listed stops the build instead of being left out."""
    with pytest.raises(ValueError, match=r"no-such-package, which the bundle needs, is not installed"):
        closure(["no-such-package"])


def test_keeps_the_schema() -> None:
    """It is CycloneDX 1.6 with versions, licences, package URLs and our modules' sha256; twice it is the same text."""
    text = bill_of_materials("clicktrail-fraud", REQUIREMENTS, {"src/serving/model.py": "a" * 64})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == bill_of_materials("clicktrail-fraud", REQUIREMENTS, {"src/serving/model.py": "a" * 64})
    found = {one["name"]: one for one in json.loads(text)["components"]}
    assert found["starlette"]["purl"] == f"pkg:pypi/starlette@{version('starlette')}"
    assert found["starlette"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert found["src/serving/model.py"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert not {"serialNumber"} & json.loads(text).keys()
