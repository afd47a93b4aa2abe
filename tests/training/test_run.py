"""Runs: what they leave, that killed ones lose and double nothing, that equal inputs are not run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail.encoding import Encoding
from training.presets import preset
from training.run import oracle, place_of, run_id
from training.training_set import TEST, TrainingSet, save

Sets = Callable[[str], TrainingSet]


def command(folder: Path, task: str, *more: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m training` on a saved training set, with everything it leaves under `folder`."""
    environ = os.environ | {"CLICKTRAIL_HOME": str(folder / "var"), "CLICKTRAIL_FAILPOINT": failpoint}
    line = [sys.executable, "-m", "training", "--task", task, "--data", str(folder / "set"), "--epochs", "1", "--quiet"]
    return subprocess.run([*line, *more], env=environ, capture_output=True, text=True, check=False)


def truth_of(data: TrainingSet, column: str) -> pa.Table:
    """An oracle that knows every answer."""
    best = np.ones(len(data.target), np.int64) if column == "rank" else data.target.astype(np.float64)
    return pa.table({"example_id": data.example_id, column: best})


@pytest.mark.slow
def test_a_run_leaves_what_the_design_lists_and_survives_kills(synthetic: Sets, tmp_path: Path) -> None:
    """Killed before the rename, or before `latest` moves, a run is completed by the next command and stands once."""
    data = synthetic("fraud")
    save(data, tmp_path / "set")
    (tmp_path / "truth").mkdir()
    pq.write_table(truth_of(data, "p"), tmp_path / "truth" / "fraud.parquet")
    runs = tmp_path / "var" / "runs" / "fraud"
    truth = ("--truth", str(tmp_path / "truth"))
    for name in ("run.before_rename", "run.latest.before_point"):
        killed = command(tmp_path, "fraud", *truth, failpoint=name)
        assert killed.returncode == -9, (name, killed.stderr[-1000:])
        assert not (runs / "latest").exists()
    done = command(tmp_path, "fraud", *truth)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = [path for path in runs.iterdir() if path.name != "latest" and not path.name.startswith(".")]
    assert (runs / "latest").resolve() == folder
    for name in ("config.json", "metrics.json", "predictions.parquet", "report.html", "model_card.md", "curves.csv"):
        assert (folder / name).is_file(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["oracle"]["average_precision"] == pytest.approx(1.0)
    assert set(metrics["baselines"]) == {"gradient_boosting"}
    assert pq.read_table(folder / "predictions.parquet").num_rows == len(data.of(TEST))
    _check_export(folder / "export")


def _check_export(export: Path) -> None:
    """Golden requests, answered from the files alone as serving would, come out as training wrote them."""
    encoding = Encoding.from_json(json.loads((export / "encoding.json").read_text()))
    session = ort.InferenceSession(str(export / "model.onnx"))
    wanted = {one.name for one in session.get_inputs()}
    golden = json.loads((export / "golden.json").read_text())
    for case in golden["cases"]:
        features = {view: {name: [value] for name, value in one.items()} for view, one in case["features"].items()}
        request = {name: [value] for name, value in case["request"].items()}
        inputs = encoding.encode_lists(features, request, np.array([case["t"]], np.int64))
        (scores,) = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
        assert scores[0] == pytest.approx(case["answer"]["score"], abs=golden["tolerance"])


def test_equal_inputs_are_one_run(synthetic: Sets, tmp_path: Path) -> None:
    """The id of a run is of its inputs: another seed is another run; force finds a free name beside a finished one."""
    data = synthetic("fraud")
    first = run_id(data, preset("small", "fraud"), None)
    assert first == run_id(data, preset("small", "fraud"), None)
    assert first != run_id(data, preset("small", "fraud", seed=1), None)
    from training.task import load_task

    (tmp_path / "fraud" / first).mkdir(parents=True)
    assert place_of(tmp_path, load_task("fraud"), first, force=False)[1]
    place, there = place_of(tmp_path, load_task("fraud"), first, force=True)
    assert not there
    assert place.target.name == f"{first}-2"


def test_a_strange_oracle_is_refused(tmp_path: Path) -> None:
    """A truth that knows none of the examples is another shop's; one that knows some leaves the others null."""
    pq.write_table(pa.table({"example_id": ["a"], "p": [0.5]}), tmp_path / "truth.parquet")
    assert oracle(tmp_path / "truth.parquet", ["b", "a"], "p").to_pylist() == [None, 0.5]
    with pytest.raises(ValueError, match="another shop"):
        oracle(tmp_path / "truth.parquet", ["b"], "p")


def test_errors_are_for_people(tmp_path: Path) -> None:
    """A folder that is no training set ends with 1 and one line that says so, no traceback."""
    (tmp_path / "set").mkdir()
    done = command(tmp_path, "fraud")
    assert done.returncode == 1
    assert "is no training set" in done.stderr
    assert "Traceback" not in done.stderr
