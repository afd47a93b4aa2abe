"""What kernels take: contiguous arrays of one type, marked read-only."""

from __future__ import annotations

import numpy as np


def readonly(values: np.ndarray, dtype: type = np.int64) -> np.ndarray:
    """The same values as a contiguous read-only array of `dtype`; copied only where that takes a copy."""
    view: np.ndarray = np.ascontiguousarray(values, dtype).view()
    view.flags.writeable = False
    return view
