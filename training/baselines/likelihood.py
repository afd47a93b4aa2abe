"""Maximum likelihood over positive parameters, for the models of repeat purchase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from training.purchases.history import Floats, Summary

_SMALLEST, _LARGEST = 1e-3, 1e3  # a parameter at an end: customers do not differ in what it describes


def maximise(total: Callable[[Floats], float], *, start: Sequence[float], seen: Summary, name: str) -> Floats:
    """Parameters of the greatest log-likelihood, searched as logarithms, each from `start`.

    Args:
        total: parameters [k] -> log-likelihood of all customers.
        start: [k], parameters to begin with, in weeks.
        seen: whom the likelihood is of.
        name: of the model, for errors.

    Raises:
        ValueError: nobody bought twice, so nothing tells rates from leaving; or the search failed.
    """
    if not (seen.x > 0).any():
        message = (
            f"{name} cannot be fitted: none of {len(seen)} customers bought on a second day; give a longer history"
        )
        raise ValueError(message)
    found = minimize(
        lambda logs: -total(np.exp(logs)) / len(seen),
        np.log(np.asarray(start)),
        method="L-BFGS-B",
        jac="3-point",
        bounds=[(np.log(_SMALLEST), np.log(_LARGEST))] * len(start),
        options={"ftol": 1e-10, "gtol": 1e-6, "maxiter": 300},
    )
    if not np.isfinite(found.fun):
        message = f"{name} cannot be fitted to {len(seen)} customers: {found.message}"
        raise ValueError(message)
    return np.exp(found.x)
