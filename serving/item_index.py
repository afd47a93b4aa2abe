"""The index of the item vectors of a bundle that has one: nearest items without a look at all of them.

Loaded, and its package required, by such a bundle alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from serving.manifest import RefusedError


class ItemIndex:
    """A mapped file of usearch, of vectors with their bias as one more number."""

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        """Open the one that `item_index.json` describes.

        Raises:
            RefusedError: it is none.
        """
        path = folder / described["file"]
        index = Index.restore(str(path), view=True)
        if index is None:
            message = f"{path} is no index of items: export the run again"
            raise RefusedError(message)
        self._index = index
        self.looks_at = int(described["looks_at"])

    def near(self, query: np.ndarray, count: int) -> np.ndarray:
        """Places of about the best `count` items for a query (float32 [D]), rising; int64 [up to count]."""
        self._index.expansion_search = max(self.looks_at, count)  # type: ignore[misc] # its setter stands apart
        found = self._index.search(np.append(query, np.float32(1)), count)
        return np.sort(found.keys.astype(np.int64))
