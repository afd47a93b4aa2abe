"""Gated blocks without softmax, after HSTU (Zhai et al. 2024): pointwise attention, gated, one residual a block.

Attention weighs each event before by silu(q k + bias) instead of a share of one: how much there is in a history is
kept, where a softmax keeps proportions. The bias is learned curves of the distance in places and, with `time_bias`,
in time; both are made once a batch and shared by the blocks (the paper has them by layer). The result is normalised,
so it is not divided by the length first.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders.base import Encoder, Packing
from training.encoders.dropout import dropout
from training.encoders.feed_forward import calm
from training.encoders.log_bias import LogBias

_PLACES, _YEAR = 1_024.0, 365.0 * 86_400
_HIDDEN = -1e4
"""silu of this is 0, and so is its slope."""


class Block(nn.Module):
    """Projections, pointwise attention and gate in one."""

    def __init__(self, config: EncoderConfig) -> None:
        """Width D, `config.heads` heads."""
        super().__init__()
        if config.width % config.heads:
            message = f"width {config.width} must be a multiple of {config.heads} heads"
            raise ValueError(message)
        self.heads, self.dropout = config.heads, config.dropout
        self.norm, self.attended_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query_key_value_gate = nn.Linear(config.width, 4 * config.width)
        self.out = nn.Linear(config.width, config.width)
        calm(self.out, config.layers)

    def forward(self, x_BLD: torch.Tensor, bias_NLL: torch.Tensor) -> torch.Tensor:
        """x_BLD -> x_BLD; `bias_NLL` by row and head, N = B x H."""
        parts = F.silu(self.query_key_value_gate(self.norm(x_BLD))).chunk(4, -1)
        q_NLE, k_NLE, v_NLE = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1) for part in parts[:3])
        weight_NLL = F.silu(torch.baddbmm(bias_NLL, q_NLE, k_NLE.transpose(1, 2)))
        attended_NLE = torch.bmm(weight_NLL, v_NLE)
        attended_BLD = attended_NLE.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
        gated_BLD = self.attended_norm(attended_BLD) * parts[3]
        return x_BLD + self.out(dropout(gated_BLD, self.dropout, self.training))


class HstuEncoder(Encoder):
    """x_BLD -> h_BLD through `config.layers` blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Stack the blocks."""
        super().__init__()
        self.place_bias = LogBias(config.heads, _PLACES)
        self.time_bias = LogBias(config.heads, _YEAR) if config.time_bias else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """Causal: position p attends to its own sequence up to p."""
        bias_NLL = self._bias(x_BLD, packing or Packing())
        for block in self.blocks:
            x_BLD = block(x_BLD, bias_NLL)
        return self.norm(x_BLD)

    def _bias(self, x_BLD: torch.Tensor, packing: Packing) -> torch.Tensor:
        """What is added to attention by row and head. A distance in a packed row is one in the sequence itself."""
        place_1L = torch.arange(x_BLD.shape[1], device=x_BLD.device)[None]
        bias_BHLL = self.place_bias(place_1L, place_1L) + packing.mask(x_BLD, _HIDDEN)
        if self.time_bias is not None and packing.time_BL is not None:
            bias_BHLL = bias_BHLL + self.time_bias(packing.time_BL, packing.time_BL)
        return bias_BHLL.expand(x_BLD.shape[0], -1, -1, -1).flatten(0, 1)


def build(config: EncoderConfig) -> Encoder:
    """The encoder of this file."""
    return HstuEncoder(config)
