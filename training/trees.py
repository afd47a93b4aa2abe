"""Boosted trees as a layer: the numbers of grown trees, evaluated by torch and exported as one node of ONNX.

What the trees read is a float row; a value that is not a number takes each node's own way for missing ones. Compared
is `value < threshold`, true goes left, as xgboost does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

_DOMAIN, _OPSET = "ai.onnx.ml", 3
CUSTOM_OPSETS = {_DOMAIN: _OPSET}
"""What the exporter has to be told."""


class Trees(nn.Module):
    """x_BF -> margin_B: `base` and the sum of one leaf a tree. T trees of N nodes at most, shorter ones padded."""

    feature_TN: torch.Tensor
    threshold_TN: torch.Tensor
    left_TN: torch.Tensor
    right_TN: torch.Tensor
    missing_left_TN: torch.Tensor
    value_TN: torch.Tensor

    def __init__(
        self, grown: Sequence[Mapping[str, Sequence[float]]], base: float, depth: int, share: float = 1.0
    ) -> None:
        """Take over trees.

        Args:
            grown: a tree each, in the words of xgboost's JSON: `left_children` and `right_children` (-1 at a leaf),
                `split_indices`, `split_conditions` (of a leaf its value), `default_left`.
            base: the margin before any tree.
            depth: no leaf is deeper.
            share: of each leaf's value that counts.
        """
        super().__init__()
        self.base, self.depth = base, depth
        size = max(len(tree["left_children"]) for tree in grown)

        def column(name: str, dtype: type) -> np.ndarray:
            out: np.ndarray = np.zeros((len(grown), size), dtype)
            for place, tree in enumerate(grown):
                out[place, : len(tree[name])] = tree[name]
            return out

        left = column("left_children", np.int64)
        leaf = left < 0
        here = np.broadcast_to(np.arange(size), left.shape)  # a leaf leads to itself, so all walks are `depth` steps
        split = column("split_conditions", np.float32)
        for name, values in {
            "feature_TN": np.where(leaf, 0, column("split_indices", np.int64)),
            "threshold_TN": np.where(leaf, np.float32(0), split),
            "left_TN": np.where(leaf, here, left),
            "right_TN": np.where(leaf, here, column("right_children", np.int64)),
            "missing_left_TN": column("default_left", np.bool_),
            "value_TN": np.where(leaf, split * np.float32(share), np.float32(0)),
        }.items():
            self.register_buffer(name, torch.from_numpy(values))
        self.sizes = [len(tree["left_children"]) for tree in grown]

    @classmethod
    def of_boosters(cls, boosters: Sequence[tuple[bytes, int]], base: float) -> Trees:
        """The mean of some boosters that started from one margin.

        Args:
            boosters: of each `Booster.save_raw("json")`, and how many of its trees count.
            base: the margin.
        """
        grown = [
            tree
            for raw, rounds in boosters
            for tree in json.loads(raw)["learner"]["gradient_booster"]["model"]["trees"][:rounds]
        ]
        depth = max(_depth(tree["left_children"], tree["right_children"]) for tree in grown)
        return cls(grown, base, depth, 1 / len(boosters))

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        """Margins, float32 [B]."""
        if torch.onnx.is_in_onnx_export():
            found: torch.Tensor = _Node.apply(x_BF, self)
            return found[:, 0]
        tree_T = torch.arange(len(self.sizes), device=x_BF.device)
        at_BT = torch.zeros(len(x_BF), len(self.sizes), dtype=torch.int64, device=x_BF.device)
        for _ in range(self.depth):
            value_BT = x_BF.gather(1, self.feature_TN[tree_T, at_BT])
            missing_BT = value_BT.isnan() & self.missing_left_TN[tree_T, at_BT]
            goes_left_BT = (value_BT < self.threshold_TN[tree_T, at_BT]) | missing_BT
            at_BT = torch.where(goes_left_BT, self.left_TN[tree_T, at_BT], self.right_TN[tree_T, at_BT])
        return self.base + self.value_TN[tree_T, at_BT].sum(1)

    def node(self) -> dict[str, Any]:
        """Attributes of ONNX's TreeEnsembleRegressor, leaves and splits in the order of the trees."""
        tree = np.repeat(np.arange(len(self.sizes)), self.sizes)
        place = np.concatenate([np.arange(size) for size in self.sizes])
        of = {name: getattr(self, name).cpu().numpy()[tree, place] for name in ("feature_TN", "threshold_TN")}
        left, right, value, missing = (
            getattr(self, name).cpu().numpy()[tree, place]
            for name in ("left_TN", "right_TN", "value_TN", "missing_left_TN")
        )
        leaf = left == place
        return {
            "nodes_treeids_i": tree.tolist(),
            "nodes_nodeids_i": place.tolist(),
            "nodes_featureids_i": of["feature_TN"].tolist(),
            "nodes_values_f": of["threshold_TN"].tolist(),
            "nodes_modes_s": ["LEAF" if one else "BRANCH_LT" for one in leaf],
            "nodes_truenodeids_i": np.where(leaf, 0, left).tolist(),
            "nodes_falsenodeids_i": np.where(leaf, 0, right).tolist(),
            "nodes_missing_value_tracks_true_i": missing.astype(int).tolist(),
            "target_treeids_i": tree[leaf].tolist(),
            "target_nodeids_i": place[leaf].tolist(),
            "target_ids_i": [0] * int(leaf.sum()),
            "target_weights_f": value[leaf].tolist(),
            "n_targets_i": 1,
            "base_values_f": [self.base],
        }


class _Node(torch.autograd.Function):
    """The trees as one node: a runtime pays for each node, and steps through them would be ten a level."""

    @staticmethod
    def forward(ctx: Any, x_BF: torch.Tensor, trees: Trees) -> torch.Tensor:  # noqa: ANN401, ARG004 - torch's signature
        return x_BF.new_zeros(len(x_BF), 1)

    @staticmethod
    def symbolic(g: Any, x_BF: Any, trees: Trees) -> Any:  # noqa: ANN401 - torch's own types of a graph
        return g.op(f"{_DOMAIN}::TreeEnsembleRegressor", x_BF, **trees.node())


def read(ids_QC: torch.Tensor, numbers_QV: torch.Tensor) -> torch.Tensor:
    """What trees read of `Encoding.request`: ids as numbers, and values that are nan where they are null; x_QF."""
    values_QV, null_QV = numbers_QV.chunk(2, 1)
    known_QV = torch.where(null_QV > 0, torch.full_like(values_QV, torch.nan), values_QV)
    return torch.cat([ids_QC.to(values_QV.dtype), known_QV], 1)


def _depth(left: Sequence[int], right: Sequence[int]) -> int:
    """Steps from the root to the deepest leaf; children come after their parent."""
    depth = [0] * len(left)
    for place, (one, other) in enumerate(zip(left, right, strict=True)):
        if one >= 0:
            depth[one] = depth[other] = depth[place] + 1
    return max(depth)
