"""Causal transformer: pre-norm blocks, rotary positions, fused attention where the machine has it.

Positions are rotary (Su et al. 2021), so attention sees distances alone: an event means the same wherever a window
was cut, which lets training share one long window between many queries. Time itself enters with each event (gap, hour).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders.base import Encoder, at_last

_BASE = 10_000.0


def rotate(x_BHLE: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Turn each pair of (first half, second half) by position x frequency; `position` is [L], or [B, 1, L]."""
    half = x_BHLE.shape[3] // 2
    frequency = _BASE ** (-torch.arange(half, device=x_BHLE.device, dtype=torch.float32) / half)
    angle = position.to(torch.float32)[..., None] * frequency
    cos, sin = angle.cos().to(x_BHLE.dtype), angle.sin().to(x_BHLE.dtype)
    first, second = x_BHLE[..., :half], x_BHLE[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised copy and added."""

    def __init__(self, config: EncoderConfig) -> None:
        """Width D, `config.heads` heads."""
        super().__init__()
        if config.width % (2 * config.heads):
            message = f"width {config.width} must be a multiple of 2 x {config.heads} heads (rotary positions)"
            raise ValueError(message)
        self.heads, self.dropout = config.heads, config.dropout
        self.attention_norm, self.forward_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.up, self.down = nn.Linear(config.width, 4 * config.width), nn.Linear(4 * config.width, config.width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """x_BLD -> x_BLD."""
        batch, length, width = x_BLD.shape
        split = self.query_key_value(self.attention_norm(x_BLD)).view(batch, length, 3, self.heads, width // self.heads)
        q_BHLE, k_BHLE, v_BHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        position_L = torch.arange(length, device=x_BLD.device)
        attended = F.scaled_dot_product_attention(
            rotate(q_BHLE, position_L), rotate(k_BHLE, position_L), v_BHLE, is_causal=True
        )
        return self._finish(x_BLD, attended)

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """x_BLD -> x_B1D at each sequence's last position: of all others only keys and values are computed."""
        batch, length, width = x_BLD.shape
        shape = (2, self.heads, width // self.heads)
        normed_BLD, own_B1D = self.attention_norm(x_BLD), at_last(x_BLD, length_B)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        q_BHLE = F.linear(self.attention_norm(own_B1D), weight[:width], bias[:width]).view(batch, 1, *shape[1:])
        split = F.linear(normed_BLD, weight[width:], bias[width:]).view(batch, length, *shape)
        k_BHLE, v_BHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        position_L, own_B11 = torch.arange(length, device=x_BLD.device), (length_B - 1)[:, None, None]
        attended = F.scaled_dot_product_attention(
            rotate(q_BHLE.transpose(1, 2), own_B11),
            rotate(k_BHLE, position_L),
            v_BHLE,
            attn_mask=(position_L <= own_B11.clamp(min=0))[:, None],
        )
        return self._finish(own_B1D, attended)

    def _finish(self, x_BLD: torch.Tensor, attended_BHLE: torch.Tensor) -> torch.Tensor:
        merged_BLD = attended_BHLE.transpose(1, 2).reshape(x_BLD.shape)
        x_BLD = x_BLD + F.dropout(self.out(merged_BLD), self.dropout, self.training)
        inner = F.gelu(self.up(self.forward_norm(x_BLD)), approximate="tanh")
        return x_BLD + F.dropout(self.down(inner), self.dropout, self.training)


class TransformerEncoder(Encoder):
    """x_BLD -> h_BLD through `config.layers` blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Stack the blocks."""
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Causal: position p attends to 0..p."""
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.norm(x_BLD)

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """As `Encoder.last`, with a third less work."""
        *before, final = self.blocks
        for block in before:
            x_BLD = block(x_BLD)
        return self.norm(final.last(x_BLD, length_B))[:, 0]


def build(config: EncoderConfig) -> Encoder:
    """The encoder of this file."""
    return TransformerEncoder(config)
