"""Gated recurrent units (Cho et al. 2014), as GRU4Rec uses them."""

from __future__ import annotations

from torch import nn

from training.config import EncoderConfig
from training.encoders.recurrent import RecurrentEncoder


def build(config: EncoderConfig) -> RecurrentEncoder:
    """The encoder of this file."""
    return RecurrentEncoder(nn.GRU, config)
