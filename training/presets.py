"""Presets: functions that give a whole configuration. A task's own needs come first, the preset scales them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from training.config import EncoderConfig, Family, FitConfig, LossConfig, RunConfig


def small(task: str) -> RunConfig:
    """For two CPU cores and two minutes a task."""
    if task == "recommendation":
        return RunConfig(
            preset="small",
            encoder=EncoderConfig(family="gru", width=64, layers=1, dropout=0.1),
            fit=FitConfig(epochs=7, tokens=2_048, rows=8_192, rate=3e-3, average=0.995, seconds=240),
        )
    if task == "retention":
        return RunConfig(
            preset="small",
            encoder=EncoderConfig(family="gru", width=32, layers=1, dropout=0.1),
            fit=FitConfig(epochs=5, tokens=4_096, rows=512, rate=2e-3, average=0.99, seconds=120),
            train_examples=150_000,
        )
    return RunConfig(
        preset="small",
        encoder=EncoderConfig(family="gru", width=32, layers=1, dropout=0.25),
        fit=FitConfig(epochs=7, tokens=8_192, rows=256, rate=2e-3, weight_decay=0.05, average=0.995, seconds=240),
        head_dropout=0.25,
        train_examples=60_000,
        validation_examples=30_000,
        test_examples=50_000,
    )


def base(task: str) -> RunConfig:
    """For a GPU, or a CPU and patience."""
    config = small(task)
    encoder = EncoderConfig(family="transformer", width=128, layers=2, heads=4, dropout=0.1)
    fit = replace(config.fit, epochs=2 * config.fit.epochs, rate=1e-3, seconds=0.0)
    return replace(
        config, preset="base", encoder=encoder, fit=fit, head_width=128, train_examples=4 * config.train_examples
    )


def large(task: str) -> RunConfig:
    """For a GPU and millions of examples."""
    config = base(task)
    encoder = EncoderConfig(family="transformer", width=256, layers=4, heads=8, dropout=0.1)
    fit = replace(config.fit, tokens=65_536, rows=32_768, loss=LossConfig(negatives=4_096))
    return replace(
        config, preset="large", encoder=encoder, fit=fit, head_width=256, train_examples=4 * config.train_examples
    )


PRESETS: dict[str, Callable[[str], RunConfig]] = {"small": small, "base": base, "large": large}


def preset(name: str, task: str, *, encoder: Family | None = None, seed: int = 0) -> RunConfig:
    """The configuration of a preset for a task, with another encoder family or seed if given.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        message = f"preset {name!r} does not exist; choose one of: {', '.join(PRESETS)}"
        raise ValueError(message)
    config = replace(PRESETS[name](task), seed=seed)
    return config if encoder is None else replace(config, encoder=replace(config.encoder, family=encoder))
