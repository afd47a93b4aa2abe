"""A configuration in a file: what `make tune` found best, or `config.json` of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from training.config import RunConfig

T = TypeVar("T")


def read_config(path: Path, task: str) -> RunConfig:
    """The configuration in a file; what else stands there is left alone.

    Raises:
        ValueError: there is no such file, it is no configuration of this version, or it is of another task.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        message = f"configuration {path} cannot be read: {error}"
        raise ValueError(message) from None
    if not isinstance(found, dict) or found.get("task", task) != task:
        said = f"it is of task {found['task']!r}" if isinstance(found, dict) else "it is no JSON object"
        message = f"configuration {path} is not for task {task!r}: {said}"
        raise ValueError(message)
    known = {field.name for field in fields(RunConfig)}
    try:
        return RunConfig.from_json({name: value for name, value in found.items() if name in known})
    except (KeyError, TypeError) as error:
        message = f"configuration {path} was not written by this version: {error}; make it again with make tune"
        raise ValueError(message) from None


def changed(config: T, choices: Mapping[str, Any]) -> T:
    """The configuration with other values at dotted paths, as in `{"encoder.width": 64}`.

    Raises:
        ValueError: a path names nothing.
    """
    for path, value in choices.items():
        config = _changed(config, path.split("."), value, path)
    return config


def at(config: Any, path: str) -> Any:  # noqa: ANN401 - whatever stands there
    """What stands at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _changed(config: Any, names: list[str], value: Any, path: str) -> Any:  # noqa: ANN401 - nested dataclasses
    name, rest = names[0], names[1:]
    if not is_dataclass(config) or name not in {field.name for field in fields(config)}:
        message = f"a configuration has no {path!r}"
        raise ValueError(message)
    inner = _changed(getattr(config, name), rest, value, path) if rest else value
    return replace(config, **{name: inner})  # type: ignore[type-var]
