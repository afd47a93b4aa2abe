"""Every choice of a run in one tree of frozen dataclasses; stored with the run as config.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Family = Literal["rnn", "gru", "lstm", "transformer", "hstu", "linear"]
FAMILIES: tuple[Family, ...] = ("rnn", "gru", "lstm", "transformer", "hstu", "linear")
RECURRENT: tuple[Family, ...] = ("rnn", "gru", "lstm")
LossKind = Literal["auto", "full", "sampled", "gbce"]
AugmentKind = Literal["none", "crop", "mask", "reorder", "substitute"]
AUGMENTS: tuple[AugmentKind, ...] = ("none", "crop", "mask", "reorder", "substitute")
LOSSES: tuple[LossKind, ...] = ("auto", "full", "sampled", "gbce")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A sequence encoder: `width` is the model dimension D.

    Transformer and hstu alone: `heads`; `time_bias`: whether attention sees how much time lies between two events.
    """

    family: Family = "gru"
    width: int = 64
    layers: int = 1
    heads: int = 2
    dropout: float = 0.1
    time_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What a next-item model is fitted by (training/losses.py).

    `kind`: cross entropy among all items, among drawn ones, generalised binary cross entropy; `auto` is all items up
    to `full_up_to` of them. `negatives`: items drawn a batch, by popularity ^ `popularity_power`, a share of `uniform`
    of them alike, all of gbce's. `calibration`: of gbce. `ahead`: a query's target is drawn from its next so many.
    """

    kind: LossKind = "auto"
    full_up_to: int = 8_192
    negatives: int = 1_024
    popularity_power: float = 0.75
    uniform: float = 0.0
    calibration: float = 0.75
    ahead: int = 1

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: a loss that does not exist, or a number out of its range.
        """
        if self.kind not in LOSSES:
            message = f"loss {self.kind!r} does not exist; choose one of: {', '.join(LOSSES)}"
            raise ValueError(message)
        if self.negatives < 1 or self.ahead < 1 or not 0 <= self.uniform <= 1 or not 0 <= self.calibration <= 1:
            message = f"a loss needs negatives and ahead from 1 on, uniform and calibration between 0 and 1; got {self}"
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training windows are changed each time that they are read (training/augment.py).

    `probability`: of a window to be changed; `share`: of its events, at most.
    """

    kind: AugmentKind = "none"
    probability: float = 0.5
    share: float = 0.3

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: a change that does not exist, or a number out of its range.
        """
        if self.kind not in AUGMENTS:
            message = f"augmentation {self.kind!r} does not exist; choose one of: {', '.join(AUGMENTS)}"
            raise ValueError(message)
        if not (0 <= self.probability <= 1 and 0 < self.share < 1):
            message = f"augmentation needs a probability from 0 to 1 and a share between 0 and 1; got {self}"
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is fitted.

    `tokens`: events a batch. `packed`: several windows a row, in random company; else one a row, padded, among
    windows of like length, which is what recurrent encoders are faster with. `checkpoint_seconds`: between two
    checkpoints within an epoch (0: at its end alone). `seconds`: training ends with the epoch under way when it has
    taken longer (0: no limit). `patience`: epochs without a better validation metric. `rows`: queries a batch at most.
    """

    epochs: int = 8
    tokens: int = 16_384
    rows: int = 4_096
    rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0
    patience: int = 3
    seconds: float = 0.0
    packed: bool = True
    checkpoint_seconds: float = 60.0
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run: what is learnt from how many examples, by which encoder, how.

    Next item alone: `temperature`: scores are cosines divided by it (0: plain products); `content`: whether what the
    items table says of items (training/content.py) enters. `hybrid`: whether simpler models join the network, with a
    weight that validation chooses.
    """

    preset: str = "small"
    seed: int = 0
    encoder: EncoderConfig = EncoderConfig()
    fit: FitConfig = FitConfig()
    train_examples: int = 400_000
    validation_examples: int = 10_000
    test_examples: int = 20_000
    head_width: int = 64
    head_dropout: float = 0.1
    temperature: float = 0.0
    content: bool = True
    hybrid: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunConfig:
        """What `to_json` wrote."""
        given = data["fit"]
        nested = {"loss": LossConfig(**given["loss"]), "augment": AugmentConfig(**given["augment"])}
        fit = FitConfig(**{**given, **nested})
        return cls(**{**data, "encoder": EncoderConfig(**data["encoder"]), "fit": fit})
