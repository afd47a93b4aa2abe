"""The matrix products of a training step: which they are, and how fast this machine does them alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from pytorch_lightning import Callback
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Product:
    """[rows, inner] @ [inner, columns], and which of the two lies transposed in memory."""

    rows: int
    inner: int
    columns: int
    left: bool
    right: bool

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each of rows x inner x columns."""
        return 2 * self.rows * self.inner * self.columns


class _Recorder(TorchDispatchMode):
    """Notes every product of two matrices; those within attention, of one row of a batch each, are not such."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own
        del types
        name = func.overloadpacket
        if name in {torch.ops.aten.mm, torch.ops.aten.addmm}:
            left, right = args[-2:]
            self.products.append(
                Product(left.shape[0], left.shape[1], right.shape[1], _transposed(left), _transposed(right))
            )
        return func(*args, **(kwargs or {}))


def _transposed(matrix: torch.Tensor) -> bool:
    return bool(matrix.stride(0) == 1 and matrix.stride(1) != 1)


class StepProducts(Callback):
    """Notes the products of each step of a fit in order, those of its backward pass among them, and its places."""

    def __init__(self) -> None:
        """`products` are those of the last step, `places` the positions of its rows, padding included."""
        self.products: list[Product] = []
        self.places = 0
        self._recorder = _Recorder()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """Begin to note."""
        del trainer, pl_module, batch_idx
        self.places = sum(one.shape[0] * one.shape[1] for name, one in batch.items() if name.endswith("__ids"))
        self._recorder = _Recorder()
        self._recorder.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """The step is done."""
        del trainer, pl_module, outputs, batch, batch_idx
        self._recorder.__exit__(None, None, None)
        self.products = self._recorder.products


class Alone:
    """Products with nothing between them, each on operands of its own, as a step has them."""

    def __init__(self, products: list[Product]) -> None:
        """Random operands."""
        self.operands = [
            (_matrix(one.rows, one.inner, one.left), _matrix(one.inner, one.columns, one.right), _result(one))
            for one in products
        ]
        self.flops = sum(one.flops for one in products)

    def rate(self, seconds: float) -> float:
        """Floating point operations a second: the median pass of those that fit into so many seconds."""
        took: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or not took:
            began = time.perf_counter()
            for left, right, out in self.operands:
                torch.mm(left, right, out=out)
            took.append(time.perf_counter() - began)
        return self.flops / median(took)


def _matrix(rows: int, columns: int, transposed: bool) -> torch.Tensor:  # noqa: FBT001 - as a product has it
    return torch.randn(columns, rows).T if transposed else torch.randn(rows, columns)


def _result(one: Product) -> torch.Tensor:
    return torch.empty(one.rows, one.columns)
