"""What the recurrent families share; they differ in the layer alone."""

from __future__ import annotations

import torch
from torch import nn

from training.config import EncoderConfig
from training.encoders.base import Encoder


class RecurrentEncoder(Encoder):
    """x_BLD -> h_BLD; the residual lets the last event through unchanged."""

    def __init__(self, layer: type[nn.RNNBase], config: EncoderConfig) -> None:
        """Build `config.layers` layers of width D."""
        super().__init__()
        self.recurrent = layer(
            config.width,
            config.width,
            num_layers=config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Causal by construction: padding to the right is never looked at."""
        h_BLD, _ = self.recurrent(x_BLD)
        return self.norm(x_BLD + h_BLD)
