"""Causal transformer: pre-norm blocks, rotary positions, fused attention where the machine has it.

Positions are rotary (Su et al. 2021), so attention sees distances alone: an event means the same wherever a window
was cut, which lets training share one long window between many queries. Time itself enters with each event (gap, hour).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from training.config import EncoderConfig
from training.encoders.base import Encoder, Packing, at_last

_BASE = 10_000.0


def turns(position: torch.Tensor, width: int) -> torch.Tensor:
    """Cosine and sine of position x frequency for heads of this width, [2, ..., width / 2]; `position` is [...]."""
    half = width // 2
    frequency = _BASE ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angle = position.to(torch.float32)[..., None] * frequency
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn each pair of (first half, second half) of the last axis; `turn` from `turns`."""
    (first, second), (cos, sin) = x.chunk(2, dim=-1), turn.to(x.dtype)
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

    def forward(self, x_BLD: torch.Tensor, turn: torch.Tensor, sees_B1LL: torch.Tensor | None) -> torch.Tensor:
        """x_BLD -> x_BLD; `turn` [2, (B, 1,) L, E / 2] is that of the positions, `sees_B1LL` None for all before."""
        batch, length, width = x_BLD.shape
        split = self.query_key_value(self.attention_norm(x_BLD)).view(batch, length, 3, self.heads, width // self.heads)
        parts = split.permute(2, 0, 3, 1, 4)
        q_BHLE, k_BHLE = rotate(parts[:2], turn).unbind(0)
        attended = F.scaled_dot_product_attention(
            q_BHLE, k_BHLE, parts[2], attn_mask=sees_B1LL, is_causal=sees_B1LL is None
        )
        return self._finish(x_BLD, attended)

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """x_BLD -> x_B1D at each sequence's last position: of all others only keys and values are computed."""
        batch, length, width = x_BLD.shape
        shape = (2, self.heads, width // self.heads)
        normed_BLD, own_B1D = self.attention_norm(x_BLD), at_last(x_BLD, length_B)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        q_BHLE = F.linear(self.attention_norm(own_B1D), weight[:width], bias[:width]).view(batch, 1, *shape[1:])
        split = F.linear(normed_BLD, weight[width:], bias[width:]).view(batch, length, *shape)
        k_BHLE, v_BHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        position_L, own_B11 = torch.arange(length, device=x_BLD.device), (length_B - 1).clamp(min=0)[:, None, None]
        attended = F.scaled_dot_product_attention(
            rotate(q_BHLE.transpose(1, 2), turns(own_B11, shape[2])),
            rotate(k_BHLE, turn),
            v_BHLE,
            attn_mask=(position_L <= own_B11)[:, None],
        )
        return self._finish(own_B1D, attended)

    def _finish(self, x_BLD: torch.Tensor, attended_BHLE: torch.Tensor) -> torch.Tensor:
        merged_BLD = attended_BHLE.transpose(1, 2).reshape(x_BLD.shape)
        x_BLD = x_BLD + F.dropout(self.out(merged_BLD), self.dropout, self.training)
        inner = F.gelu(self.up(self.forward_norm(x_BLD)))
        return x_BLD + F.dropout(self.down(inner), self.dropout, self.training)


class TransformerEncoder(Encoder):
    """x_BLD -> h_BLD through `config.layers` blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Stack the blocks."""
        super().__init__()
        self.head_width = config.width // config.heads
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BLD: torch.Tensor, packing: Packing | None = None) -> torch.Tensor:
        """Causal: position p attends to its own sequence up to p."""
        if packing is None:
            turn, sees_B1LL = self._turn(x_BLD), None
        else:
            turn = turns(packing.positions()[:, None], self.head_width)
            sees_B1LL = packing.sees()[:, None]
        for block in self.blocks:
            x_BLD = block(x_BLD, turn, sees_B1LL)
        return self.norm(x_BLD)

    def last(self, x_BLD: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """As `Encoder.last`, with a third less work."""
        *before, final = self.blocks
        turn = self._turn(x_BLD)
        for block in before:
            x_BLD = block(x_BLD, turn, None)
        return self.norm(final.last(x_BLD, length_B, turn))[:, 0]

    def _turn(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return turns(torch.arange(x_BLD.shape[1], device=x_BLD.device), self.head_width)


def build(config: EncoderConfig) -> Encoder:
    """The encoder of this file."""
    return TransformerEncoder(config)
