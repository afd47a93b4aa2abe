"""Dropout whose mask costs little on a CPU.

torch draws a random number for each value there, which takes longer than a normalisation. A byte a value is enough:
shares come in steps of 1/256, and what is kept is scaled by the share that was really kept.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

_BYTE, _WORD = 256, 8


def dropout(x: torch.Tensor, share: float, training: bool) -> torch.Tensor:  # noqa: FBT001 - as torch's own
    """`x` with about `share` of its values 0 and the others scaled up, in training; drawn by torch's own generator."""
    dropped = round(share * _BYTE)
    if not training or not dropped:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, share)
    words = torch.empty(-(-x.numel() // _WORD), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(_BYTE / (_BYTE - dropped))


class Dropout(nn.Module):
    """`dropout` as a layer."""

    def __init__(self, share: float) -> None:
        """`share` of the values is dropped in training."""
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop some."""
        return dropout(x, self.share, self.training)
