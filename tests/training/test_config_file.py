"""Configurations in files, and changes by dotted path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.__main__ import configuration, parser
from training.config_file import at, changed, read_config
from training.presets import PRESETS, preset
from training.search_space import SPACES, drawn, space_of
from training.task import task_names


def test_a_file_gives_the_configuration_that_was_written(tmp_path: Path) -> None:
    """What stands beside the configuration is left alone, so a run's own config.json will do."""
    config = changed(preset("base", "fraud", seed=3), {"encoder.width": 48, "head_dropout": 0.4})
    (tmp_path / "best.json").write_text(json.dumps(config.to_json() | {"task": "fraud", "tuned": {"trials": 30}}))
    assert read_config(tmp_path / "best.json", "fraud") == config
    given = parser().parse_args(["--task", "fraud", "--preset", "small", "--config", str(tmp_path / "best.json")])
    assert configuration(given) == config
    given = parser().parse_args(["--task", "fraud", "--config", str(tmp_path / "best.json"), "--seed", "5"])
    assert configuration(given) == changed(config, {"seed": 5})


def test_a_file_of_another_task_or_version_is_refused(tmp_path: Path) -> None:
    """The error names the file and what is wrong with it."""
    path = tmp_path / "best.json"
    with pytest.raises(ValueError, match=r"best\.json cannot be read"):
        read_config(path, "fraud")
    config = preset("small", "fraud").to_json()
    path.write_text(json.dumps(config | {"task": "retention"}))
    with pytest.raises(ValueError, match="not for task 'fraud': it is of task 'retention'"):
        read_config(path, "fraud")
    path.write_text(json.dumps(config | {"fit": config["fit"] | {"speed": 3}}))
    with pytest.raises(ValueError, match="speed"):
        read_config(path, "fraud")


def test_a_path_that_names_nothing_is_an_error() -> None:
    """A search space with a spelling mistake does not silently search nothing."""
    with pytest.raises(ValueError, match=r"no 'fit\.speed'"):
        changed(preset("small", "fraud"), {"fit.speed": 3})


class _Corner:
    """Draws the lowest, or the highest, of everything."""

    def __init__(self, *, high: bool) -> None:
        self.high = high

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        del name, log
        return high if self.high else low

    def suggest_int(self, name: str, low: int, high: int) -> int:
        del name
        return high if self.high else low

    def suggest_categorical(self, name: str, choices: list[object]) -> object:
        del name
        return choices[-1 if self.high else 0]


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("name", list(PRESETS))
def test_every_space_fits_every_preset_and_holds_its_own_values(task: str, name: str) -> None:
    """Corners of the space are configurations of the same types; what the preset says itself can be drawn."""
    config = preset(name, task)
    low, high = (drawn(space_of(task), _Corner(high=high), config) for high in (False, True))
    for one in space_of(task):
        own = at(config, one.path)
        assert type(low[one.path]) is type(high[one.path]) is type(own), one.path
        if isinstance(own, int | float):
            assert low[one.path] <= own <= high[one.path] * (1 + 1e-12), one.path
    for choices in (low, high):
        assert changed(config, choices) != config
    assert set(SPACES) <= set(task_names())
