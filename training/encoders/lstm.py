"""Long short-term memory (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from torch import nn

from training.config import EncoderConfig
from training.encoders.recurrent import RecurrentEncoder


def build(config: EncoderConfig) -> RecurrentEncoder:
    """The encoder of this file."""
    return RecurrentEncoder(nn.LSTM, config)
