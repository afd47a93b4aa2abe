"""How pictures are drawn: inline SVG without fixed colours, so that they follow the page into the dark.

matplotlib draws with stand-in colours, which become CSS variables of the page; text stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from io import StringIO
from typing import Any, ParamSpec

P = ParamSpec("P")

# stand-ins, each the colour of no one else: they become var(--name)
INK, MUTED, GRID, MODEL_COLOUR, ORACLE_COLOUR, SURFACE = (
    "#010101",
    "#020202",
    "#030303",
    "#040404",
    "#050505",
    "#060606",
)
BASELINE_COLOURS = ("#070707", "#080808", "#090909", "#0a0a0a")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    MODEL_COLOUR: "model",
    ORACLE_COLOUR: "oracle",
    SURFACE: "surface",
    **{colour: f"baseline-{at + 1}" for at, colour in enumerate(BASELINE_COLOURS)},
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clicktrail",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
}


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw under our style: matplotlib looks its parameters up whenever a part is made."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(size: tuple[float, float], rows: int = 1, heights: Sequence[int] | None = None) -> tuple[Any, Any]:
    """A figure without pyplot, whose figures outlive their use."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 1, sharex=rows > 1, gridspec_kw={"height_ratios": heights} if heights else None)
    return figure, axes


def svg(figure: Any, description: str) -> str:  # noqa: ANN401
    """The figure as an `<svg>` element without any address in it; `description` is for those who cannot see it."""
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box, "matplotlib writes a viewBox"  # noqa: S101 - what we broke, not the user
    safe = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg {box.group()} role="img" aria-label="{safe}"'
    text = f"{head}>{body}".replace("xlink:href", "href")
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|StepPatch|LineC)[^"]*"', "", text
    )
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("'DejaVu Sans'", "system-ui, sans-serif")
