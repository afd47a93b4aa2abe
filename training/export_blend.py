"""What a bundle holds of the simple recommenders beside a next-item network (training/blended.py).

Files, plain arrays:
  blend_starts.npy      int64 [I + 1]; the neighbours of item i are those from starts[i] to starts[i + 1]
  blend_neighbours.npy  int32 [N], their places
  blend_closeness.npy   float32 [N], how near they are, above 0
  blend_popularity.npy  float32 [I], how often each item is chosen, above 0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.blended import COVISITS, OWN, POPULARITY, Blended

STARTS, NEIGHBOURS, CLOSENESS, POPULAR = (
    "blend_starts.npy",
    "blend_neighbours.npy",
    "blend_closeness.npy",
    "blend_popularity.npy",
)

_LEAST = np.float32(1e-20)
"""The least closeness: what is nearly nothing must stay something when it fades."""


def write_blend(blended: Blended, folder: Path) -> dict[str, Any] | None:
    """Write the files into a folder; gives what interface.json says of the blend, None where the network is alone.

    `weights` sum to one but for rounding; `roots`: by how many square roots each distribution is flattened; of the
    `last` events of a history (null: all that the model reads) the newest counts 1, the one before `decay`, and so on.
    """
    if blended.network_alone:
        return None
    weights, companions = blended.blend.weights, blended.companions
    arrays = {POPULAR: companions.popularity}
    described: dict[str, Any] = {
        "weights": weights,
        "roots": blended.blend.roots,
        COVISITS: None,
        OWN: {"last": None, "decay": companions.own.decay},
        POPULARITY: {"chosen": POPULAR},
    }
    if weights[COVISITS]:
        near = companions.covisits.similarity.tocsr()
        arrays |= {
            STARTS: near.indptr.astype(np.int64),
            NEIGHBOURS: near.indices.astype(np.int32),
            CLOSENESS: near.data,
        }
        described[COVISITS] = {
            "last": companions.covisits.last,
            "decay": companions.covisits.chosen.query_decay,
            "starts": STARTS,
            "neighbours": NEIGHBOURS,
            "closeness": CLOSENESS,
        }
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)
    return described
