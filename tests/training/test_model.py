"""The model: what is exported agrees with it under every option, and presets have the sizes they promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest
import torch

from clicktrail.encoding import FIRST, Encoding
from training.config import FAMILIES, EncoderConfig, RunConfig
from training.content import content_of
from training.encoders import build_encoder
from training.export import example_inputs, write_onnx
from training.fit import item_facts
from training.heads import CountHead, Head, MulticlassHead, TimeHead
from training.model import NEXT_ITEM, SequenceModel, ServedModel
from training.presets import preset
from training.training_set import TrainingSet

Sets = Callable[[str], TrainingSet]


def config(**encoder: object) -> RunConfig:
    return RunConfig(encoder=EncoderConfig(width=16, heads=2, layers=2, **encoder), head_width=16)  # type: ignore[arg-type]


def shaken(model: SequenceModel) -> SequenceModel:
    """With random weights everywhere, so that nothing is zero by chance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def random_inputs(encoding: Encoding) -> dict[str, np.ndarray]:
    """Three rows of at most five events."""
    rng = np.random.default_rng(0)
    sizes = {f"{view.view}__ids": encoding.id_sizes(view.view) for view in encoding.spec.sequences}
    sizes["request_ids"] = encoding.request_id_sizes
    out = {}
    for name, (dtype, shape) in encoding.inputs().items():
        full = [3 if size == "batch" else 5 if isinstance(size, str) else size for size in shape]
        if name in sizes:
            out[name] = rng.integers(0, sizes[name], full)
        elif name.endswith("__length"):
            out[name] = np.array([5, 2, 3])
        else:
            out[name] = rng.uniform(-1, 1, full).astype(dtype)
    return out


def exported_and_eager(model: SequenceModel, encoding: Encoding, path: Path) -> tuple[np.ndarray, np.ndarray]:
    write_onnx(model, encoding, path)
    inputs = random_inputs(encoding)
    session = ort.InferenceSession(str(path))
    wanted = {one.name for one in session.get_inputs()}
    (found,) = session.run(None, {name: array for name, array in inputs.items() if name in wanted})
    served = ServedModel(model, list(example_inputs(encoding))).eval()
    with torch.no_grad():
        return found, served(*(torch.from_numpy(array) for array in inputs.values())).numpy()


@pytest.mark.parametrize("family", ["transformer", "hstu"])
def test_time_bias_cosine_and_content_are_exported(family: str, synthetic: Sets, tmp_path: Path) -> None:
    """With time bias, cosine scores and item attributes the exported file agrees with torch within 1e-4."""
    data = synthetic("recommendation")
    assert data.items is not None
    items = pa.table({"attributes": [[f"a{one % 3}", f"b{one % 4}"] for one in range(data.items.num_rows)]})
    settings = replace(config(family=family, time_bias=True), temperature=0.1)
    model = shaken(
        SequenceModel(settings, data.encoding, NEXT_ITEM, facts=item_facts(data), content=content_of(items, 16))
    )
    with torch.no_grad():  # a time bias that can be seen
        model.encoders["user_recent_v1"].time_bias.curve.mul_(10)
    exported, eager = exported_and_eager(model, data.encoding, tmp_path / "model.onnx")
    np.testing.assert_allclose(exported, eager, atol=1e-4)
    assert np.linalg.norm(exported, axis=1) == pytest.approx(1 / 0.1, rel=1e-4)
    assert np.linalg.norm(model.item_vectors()[0].detach(), axis=1) == pytest.approx(1, rel=1e-4)
    model.timed = False
    assert np.abs(exported_and_eager(model, data.encoding, tmp_path / "model.onnx")[1] - eager).max() > 1e-3


@pytest.mark.parametrize("head", [MulticlassHead(4), CountHead(), TimeHead()], ids=["multiclass", "count", "time"])
def test_every_head_is_exported(head: Head, synthetic: Sets, tmp_path: Path) -> None:
    """The exported file gives the head's prediction, a row a request."""
    data = synthetic("retention")
    model = shaken(SequenceModel(config(family="linear"), data.encoding, "other", predictor=head))
    exported, eager = exported_and_eager(model, data.encoding, tmp_path / "model.onnx")
    assert exported.shape == (3, head.columns)
    np.testing.assert_allclose(exported, eager, atol=1e-4)


def test_items_without_events_live_on_their_attributes(synthetic: Sets) -> None:
    """Two items whose own vectors are equal differ by their attributes alone, and not where these are the same."""
    data = synthetic("recommendation")
    assert data.items is not None
    count = data.items.num_rows
    items = pa.table({"attributes": [["red"], ["red"], ["blue"], [], *[["blue"]] * (count - 4)]})
    model = SequenceModel(
        config(), data.encoding, NEXT_ITEM, facts=np.zeros((count, 1), np.int64), content=content_of(items, 16)
    ).eval()
    with torch.no_grad():
        model.item_table.weight[FIRST : FIRST + 4] = 0
    e_ID = model.item_vectors()[0].detach()
    fact_D = model.items.tables[0].weight.detach()[0]
    assert torch.equal(e_ID[0], e_ID[1])
    assert not torch.equal(e_ID[0], e_ID[2])
    assert torch.equal(e_ID[3], fact_D)  # nothing is known of it
    folded = model.folded()
    torch.testing.assert_close(folded.item_vectors()[0], model.item_vectors()[0])
    assert folded.content is None


def test_vectors_of_items_may_be_given() -> None:
    """A column of vectors is content too; of different lengths they are refused."""
    found = content_of(pa.table({"vector": [[1.0, 0.0], [0.0, 2.0]]}), 8)
    assert found is not None
    assert found().shape == (2, 8)
    assert content_of(pa.table({"item_id": ["a"]}), 8) is None
    with pytest.raises(ValueError, match="as many numbers for every item"):
        content_of(pa.table({"vector": [[1.0], [0.0, 2.0]]}), 8)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("small", 5e3, 1e5), ("base", 1e6, 2e6), ("large", 1e7, 2e7), ("huge", 1e8, 2e8)]
)
def test_presets_grow_to_over_100_million_weights(name: str, least: float, most: float) -> None:
    """The weights of each preset's encoder, counted without making them."""
    for task in ("recommendation", "retention", "fraud"):
        with torch.device("meta"):
            encoder = build_encoder(preset(name, task).encoder)
        assert least < sum(parameter.numel() for parameter in encoder.parameters()) < most


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_large(family: str) -> None:
    """Each family has the same widths and depths to choose from; two blocks of 1,024 have 4 million weights or more."""
    with torch.device("meta"):
        encoder = build_encoder(EncoderConfig(family=family, width=1_024, layers=2, heads=16))  # type: ignore[arg-type]
        assert encoder(torch.empty(1, 3, 1_024)).shape == (1, 3, 1_024)
    assert sum(parameter.numel() for parameter in encoder.parameters()) > 4e6
