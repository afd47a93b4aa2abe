"""A small histogram as inline SVG; its colour is that of the text around it."""

from __future__ import annotations

from html import escape

from clicktrail.clock import moment
from clicktrail.distributions import BINS, Distribution

_WIDTH, _HEIGHT, _GAP = 160, 34, 1


def histogram(one: Distribution) -> str:
    """The `<svg>` of a distribution, with its lowest, mean and highest value in words; "" where nothing is measured."""
    if not one.bins or one.low is None or one.mean is None or one.high is None:
        return ""
    width = _WIDTH / BINS
    first = BINS // 2 if len(one.bins) == 1 else 0  # all the same: one bar in the middle
    bars = []
    for place, number in enumerate(one.bins, first):
        if number:
            high = max(number / max(one.bins) * (_HEIGHT - 1), 1.5)  # what is rare can still be seen
            box = f'x="{place * width:.1f}" y="{_HEIGHT - high:.1f}" width="{width - _GAP:.1f}" height="{high:.1f}"'
            bars.append(f"<rect {box}/>")
    said = f"from {_text(one, one.low)} to {_text(one, one.high)}, mean {_text(one, one.mean)}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}" fill="currentColor">'
        f"<title>{escape(said)}</title>{''.join(bars)}</svg>"
    )


def ends(one: Distribution) -> tuple[str, str]:
    """Lowest and highest value in words; empty where nothing is measured."""
    return ("", "") if one.low is None or one.high is None else (_text(one, one.low), _text(one, one.high))


def _text(one: Distribution, value: float) -> str:
    if one.measured == "time":
        return f"{moment(int(value)):%Y-%m-%d %H:%M}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits tell enough
