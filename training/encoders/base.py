"""What all encoders have in common."""

from __future__ import annotations

import torch
from torch import nn


class Encoder(nn.Module):
    """x_BLD -> h_BLD, causal: h at position p has seen x[0..p] and nothing later."""

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """h_BD at each sequence's last position, which is all that serving reads; of length 0 it means nothing."""
        return at_last(self(x_BLD), length_B)[:, 0]


def at_last(x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """x_B1D at each sequence's last position."""
    last_B11 = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, x_BLD.shape[2])
    return x_BLD.gather(1, last_B11)
