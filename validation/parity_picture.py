"""Parity over time as one page that opens offline: a line a view, run by run, and the newest run as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 860, 260, 70, 12, 40
_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#78716c")
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1917; --soft: #78716c; --line: #d6d3d1; --ground: #fafaf9; --bad: #b91c1c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e5e4; --soft: #a8a29e; --line: #44403c; --ground: #1c1917; --bad: #f87171 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 920px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem } p, .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; color: var(--soft) }
.bad { color: var(--bad); font-weight: 600 } svg { width: 100%; height: auto } svg text { fill: var(--soft) }
.key span { display: inline-block; margin-right: 1rem } .key i { display: inline-block; width: .8rem; height: .2rem;
  margin: 0 .3rem .25rem 0 }
"""


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """The page of these runs, oldest first; each as `validation.parity.summary` gives it."""
    newest = runs[-1]
    views = sorted({name for run in runs for name in run["views"]})
    key = "".join(f'<span><i style="background:{_colour(views, name)}"></i>{escape(name)}</span>' for name in views)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Parity</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>
<h1>Parity of online and offline reads, shop {escape(str(newest["shop"]))}</h1>
<p>Online reads are replayed against the offline store at the same log offset and time. A match is exact. Newest run:
{escape(str(newest["at"]))}.</p>
<h2>Reads that differ, by run</h2>{_lines(runs, views)}<p class="key">{key}</p>
<h2>Newest run</h2>{_views(newest["views"])}
<h2>Its features</h2>{_features(newest["views"])}
</html>
"""


def _lines(runs: Sequence[Mapping[str, Any]], views: Sequence[str]) -> str:
    """Share of differing reads a view and run, as SVG; the axis begins at 0 and ends above the largest share."""
    shares = [view["differing"] / view["reads"] for run in runs for view in run["views"].values() if view["reads"]]
    most = max([*shares, 0.001]) * 1.1
    step = (_WIDTH - _LEFT - 10) / max(len(runs) - 1, 1)

    def place(run: int, share: float) -> tuple[float, float]:
        return _LEFT + run * step, _TOP + (1 - share / most) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="differing reads by run">']
    for share in (0.0, most / 2, most):
        _, y = place(0, share)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" font-size="12" text-anchor="end">{share:.2%}</text>'
        )
    for run in sorted({0, len(runs) - 1}):
        x, _ = place(run, 0)
        anchor = "start" if run == 0 else "end"
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 14}" font-size="12" text-anchor="{anchor}">'
            f"{escape(str(runs[run]['at'])[:16].replace('T', ' '))}</text>"
        )
    for name in views:
        points = [
            place(number, run["views"][name]["differing"] / run["views"][name]["reads"])
            for number, run in enumerate(runs)
            if run["views"].get(name, {}).get("reads")
        ]
        colour = _colour(views, name)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return "".join([*parts, "</svg>"])


def _views(views: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(name),
            f"{view['reads']:,}",
            _count(view["differing"], bad=view["over_budget"]),
            f"{view['budget']:g}",
            ", ".join(f"{source} {reads:,}" for source, (reads, _) in sorted(view["sources"].items())),
            f"{view['lagging']:,}",
            f"{view['lag_rows']:,}",
            f"{view['lag_seconds']:.1f}",
        ]
        for name, view in sorted(views.items())
    ]
    head = ("view", "reads", "differ", "budget", "of these", "lagging", "rows behind", "seconds behind")
    return _table(head, rows)


def _features(views: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(f"{view}:{name}"),
            f"{one['reads']:,}",
            f"{one['match_rate']:.4%}",
            _count(one["differing"], bad=one["differing"] > 0),
            f"{one['missing']:,}",
            f"{one['extra']:,}",
            "" if one["edits"] is None else f"{one['edits']:.1f}",
            "" if one["first"] is None else str(one["first"]),
        ]
        for view, found in sorted(views.items())
        for name, one in sorted(found["features"].items())
    ]
    head = ("feature", "reads", "match", "differ", "missing", "extra", "mean edits", "first at")
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _count(number: int, *, bad: bool) -> str:
    return f'<span class="bad">{number:,}</span>' if bad else f"{number:,}"


def _colour(views: Sequence[str], name: str) -> str:
    return _COLOURS[views.index(name) % len(_COLOURS)]
