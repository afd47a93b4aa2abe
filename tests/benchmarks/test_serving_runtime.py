"""ONNX Runtime against torch: the benchmark itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serving_runtime

_NEEDS_ONNX = ["onnxruntime==1"]


def test_size_is_that_of_everything_that_is_needed() -> None:
    """A package weighs what its files do, and what it needs is counted with it, once."""
    alone, twice = (serving_runtime.megabytes([*_NEEDS_ONNX, *more]) for more in ([], ["numpy==2"]))
    assert serving_runtime.megabytes(["numpy==2"]) < alone == twice
    assert alone > 50


@pytest.mark.slow
def test_both_runtimes_answer_the_same_in_turns(tmp_path: Path) -> None:
    """One start and one turn each give every figure."""
    serving_runtime.write_model(tmp_path)
    figures = serving_runtime.measure(tmp_path, starts=1, rounds=1)
    names = {f"{name}_{what}" for name in ("onnx", "torch") for what in ("start_s", "ms_1", "ms_32")}
    assert figures.keys() == names
    assert all(figure > 0 for figure in figures.values())
