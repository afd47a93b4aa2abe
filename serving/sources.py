"""Which modules and packages a service needs: what it imports, found in the sources without running them."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, packages_distributions, version
from pathlib import Path

OURS = ("clicktrail", "serving")

TOO_HEAVY = frozenset({"feast", "great_expectations", "lightning", "pandas", "pytorch_lightning", "sklearn", "torch"})
"""Packages that no service may need: they cost seconds at every start, or gigabytes of image."""

_PARSING = threading.Lock()  # CPython 3.11 mixes up the depths of two threads that parse (gh-106905)
_EXTRAS = {"redis": "[hiredis]"}
"""Without it long answers are parsed by Python itself, which takes as long again as the read."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files of our modules, relative to the checkout and sorted, and what they import of others, by dotted names."""

    files: tuple[Path, ...]
    foreign: tuple[str, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages of others that they import, sorted."""
        return tuple(sorted({name.partition(".")[0] for name in self.foreign}))

    @property
    def requirements(self) -> list[str]:
        """The packages as pinned requirements, at the versions that are installed here: those that were tested.

        Raises:
            ValueError: nothing that is installed brings one of them.
        """
        by_package = packages_distributions()
        names: set[str] = set()
        for package in self.packages:
            candidates = sorted(set(by_package.get(package, ())))
            if len(candidates) > 1:  # a namespace that distributions share: whose are the modules?
                paths = [name.replace(".", "/") for name in self.foreign if name.partition(".")[0] == package]
                files = {file for path in paths for file in (f"{path}.py", f"{path}/__init__.py")}
                candidates = [
                    one for one in candidates if files & {str(file) for file in distribution(one).files or ()}
                ]
            if not candidates:
                message = f"nothing that is installed here brings {package}, which a service imports: make setup"
                raise ValueError(message)
            names.update(candidates)
        return sorted(f"{name}{_EXTRAS.get(name, '')}=={version(name)}" for name in names)


def needed(checkout: Path, entries: tuple[str, ...]) -> Sources:
    """What `entries` (dotted module names) import when they are loaded, directly or through our other modules.

    What is imported inside a function is left out on purpose: a module that the service reads state with
    may also hold its writer, which needs more.

    Raises:
        ValueError: a package is among it that is too heavy for a service.
    """
    files: dict[str, Path] = {}
    foreign: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        name = waiting.pop()
        path = _file(checkout, name)
        if name in files or path is None:
            continue
        files[name] = path
        package, _, _ = name.rpartition(".")
        if package:
            waiting.append(package)
        with _PARSING:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for imported in _imports(tree):
            top = imported.partition(".")[0]
            if top in OURS:
                waiting.append(imported)
            elif top not in sys.stdlib_module_names:
                foreign.setdefault(top, name)
                foreign.setdefault(imported, name)
    heavy = [f"{by} imports {name}" for name, by in sorted(foreign.items()) if name in TOO_HEAVY]
    if heavy:
        message = f"a service must start fast and stay small, but {', '.join(heavy)}: import it inside a function"
        raise ValueError(message)
    return Sources(
        files=tuple(sorted(path.relative_to(checkout) for path in files.values())), foreign=tuple(sorted(foreign))
    )


def _file(checkout: Path, name: str) -> Path | None:
    """The file of a module or package; None where the dotted name is something inside a module."""
    path = checkout.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names imported when the module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""  # never empty: the house has no relative imports
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from _imports(node)
