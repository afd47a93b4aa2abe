"""Pictures of a run as inline SVG. Every function returns an `<svg>` element without any address in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.drawing import (
    BASELINE_COLOURS,
    INK,
    MODEL_COLOUR,
    MUTED,
    ORACLE_COLOUR,
    new_figure,
    styled,
    svg,
)
from training.evaluation import Calibration
from training.run_record import MODEL, ORACLE

Floats = NDArray[np.float64]

_RAREST = 1e-5
_SMALL = (5.2, 3.5)  # inches; the page scales pictures to its width


def readable(method: str) -> str:
    """A method's name as people write it."""
    return {
        MODEL: "Model",
        ORACLE: "Oracle",
        "covisitation": "Co-visitation",
        "recency_frequency": "Recency & frequency",
    }.get(method, method.replace("_", " ").capitalize())


def colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour a method: the same in every picture of a report."""
    baselines = [method for method in methods if method not in {MODEL, ORACLE}]
    given = {method: BASELINE_COLOURS[at % len(BASELINE_COLOURS)] for at, method in enumerate(baselines)}
    return given | {MODEL: MODEL_COLOUR, ORACLE: ORACLE_COLOUR}


@styled
def bars(values: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Methods beside each other with 95 % intervals, best below; values below 0 as points, since bars begin at 0.

    Args:
        values: method -> value, low, high.
        label: of the axis.
    """
    order = sorted(values, key=lambda method: (method == ORACLE, values[method]["value"]))[::-1]
    figure, axes = new_figure((9.4, 0.62 * len(order) + 0.75))
    colour = colours(list(values))
    left, right = min(one["low"] for one in values.values()), max(one["high"] for one in values.values())
    points = left < 0
    reach = right - left if points else right
    for at, method in enumerate(order):
        one = values[method]
        hollow = method == ORACLE
        if points:
            axes.plot(one["value"], at, color=colour[method], marker="o", markersize=9)
        else:
            axes.barh(
                at,
                one["value"],
                height=0.56,
                color="none" if hollow else colour[method],
                edgecolor=colour[method],
                linewidth=1.2,
                linestyle="--" if hollow else "-",
            )
        axes.plot([one["low"], one["high"]], [at, at], color=INK, linewidth=1.3, solid_capstyle="butt")
        for end in (one["low"], one["high"]):
            axes.plot([end, end], [at - 0.1, at + 0.1], color=INK, linewidth=1.3)
        axes.text(one["high"] + reach * 0.012, at, f"{one['value']:.4f}", va="center", fontweight="bold")
    axes.set_yticks(range(len(order)), [readable(method) for method in order])
    axes.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left - 0.05 * reach if points else 0, right + 0.1 * reach)
    axes.set_xlabel(label)
    return svg(figure, f"{label} of " + ", ".join(f"{readable(m)} {values[m]['value']:.4f}" for m in order[::-1]))


@styled
def losses(curves: Mapping[str, Floats]) -> str:
    """Training and validation loss by step, and under it the validation metric."""
    figure, (above, below) = new_figure((5.2, 4.2), rows=2, heights=(3, 2))
    step = curves["step"]
    for name, label, colour in (
        ("train_loss", "training", BASELINE_COLOURS[0]),
        ("val_loss", "validation", MODEL_COLOUR),
    ):
        if name in curves:
            there = np.isfinite(curves[name])
            few = "o" if there.sum() < 40 else ""  # noqa: PLR2004 - more markers than that are a caterpillar
            above.plot(step[there], curves[name][there], color=colour, label=label, marker=few, markersize=4)
    above.set_ylabel("loss")
    above.legend()
    if "val_metric" in curves:
        there = np.isfinite(curves["val_metric"])
        below.plot(step[there], curves["val_metric"][there], color=MODEL_COLOUR, marker="o", markersize=4)
    below.set_ylabel("metric")
    below.set_xlabel("training step")
    return svg(figure, "loss by training step")


@styled
def lines(
    series: Mapping[str, tuple[Floats, Floats]],
    *,
    x: str,
    y: str,
    chance: tuple[Sequence[float], Sequence[float]] | None = None,
    unit: bool = True,
    legend: str = "best",
) -> str:
    """One line a method.

    Args:
        series: method -> x [p], y [p].
        x: label of the axis.
        y: label of the axis.
        chance: a dotted line of what guessing gives.
        unit: both axes from 0 to 1; otherwise x counts whole things.
        legend: where matplotlib puts the legend.
    """
    figure, axes = new_figure(_SMALL)
    colour = colours(list(series))
    if chance is not None:
        axes.plot(*chance, color=MUTED, linewidth=1, linestyle=":", label="Guessing")
    for method in sorted(series, key=lambda name: name == MODEL):
        style = (0, (5, 2)) if method == ORACLE else "-"
        width = 2.4 if method == MODEL else 1.6
        axes.plot(*series[method], color=colour[method], linestyle=style, linewidth=width, label=readable(method))
    if unit:
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc=legend)
    return svg(figure, f"{y} by {x}")


