"""A bundle's bill of materials (CycloneDX 1.6, JSON): the packages that it needs, all that these need, and our modules.

Versions and licences are those of the packages that are installed where the bundle is built, which is what it was
verified with. It has no serial number and no time, so that the same content gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_LONGEST_LICENCE = 100
"""Some packages put the whole text where the name of the licence belongs."""


def bill_of_materials(name: str, requirements: Sequence[str], modules: Mapping[str, str]) -> str:
    """The bill as text.

    Args:
        name: of the bundle.
        requirements: of the bundle, as pip takes them.
        modules: sha256 by path of our files.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    needs = closure(requirements)
    packages = {package: _package(package) for package in needs}
    ours = [
        Component(
            name=path,
            bom_ref=f"file:{path}",
            type=ComponentType.FILE,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha)],
        )
        for path, sha in sorted(modules.items())
    ]
    whole = Component(name=name, bom_ref=name, type=ComponentType.APPLICATION)
    bom = Bom(components=[*packages.values(), *ours])
    bom.metadata.component = whole
    # the library dates and numbers each bill anew
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.serial_number = None  # type: ignore[assignment]
    direct = {canonicalize_name(Requirement(line).name) for line in requirements}
    bom.register_dependency(whole, [packages[one] for one in sorted(direct)] + ours)
    for package, wanted in sorted(needs.items()):
        bom.register_dependency(packages[package], [packages[one] for one in sorted(wanted)])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def constraints(requirements: Sequence[str]) -> str:
    """All the packages at the versions that are installed here, as `pip install --constraint` takes them."""
    return "".join(f"{name}=={distribution(name).version}\n" for name in sorted(closure(requirements)))


def closure(requirements: Iterable[str]) -> dict[str, set[str]]:
    """What each package needs, for the required ones and all that these need in turn, extras included; by names.

    Raises:
        ValueError: one of them is not installed.
    """
    out: dict[str, set[str]] = {}
    done: set[tuple[str, str]] = set()
    waiting = [("", line) for line in requirements]
    while waiting:
        wanted_by, line = waiting.pop()
        one = Requirement(line)
        name = canonicalize_name(one.name)
        out.setdefault(name, set())
        if wanted_by:
            out[wanted_by].add(name)
        for extra in {"", *one.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                waiting += [(name, text) for text in _required(_installed(name, wanted_by), extra)]
    return out


def _installed(name: str, wanted_by: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        message = f"{name}, which {wanted_by or 'the bundle'} needs, is not installed here: make setup"
        raise ValueError(message) from error


def _required(package: Distribution, extra: str) -> list[str]:
    lines = package.requires or []
    found = [Requirement(line) for line in lines]
    return [str(one) for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]


def _package(name: str) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found = distribution(name)
    licence = licence_of(found)
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.LIBRARY,
        purl=(purl := PackageURL(type="pypi", name=name, version=found.version)),
        bom_ref=purl.to_string(),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
    )


def licence_of(package: Distribution) -> str:
    """What a package says of its licence: an expression, a name, or what its classifiers say; empty if nothing."""
    said = package.metadata.get_all
    if expression := said("License-Expression"):
        return str(expression[0])
    written = re.sub(r"\s+", " ", str((said("License") or [""])[0])).strip()
    if written and len(written) <= _LONGEST_LICENCE:
        return written
    classifiers = [str(one) for one in said("Classifier") or ()]
    return " AND ".join(one.rpartition("::")[2].strip() for one in classifiers if one.startswith("License ::"))
