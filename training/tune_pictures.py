"""Pictures of a search as inline SVG: how it went, what mattered, what each choice brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from training.drawing import BASELINE_COLOURS, INK, MODEL_COLOUR, MUTED, new_figure, styled, svg

_PANELS = 6  # choices that are shown one by one
_SPREAD = 20  # highest over lowest: from there on an axis is logarithmic


def figures(trials: pd.DataFrame, names: Sequence[str], weights: Mapping[str, float], label: str) -> dict[str, str]:
    """Pictures by name.

    Args:
        trials: one row a trial: `trial`, `value` (NaN: given up), `names`.
        names: the choices.
        weights: choice -> its share of the variance between trials; empty where too few trials say nothing.
        label: of the metric.
    """
    found = {"history": history(trials, label)}
    if weights:
        found["importances"] = importances(weights)
        shown = sorted(weights, key=lambda name: -weights[name])
    else:
        shown = list(names)
    return found | {f"choice {name}": choice(trials, name, label) for name in shown[:_PANELS]}


@styled
def history(trials: pd.DataFrame, label: str) -> str:
    """The value of every trial that came to its end, and the best so far."""
    figure, axes = new_figure((5.2, 3.5))
    whole = trials[trials["value"].notna()]
    axes.plot(whole["trial"], whole["value"], "o", color=BASELINE_COLOURS[1], markersize=5, label="a trial")
    axes.plot(whole["trial"], whole["value"].cummax(), color=MODEL_COLOUR, drawstyle="steps-post", label="best so far")
    for one in trials.loc[trials["value"].isna(), "trial"]:
        axes.axvline(one, color=MUTED, linewidth=0.7, linestyle=":")
    axes.set_xlabel("trial (dotted: given up)")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right")
    return svg(figure, f"{label} by trial, best {whole['value'].max():.4f}")


@styled
def importances(weights: Mapping[str, float]) -> str:
    """How much of the difference between trials each choice explains, most below."""
    order = sorted(weights, key=lambda name: weights[name])
    figure, axes = new_figure((5.2, 0.4 * len(order) + 0.9))
    axes.barh(range(len(order)), [weights[name] for name in order], height=0.6, color=MODEL_COLOUR)
    axes.set_yticks(range(len(order)), order)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the variance explained")
    return svg(figure, "importance: " + ", ".join(f"{name} {weights[name]:.2f}" for name in order[::-1]))


@styled
def choice(trials: pd.DataFrame, name: str, label: str) -> str:
    """The value of trials by what was chosen for one path; trials that came to their end alone."""
    figure, axes = new_figure((5.2, 2.8))
    whole = trials[trials["value"].notna()]
    column = whole[name]
    if pd.api.types.is_numeric_dtype(column):
        x = column.to_numpy(np.float64)
        if x.min() > 0 and x.max() / x.min() > _SPREAD:
            axes.set_xscale("log")
    else:
        kinds = sorted(column.astype(str).unique())
        x = column.astype(str).map(kinds.index).to_numpy(np.float64)
        axes.set_xticks(range(len(kinds)), kinds)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    best = whole["value"] == whole["value"].max()
    axes.plot(x, whole["value"], "o", color=BASELINE_COLOURS[1], markersize=5)
    axes.plot(x[best], whole.loc[best, "value"], "o", color=MODEL_COLOUR, markersize=8)
    axes.set_xlabel(name)
    axes.set_ylabel(label)
    return svg(figure, f"{label} by {name}")