@styled
def grouped(
    bins: Sequence[str], series: Mapping[str, Sequence[float]], *, x: str, y: str, falling: bool = False
) -> str:
    """One group of bars a bin, one bar a method; where the bars are `falling` the legend stands at the right."""
    figure, axes = new_figure(_SMALL)
    colour = colours(list(series))
    width = 0.8 / len(series)
    for at, method in enumerate(series):
        places = np.arange(len(bins)) - 0.4 + width * (at + 0.5)
        hollow = method == ORACLE
        axes.bar(
            places,
            series[method],
            width=width * 0.9,
            color="none" if hollow else colour[method],
            edgecolor=colour[method],
            linestyle="--" if hollow else "-",
            linewidth=1,
            label=readable(method),
        )
    axes.set_xticks(range(len(bins)), bins)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.18)  # room for the legend
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    where, columns = ("upper right", 1) if falling else ("upper center", len(series))
    axes.legend(ncols=columns, loc=where, columnspacing=1.0, handlelength=1.2)
    return svg(figure, f"{y} by {x}")


@styled
def matrix(names: Sequence[str], shares: Floats, *, x: str, y: str) -> str:
    """Shares [rows, columns] as cells, the darker the larger, each with its percentage; rows from above."""
    from matplotlib.patches import Rectangle

    figure, axes = new_figure((5.2, 1.2 + 0.36 * len(names)))
    for row, column in np.ndindex(*shares.shape):
        share = float(shares[row, column])
        axes.add_patch(
            Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=MODEL_COLOUR, alpha=0.55 * share, linewidth=0)
        )
        axes.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=INK if share else MUTED
        )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xlabel(f"{x} (% of a row)")
    axes.set_ylabel(y)
    return svg(figure, f"{x} by {y}")


@styled
def calibration(curve: Calibration, *, rare: bool) -> str:
    """Predicted against observed rate with 95 % intervals; on logarithmic axes where the label is rare."""
    figure, axes = new_figure(_SMALL)
    # what is rarer than the smallest rate that a reader can tell apart stands at the floor
    floor = max(_RAREST, 0.3 * min(one[one > 0].min() for one in (curve.predicted, curve.observed))) if rare else 0.0
    top = max(curve.predicted.max(), curve.high.max()) * 1.15 if rare else 1.0
    observed, low = np.maximum(curve.observed, floor), np.maximum(curve.low, floor)
    axes.plot([floor, top], [floor, top], color=MUTED, linewidth=1, linestyle=":", label="Perfect")
    axes.vlines(
        np.maximum(curve.predicted, floor), low, np.maximum(curve.high, floor), color=MODEL_COLOUR, linewidth=1.2
    )
    axes.plot(
        np.maximum(curve.predicted, floor), observed, color=MODEL_COLOUR, marker="o", markersize=4.5, label="Model"
    )
    if rare:
        axes.set_xscale("log")
        axes.set_yscale("log")
        _percent_of_powers([axes.xaxis, axes.yaxis])
    axes.set_xlim(floor, top)
    axes.set_ylim(floor, top)
    axes.set_xlabel("predicted rate")
    axes.set_ylabel("observed rate")
    axes.legend(loc="upper left")
    return svg(figure, "observed rate by predicted rate")


@styled
def histogram(edges: Floats, counts: Mapping[str, Floats], *, x: str, threshold: float, rare: bool) -> str:
    """Share of each class in each bin of the score; `counts`: class -> share [bins]."""
    figure, axes = new_figure(_SMALL)
    for (name, share), colour in zip(counts.items(), (BASELINE_COLOURS[0], MODEL_COLOUR), strict=True):
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.6, label=name)
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label="Threshold")
    if rare:
        axes.set_xscale("log")
        _percent_of_powers([axes.xaxis])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel("share of its kind")
    axes.legend()
    return svg(figure, "scores of both classes")


def _percent_of_powers(logarithmic: Sequence[Any]) -> None:
    """Ticks of logarithmic axes as `0.1 %` instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in logarithmic:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axis.set_minor_formatter(NullFormatter())
