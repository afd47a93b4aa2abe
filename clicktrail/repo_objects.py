"""What a Feast repo declares, imported as `feast apply` imports it, without a registry."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast.repo_contents import RepoContents


def repo_objects(folder: Path) -> RepoContents:
    """Entities, views and services of the repo in `folder`; what .feastignore lists is not looked at.

    Raises:
        ValueError: there is no such folder, or no definition in it.
    """
    from feast.repo_operations import get_repo_files, parse_repo

    if not folder.is_dir() or not get_repo_files(folder):
        message = f"{folder} is no Feast repo: it holds no definitions (CLICKTRAIL_FEATURE_REPO says where they are)"
        raise ValueError(message)
    names = {path.relative_to(folder.resolve()).with_suffix("").as_posix() for path in get_repo_files(folder)}
    with contextlib.chdir(folder), _importing(folder.resolve(), {name.replace("/", ".") for name in names}):
        return parse_repo(Path.cwd())


@contextlib.contextmanager
def _importing(folder: Path, modules: set[str]) -> Iterator[None]:
    """Modules of these names come from `folder` meanwhile: every repo calls its own `definitions`."""
    before = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)
