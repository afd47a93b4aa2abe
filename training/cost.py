"""What a run cost: time, energy, arithmetic, and how near it came to what the machine can do.

Arithmetic is counted on one real training step (torch's flop counter and the shapes of its matrix products) and
spread over the real events in it, so that padding and recomputation count as cost and not as work. The rate that it is
held against is measured on the spot: the same matrix products alone, in the same precision.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Product = tuple[int, int, int, int]
"""A matrix product: batch, M, K, N."""

_ENOUGH = 0.9  # share of the arithmetic whose products are measured: the small ones are many and weigh nothing
_MEASURED_SECONDS = 0.6


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step: `flops` of all of it, forward and backward; how often each matrix product stands in it."""

    flops: int
    products: dict[Product, int]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a fit cost.

    `flops`: of all training steps, `flops_per_event`: by real event. `mfu`: achieved arithmetic as a share of
    `product_flops_per_second`, the rate of the step's own matrix products alone. `energy`: how `joules` were found.
    """

    seconds: float
    parameters: int
    events: int
    events_per_second: float
    flops_per_event: float
    flops: float
    flops_per_second: float
    product_flops_per_second: float
    mfu: float
    joules: float
    energy: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, rounded to what means something."""
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }


def cost(
    *,
    seconds: float,
    events: int,
    events_per_second: float,
    parameters: int,
    step: Step,
    step_events: int,
    rate: float,
    joules: float,
    energy: str,
) -> Cost:
    """Put together what was measured.

    Args:
        seconds: of the fit, validation included.
        events: real events that training read.
        events_per_second: in training alone.
        parameters: weights of the model.
        step: one step.
        step_events: real events in it.
        rate: floating-point operations a second that its matrix products reach alone.
        joules: energy of the fit.
        energy: how it was found.
    """
    by_event = step.flops / max(1, step_events)
    return Cost(
        seconds=seconds,
        parameters=parameters,
        events=events,
        events_per_second=events_per_second,
        flops_per_event=by_event,
        flops=by_event * events,
        flops_per_second=by_event * events_per_second,
        product_flops_per_second=rate,
        mfu=by_event * events_per_second / rate if rate else 0.0,
        joules=joules,
        energy=energy,
    )


def count(step: Callable[[], torch.Tensor]) -> Step:
    """Count the arithmetic of a step; `step` gives its loss, and the backward pass is done here."""
    flops = FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)
    products = _Products()
    with flops, products:
        step().backward()
    return Step(flops=flops.get_total_flops(), products=dict(products.found))


def product_rate(products: dict[Product, int], device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of these products alone, each weighed by its share of them.

    Takes under a second: the largest products are repeated in turn until the time is up.
    """
    work = {one: 2 * count * one[0] * one[1] * one[2] * one[3] for one, count in products.items()}
    total, kept, measured = sum(work.values()), [], 0
    for one in sorted(work, key=lambda one: -work[one]):
        if measured >= _ENOUGH * total:
            break
        kept.append(one)
        measured += work[one]
    seconds = 0.0
    for one in kept:
        batch, m, k, n = one
        left = torch.randn(batch, m, k, device=device, dtype=dtype)
        right = torch.randn(batch, k, n, device=device, dtype=dtype)
        seconds += products[one] * _best_of(left, right, _MEASURED_SECONDS / len(kept))
    return measured / seconds if seconds else 0.0


def _best_of(left: torch.Tensor, right: torch.Tensor, budget: float) -> float:
    """Seconds of a product: the best of as many as the budget holds, so that what else goes on does not count."""
    best, until = float("inf"), time.perf_counter() + budget
    while True:
        begun = time.perf_counter()
        torch.bmm(left, right)
        if left.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        best = min(best, now - begun)
        if now > until:
            return best


# ---- what torch's counter leaves out: the CPU's own kernels of attention and LSTM


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401 - shapes
    return sdpa_flop_count(query, key, value)


def _attention_back(out: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401 - shapes
    return sdpa_backward_flop_count(out, query, key, value)


def _lstm(x_TBI: Any, weight_GI: Any, weight_GH: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401 - shapes
    steps, rows = x_TBI[:2]
    return 2 * steps * rows * weight_GI[0] * (weight_GI[1] + weight_GH[1])


def _lstm_back(*shapes: Any, **__: Any) -> int:  # noqa: ANN401 - shapes
    return 2 * _lstm(*shapes)


_ATEN = torch.ops.aten
_UNCOUNTED = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,  # noqa: SLF001 - so it is called
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_back,  # noqa: SLF001
    _ATEN.mkldnn_rnn_layer: _lstm,
    _ATEN.mkldnn_rnn_layer_backward: _lstm_back,
}


class _Products(TorchDispatchMode):
    """Writes down the shapes of the matrix products that are carried out, those within attention and LSTM too."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's signature
        del types
        packet = func.overloadpacket
        if packet in {_ATEN.mm, _ATEN.bmm}:
            self._product(*args[:2])
        elif packet in {_ATEN.addmm, _ATEN.baddbmm}:
            self._product(*args[1:3])
        elif "scaled_dot_product" in packet.__name__:
            backward = "backward" in packet.__name__
            self._attention(*args[int(backward) : int(backward) + 2], forward=not backward)
        elif packet is _ATEN.mkldnn_rnn_layer:
            self._lstm(*args[:3], times=1)
        elif packet is _ATEN.mkldnn_rnn_layer_backward:
            self._lstm(*args[:3], times=2)
        return func(*args, **(kwargs or {}))

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        batch = left.shape[0] if left.ndim == 3 else 1  # noqa: PLR2004 - a batch of matrices
        self.found[batch, left.shape[-2], left.shape[-1], right.shape[-1]] += 1

    def _attention(self, query_BHQE: torch.Tensor, key_BHKE: torch.Tensor, *, forward: bool) -> None:
        rows, heads, asked, width = query_BHQE.shape
        known = key_BHKE.shape[2]
        # backward: the scores once more, and the gradients of weights, values, queries and keys
        self.found[rows * heads, asked, width, known] += 1 if forward else 2
        self.found[rows * heads, asked, known, width] += 1 if forward else 3

    def _lstm(self, x_TBI: torch.Tensor, weight_GI: torch.Tensor, weight_GH: torch.Tensor, *, times: int) -> None:
        steps, rows, width = x_TBI.shape
        self.found[1, steps * rows, width, weight_GI.shape[0]] += times
        self.found[1, rows, weight_GH.shape[1], weight_GH.shape[0]] += times * steps
