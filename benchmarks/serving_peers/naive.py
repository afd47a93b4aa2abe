"""The obvious service: a typed BentoML endpoint that asks Feast for features and runs the model in eager torch.

The same shop, state, encoding and weights as the bundle; it asks for no more features than the model reads, and item
vectors are computed once. It says nothing of itself, keeps no record and filters nothing.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import torch

from clicktrail import settings
from clicktrail.encoding import Encoding
from clicktrail.feast_repo import open_store
from training.config import RunConfig
from training.model import SequenceModel

_CONFIG = json.loads(os.environ["PEER_CONFIG"])


class _Model:
    """Features from Feast in, what the model says out."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        chosen = settings.load()
        export = Path(os.environ["PEER_EXPORT"])
        kept = torch.load(os.environ["PEER_WEIGHTS"], weights_only=True)
        interface = json.loads((export / "interface.json").read_text())
        self.encoding = Encoding.from_json(json.loads((export / "encoding.json").read_text()))
        facts = None if kept["facts"] is None else kept["facts"].numpy()
        self.model = SequenceModel(
            RunConfig.from_json(kept["config"]), self.encoding, interface["head"], facts=facts
        ).eval()
        self.model.load_state_dict(kept["weights"])
        self.features = [
            f"{view['name']}:{name}"
            for view in interface["declarations"]
            for name in view["fields"] or [one["name"] for one in view["aggregates"]]
        ]
        self.store = open_store(chosen)

    @torch.no_grad()
    def __call__(self, keys: dict[str, Any], request: dict[str, Any]) -> torch.Tensor:
        found = self.store.get_online_features(self.features, [keys], full_feature_names=True).to_dict()
        views: dict[str, dict[str, Any]] = {}
        for name, values in found.items():
            if "__" in name:
                view, feature = name.split("__", 1)
                views.setdefault(view, {})[feature] = values
        fields = {name: [value] for name, value in request.items()}
        arrays = self.encoding.encode_lists(views, fields, np.array([time.time_ns() // 1_000]))
        batch = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        for view in self.model.events:
            batch[f"{view}__position"] = batch[f"{view}__length"] - 1
        return self.model({**batch, "window": torch.zeros(1, dtype=torch.int64)})


@bentoml.service(name="naive", **_CONFIG)
class Recommendation:
    """The next item."""

    def __init__(self) -> None:
        """Load the model and the item vectors."""
        self.model = _Model()
        with torch.no_grad():
            self.vectors, self.bias = self.model.model.item_vectors()
        self.names = self.model.encoding.vocabularies["item_id"]

    @bentoml.api(route="/recommend")
    def recommend(self, user_id: str, k: int = 10) -> dict[str, Any]:
        """The k best items."""
        query = self.model({"user_id": user_id}, {})
        best = (query @ self.vectors.T + self.bias)[0].topk(k)
        names = [self.names[place] for place in best.indices.tolist()]
        return {
            "items": [
                {"item_id": name, "score": score} for name, score in zip(names, best.values.tolist(), strict=True)
            ]
        }


@bentoml.service(name="naive", **_CONFIG)
class Retention:
    """The probability that a user comes back."""

    def __init__(self) -> None:
        """Load the model."""
        self.model = _Model()

    @bentoml.api(route="/score")
    def score(self, user_id: str) -> dict[str, Any]:
        """The probability."""
        return {"score": float(torch.sigmoid(self.model({"user_id": user_id}, {})[0]))}


@bentoml.service(name="naive", **_CONFIG)
class Fraud:
    """The probability that a payment is fraud."""

    def __init__(self) -> None:
        """Load the model."""
        self.model = _Model()

    @bentoml.api(route="/score")
    def score(
        self, event_id: str, user_id: str, card_id: str, terminal_id: str, price_minor: int, device: str
    ) -> dict[str, Any]:
        """The probability."""
        keys = {"user_id": user_id, "card_id": card_id, "terminal_id": terminal_id}
        score = self.model(keys, {**keys, "price_minor": price_minor, "device": device})
        return {"event_id": event_id, "score": float(torch.sigmoid(score[0]))}
