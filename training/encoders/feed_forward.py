"""The gated feed-forward part of a block (SwiGLU, Shazeer 2020)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders.dropout import dropout

_MULTIPLE = 16


def inner_width(width: int) -> int:
    """8/3 of the width, as many weights as two maps of four times the width have, to a multiple that machines like."""
    return -(-8 * width // (3 * _MULTIPLE)) * _MULTIPLE


class GatedForward(nn.Module):
    """x_BLD -> x_BLD: silu(gate) x up on a normalised copy, brought down to D and added."""

    def __init__(self, config: EncoderConfig) -> None:
        """Width D."""
        super().__init__()
        inner = inner_width(config.width)
        self.dropout = config.dropout
        self.norm = nn.LayerNorm(config.width)
        # two maps, not one that is cut: halves of one array would be read with gaps, at twice the time
        self.gate, self.up = nn.Linear(config.width, inner), nn.Linear(config.width, inner)
        self.down = nn.Linear(inner, config.width)
        calm(self.down, config.layers)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Add what this part says."""
        normed_BLD = self.norm(x_BLD)
        inner = F.silu(self.gate(normed_BLD)) * self.up(normed_BLD)
        return x_BLD + dropout(self.down(inner), self.dropout, self.training)


def calm(out: nn.Linear, layers: int) -> None:
    """Scale down what a branch adds, so that the sum over `layers` blocks of two branches starts no larger than one."""
    with torch.no_grad():
        out.weight.mul_((2 * layers) ** -0.5)
