"""Parity: training's shared windows, serving's padded rows and the exported file give the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from training.batches import Arrays, batches, mixed_windows, own_windows, plan, row_lengths
from training.config import FAMILIES, Family
from training.export import TOLERANCE, golden, write_onnx
from training.fit import build_model
from training.model import NEXT_ITEM, SequenceModel, ServedModel
from training.presets import preset
from training.training_set import TEST, TrainingSet

Sets = Callable[[str], TrainingSet]


def built(data: TrainingSet, task: str, family: Family) -> SequenceModel:
    """A model with random weights, and random biases, so that nothing is zero by chance."""
    model = build_model(data, preset("small", task, encoder=family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def padded_inputs(data: TrainingSet, examples: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays that serving would make for these examples, in the order of the interface."""
    (batch,) = batches(Arrays(data), own_windows(data, examples), tokens=10**9, rows=10**9)
    assert batch["example"].tolist() == examples.tolist()
    for view in data.tokens:
        batch[f"{view}__length"] = batch[f"{view}__position"] + 1
    return {name: batch[name].numpy() for name in data.encoding.inputs()}


@torch.no_grad()
def eager(model: SequenceModel, data: TrainingSet, inputs: dict[str, np.ndarray]) -> np.ndarray:
    served = ServedModel(model, list(data.encoding.inputs())).eval()
    return served(*(torch.from_numpy(array) for array in inputs.values())).numpy()


@torch.no_grad()
def trained_path(model: SequenceModel, data: TrainingSet, examples: np.ndarray) -> np.ndarray:
    """What training computes: queries that read their position in a window shared with others, rows that are packed."""
    found: dict[int, np.ndarray] = {}
    arrays, shared = Arrays(data), plan(data, examples, share=True)
    groups = mixed_windows(shared, tokens=4_000, rows=64, rng=np.random.default_rng(0))
    rows = row_lengths(shared, groups)
    for group in groups:
        batch = arrays.batch(shared, group, rows)
        out = model(batch)
        if model.head != NEXT_ITEM:
            out = torch.sigmoid(out)
        found |= dict(zip(batch["example"].tolist(), out.numpy(), strict=True))
    return np.stack([found[place] for place in examples.tolist()])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["recommendation", "fraud"])
def test_training_serving_and_export_agree(task: str, family: Family, synthetic: Sets, tmp_path: Path) -> None:
    """For every encoder: training's path, eager padded rows and ONNX are within 1e-4 of each other."""
    data = synthetic(task)
    model = built(data, task, family)
    examples = data.of(TEST)
    inputs = padded_inputs(data, examples)
    answer = eager(model, data, inputs)
    np.testing.assert_allclose(trained_path(model, data, examples), answer, atol=TOLERANCE)
    write_onnx(model, data.encoding, tmp_path / "model.onnx")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    wanted = {one.name for one in session.get_inputs()}
    (exported,) = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
    np.testing.assert_allclose(exported, answer, atol=TOLERANCE)


def test_a_row_alone_and_in_a_batch_agree(synthetic: Sets) -> None:
    """Padding does not leak: a row's score does not depend on how long its neighbours are."""
    data = synthetic("fraud")
    model = built(data, "fraud", "transformer")
    examples = data.of(TEST)[:20]
    together = eager(model, data, padded_inputs(data, examples))
    alone = [eager(model, data, padded_inputs(data, examples[[place]]))[0] for place in range(20)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_shared_windows_read_the_same_states(synthetic: Sets) -> None:
    """Queries of one user that share a window get what each would get alone, while the window holds all they know."""
    data = synthetic("recommendation")
    (view,) = data.tokens
    tokens = data.tokens[view]
    # one user's history of 40 events, asked after every event
    longest = int(np.argmax(tokens.ends - tokens.starts))
    start, end = int(tokens.starts[longest]), int(tokens.ends[longest])
    count = end - start
    several = type(data)(
        **{
            **vars(data),
            "tokens": {
                view: type(tokens)(
                    ids=tokens.ids,
                    numbers=tokens.numbers,
                    starts=np.full(count, start),
                    ends=np.arange(start + 1, end + 1),
                )
            },
            "entity": np.zeros(count, np.int64),
            "request_ids": np.repeat(data.request_ids[longest : longest + 1], count, 0),
            "request_numbers": np.repeat(data.request_numbers[longest : longest + 1], count, 0),
            "target": np.zeros(count, np.int64),
        }
    )
    everyone = np.arange(count)
    shared = plan(several, everyone, share=True)
    assert len(shared.starts[view]) == 1
    model = built(data, "recommendation", "lstm")
    answer = eager(model, several, padded_inputs(several, everyone))
    np.testing.assert_allclose(trained_path(model, several, everyone), answer, atol=TOLERANCE)


def test_golden_answers_are_reproducible(synthetic: Sets) -> None:
    """Golden requests are a pure function of model and encoding, cover unknown values and an empty history."""
    data = synthetic("fraud")
    model = built(data, "fraud", "gru")
    first, again = golden(model, data), golden(model, data)
    assert first == again
    assert first["cases"][0]["features"]["card_recent_v1"]["price_minor"] == []
    assert all(0 <= case["answer"]["score"] <= 1 for case in first["cases"])
