"""Trees as a layer against xgboost's own answers, as an ONNX node, and beside the network of a binary task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from xgboost import XGBClassifier

from training.boosted import NETWORK, TOGETHER, TREES, add_trees, alone
from training.config import RunConfig
from training.evaluation import binary_metrics
from training.export import TOLERANCE, write_onnx
from training.fit import build_model
from training.model import SequenceModel, ServedModel
from training.presets import preset
from training.scoring import predict
from training.training_set import TEST, VALIDATION, TrainingSet
from training.trees import Trees, read

Sets = Callable[[str], TrainingSet]


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_trees_answer_as_xgboost_does(depth: int) -> None:
    """Margins equal the mean of the library's, with missing values, values on a threshold, fewer rounds than grown."""
    rng = np.random.default_rng(depth)
    x = rng.integers(-3, 4, (500, 5)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    label = (np.nan_to_num(x[:, 0]) + rng.normal(size=500) > 0).astype(int)
    boosters, wanted = [], np.zeros(len(x))
    for draw, rounds in ((0, 12), (1, 20)):
        grown = XGBClassifier(
            n_estimators=20, max_depth=depth, base_score=0.3, subsample=0.5, random_state=draw, n_jobs=1
        )
        grown.fit(x, label)
        boosters.append((bytes(grown.get_booster().save_raw("json")), rounds))
        wanted += grown.predict(x, output_margin=True, iteration_range=(0, rounds)) / 2
    trees = Trees.of_boosters(boosters, float(np.log(0.3 / 0.7)))
    np.testing.assert_allclose(trees(torch.from_numpy(x)).numpy(), wanted, atol=1e-5)


def test_what_is_null_is_missing_to_trees() -> None:
    """A value under a null flag is no number, whatever it holds; ids come first."""
    x_QF = read(torch.tensor([[3], [4]]), torch.tensor([[1.5, 0.0, 0.0, 1.0], [0.0, 2.5, 1.0, 0.0]]))
    np.testing.assert_array_equal(x_QF.numpy(), [[3, 1.5, np.nan], [4, np.nan, 2.5]])


@pytest.fixture(scope="module")
def joined(synthetic: Sets) -> SequenceModel:
    """A fraud model with trees."""
    data = synthetic("fraud")
    model = network(data)
    add_trees(model, data, "average_precision", seed=0)
    assert model.trees is not None
    return model


def network(data: TrainingSet) -> SequenceModel:
    """An unfitted network."""
    torch.manual_seed(0)
    config: RunConfig = preset("small", "fraud")
    return build_model(data, config).eval()


def test_the_share_is_the_best_on_validation(synthetic: Sets) -> None:
    """The kept figures are those of the parts and of the whole; the whole is no worse than either part."""
    data = synthetic("fraud")
    model = network(data)
    parts = add_trees(model, data, "auc", seed=0)
    places = data.of(VALIDATION)

    def auc(score: np.ndarray) -> float:
        return binary_metrics(data.target[places], score, 0.5)["auc"]

    assert parts.validation[TOGETHER] == pytest.approx(auc(predict(model, data, places)["score"]), abs=1e-4)
    for name, score in alone(model, data, places).items():
        assert parts.validation[name] == pytest.approx(auc(score), abs=1e-4)
    assert parts.validation[TOGETHER] >= max(parts.validation[NETWORK], parts.validation[TREES])
    assert sum(parts.weights.values()) == pytest.approx(1)


def test_without_their_share_the_network_is_as_before(synthetic: Sets, joined: SequenceModel) -> None:
    """What the network says alone is what it said before the trees came."""
    data = synthetic("fraud")
    test = data.of(TEST)
    np.testing.assert_array_equal(alone(joined, data, test)[NETWORK], predict(network(data), data, test)["score"])
    assert alone(network(data), data, test) == {}


def test_the_export_is_the_same_model_with_one_node_of_trees(
    synthetic: Sets, joined: SequenceModel, tmp_path: Path
) -> None:
    """Eager torch and the file agree on other rows than those traced."""
    data = synthetic("fraud")
    write_onnx(joined, data.encoding, tmp_path / "model.onnx")
    nodes = [one.op_type for one in onnx.load(tmp_path / "model.onnx").graph.node]
    assert nodes.count("TreeEnsembleRegressor") == 1
    session = ort.InferenceSession(tmp_path / "model.onnx")
    test = data.of(TEST)
    rng = np.random.default_rng(0)
    inputs = {}
    for name, (dtype, shape) in data.encoding.inputs().items():
        sizes = [len(test) if one == "batch" else 4 if isinstance(one, str) else one for one in shape]
        inputs[name] = np.zeros(sizes, dtype)
        if name.endswith("__length"):
            inputs[name] = rng.integers(0, 5, sizes).astype(dtype)
    inputs["request_ids"] = data.request_ids[test].astype(inputs["request_ids"].dtype)
    inputs["request_numbers"] = data.request_numbers[test]
    with torch.no_grad():
        wanted = ServedModel(joined, list(inputs)).eval()(*(torch.from_numpy(one) for one in inputs.values())).numpy()
    there = {one.name for one in session.get_inputs()}
    (found,) = session.run(None, {name: array for name, array in inputs.items() if name in there})
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert wanted.std() > 0.01
