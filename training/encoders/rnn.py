"""Plain recurrent encoder (Elman 1990): the floor that gates have to beat."""

from __future__ import annotations

from torch import nn

from training.config import EncoderConfig
from training.encoders.recurrent import RecurrentEncoder


def build(config: EncoderConfig) -> RecurrentEncoder:
    """The encoder of this file."""
    return RecurrentEncoder(nn.RNN, config)
