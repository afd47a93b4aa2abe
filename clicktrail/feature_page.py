"""The catalogue of a shop's features as one page that opens offline: `make catalogue`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from clicktrail import shop_page
from clicktrail.clock import moment
from clicktrail.contract import EVENT_COLUMNS, ITEM_COLUMNS
from clicktrail.feature_facts import CLASSES, highest
from clicktrail.histogram import ends, histogram
from clicktrail.publish import publish_bytes
from clicktrail.settings import Settings, load

if TYPE_CHECKING:  # importing Feast costs seconds
    from clicktrail.feature_entries import Entries, FeatureEntry, ViewEntry

_HEADS = ("Feature", "Type", "Unit", "Personal data", "Distribution", "Null", "Read by")
_MEANINGS = {
    **{one.name: one.meaning for one in EVENT_COLUMNS},
    **{f"item_{one.name}": f"catalogue: {one.meaning}" for one in ITEM_COLUMNS if one.name != "item_id"},
}


def publish(settings: Settings) -> Path:
    """Write the page of a shop and the one that links it; returns its path.

    Raises:
        ValueError: nothing is registered, or the registry or the online state can't be read.
    """
    from clicktrail.feast_repo import open_store
    from clicktrail.feature_entries import entries

    target = settings.catalogue_page / "index.html"
    publish_bytes(target, page(entries(open_store(settings), settings)).encode(), "catalogue_page")
    shop_page.publish(settings)
    return target


def page(found: Entries) -> str:
    """The page: everything is in it, also style and script."""
    features = [one for view in found.views for one in view.features]
    known = f"log at offset {found.log_offset:,}"
    if found.log_offset:
        known += f", known up to {_time(found.log_end)}"
    entities = sorted({name for view in found.views for name in view.entities})
    owners = sorted({view.owner for view in found.views if view.owner})
    classes = [one for one in CLASSES if one in {feature.personal_data for feature in features}]
    resources = files("clicktrail") / "pages"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Features of {escape(found.shop)}</title>
<style>
{(resources / "page.css").read_text()}</style>
</head>
<body>
<main>
<p class="quiet"><a href="../index.html">Shop {escape(found.shop)}</a> · project {escape(found.project)}</p>
<h1>Features</h1>
<p class="quiet">{len(found.views)} views, {len(features)} features · {known}. Distributions: a sample of entities, read
at the log's end; of features made when they are asked for, the newest requests.</p>
<nav>{"".join(_chip(_link(view.name), raw=True) for view in found.views)}</nav>
<div class="tools">
<input type="search" placeholder="Search: names, meanings, units, columns, owners ...  ( / )" aria-label="Search">
{_select("every entity", entities)}
{_select("every class of personal data", classes)}
{_select("every owner", owners)}
<span class="quiet"><span id="shown">{len(features)}</span> of {len(features)} features</span>
</div>
<p id="nothing" class="quiet" hidden>No feature is like that.</p>
{"".join(_view(view, found) for view in found.views)}
</main>
<script>
{(resources / "catalogue.js").read_text()}</script>
</body>
</html>
"""


def _view(view: ViewEntry, found: Entries) -> str:
    data = highest(one.personal_data for one in view.features if one.personal_data in CLASSES)
    gone = f"deprecated from {view.deprecated} on" if view.deprecated else ""
    instead = f" Read {_link(view.replaced_by)} instead." if view.replaced_by else " Nothing replaces it."
    tags = "".join(_chip(f"{name}: {value}" if value else name) for name, value in view.tags.items())
    owner = f'<a href="mailto:{escape(view.owner)}">{escape(view.owner)}</a>' if view.owner else "nobody"
    facts = {
        "Owner": owner,
        "Join key": "<br>".join(f"<code>{escape(key)}</code>" for key in view.keys),
        "Fingerprint": f'<code title="{view.fingerprint}">{view.fingerprint[:12]}</code>' if view.fingerprint else "",
        "Online state": _state(view, found),
        "Tags": tags,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
    heads = "".join(f"<th>{name}</th>" for name in _HEADS)
    return f"""
<section class="card view" id="{view.name}" data-owner="{escape(view.owner)}" data-entity="{" ".join(view.entities)}">
<div class="about">
<header><h2><a class="name" href="#{view.name}">{view.name}</a></h2>
{_badge(view.kind)}{"".join(_badge(name) for name in view.entities)}{_badge(data + " data")}{_badge(gone, "bad")}
{_badge(*_freshness(view, found))}</header>
<p>{escape(view.description)}{f"<br><b>Deprecated from {escape(view.deprecated)} on.</b>{instead}" if gone else ""}</p>
{_lineage(view)}
<dl class="facts">{listed}</dl>
</div>
<div class="wide"><table>
<tr>{heads}</tr>
{"".join(_feature(view, one) for one in view.features)}
</table></div>
</section>
"""


def _feature(view: ViewEntry, one: FeatureEntry) -> str:
    made_of = [
        *(["events: " + _chips(one.events)] if one.events else []),
        *(["columns: " + _columns(one.columns)] if one.columns else []),
        *(["stored features: " + "".join(_chip(_link(name), raw=True) for name in one.inputs)] if one.inputs else []),
    ]
    lineage = f"<details><summary>made of</summary>{'<br>'.join(made_of)}</details>" if made_of else ""
    plot, null = "", ""
    if (lies := one.distribution) is not None and lies.rows:
        low, high = ends(lies)
        of = {"value": "", "time": "", "length": "length", "share": "share", "text": "most frequent"}[lies.measured]
        text = f"<small><span>{low}</span><span>{of}</span><span>{high}</span></small>" if lies.bins else ""
        plot = (
            histogram(lies) + text + (f"<small>{of}: {escape(', '.join(one.examples))}</small>" if one.examples else "")
        )
        null = f"{100 * lies.null_share:.0f} %<br><small>of {lies.rows:,}</small>"
    return f"""<tr id="{view.name}.{one.name}" data-data="{one.personal_data}">
<td><span class="name">{one.name}</span><br>{escape(one.meaning)}{lineage}</td>
<td>{escape(one.type)}</td><td>{_code(one.unit)}</td><td>{one.personal_data}</td>
<td class="plot">{plot}</td><td class="null">{null}</td><td>{_chips(one.read_by)}</td></tr>
"""


def _lineage(view: ViewEntry) -> str:
    """Event types, columns or views; the view; who reads it; what was trained and built of it."""
    events = sorted({event for one in view.features for event in one.events})
    columns = sorted({column for one in view.features for column in one.columns})
    by_kind = {
        kind: [one for one in view.readers if one.kind == kind]
        for kind in ("service", "request view", "task", "bundle")
    }
    asks = [*by_kind["service"], *by_kind["request view"]]
    trained = [*by_kind["task"], *by_kind["bundle"]]
    sources = _chips(events) or "".join(_chip(_link(name), raw=True) for name in view.inputs) or "another source"
    steps = (
        ("Events" if events or not view.inputs else "Views", sources),
        ("Columns", _columns(columns) or "none"),
        ("Services and request views", "".join(_chip(one.name, one.detail) for one in asks) or "nobody reads it"),
        ("Newest runs, bundles", "".join(_chip(f"{one.name}, {one.detail}") for one in trained) or "none yet"),
    )
    return f'<div class="flow">{"".join(f"<div><small>{name}</small>{what}</div>" for name, what in steps)}</div>'


def _state(view: ViewEntry, found: Entries) -> str:
    state = view.state
    if state is None:
        return f"that of {', '.join(_link(name) for name in view.inputs)}" if view.inputs else ""
    said = f"offset {state.offset:,} of {found.log_offset:,}"
    return said + (f", known up to {_time(state.watermark)}" if state.watermark else "")


def _freshness(view: ViewEntry, found: Entries) -> tuple[str, str]:
    """The state against the log's end: what is said, and whether it is good."""
    state = view.state
    if state is None:
        return ("", "") if view.kind not in ("sequence", "aggregates") else ("no online state", "bad")
    if state.epoch not in ("", found.log_epoch):
        return "state of another log", "bad"
    if not state.complete:
        return "online state not built yet", "bad"
    behind = max(found.log_offset - state.offset, 0)
    if not behind:
        return "up to date", "good"
    rows = "1 row" if behind == 1 else f"{behind:,} rows"
    return f"{rows}, {_span(max(found.log_end - state.watermark, 0))} behind", "bad"


def _select(every: str, values: Iterable[str]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return f'<select aria-label="{every}"><option value="">{every}</option>{options}</select>'


def _badge(text: str, kind: str = "") -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>' if text else ""


def _chip(text: str, title: str = "", *, raw: bool = False) -> str:
    said = f' title="{escape(title)}"' if title else ""
    return f'<span class="chip"{said}>{text if raw else escape(text)}</span>'


def _chips(names: Iterable[str]) -> str:
    return "".join(_chip(name) for name in names)


def _columns(names: Iterable[str]) -> str:
    return "".join(_chip(name, _MEANINGS.get(name, "")) for name in names)


def _code(text: str) -> str:
    """The text with `this` in the letters of code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _link(name: str) -> str:
    return f'<a class="name" href="#{escape(name)}">{escape(name)}</a>'


def _time(t: int) -> str:
    return f"{moment(t):%Y-%m-%d %H:%M:%S} UTC"


def _span(microseconds: int) -> str:
    """A lag in words, one figure."""
    seconds = microseconds / 1e6
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Command line."""
    try:
        print(f"catalogue: {publish(load())}")  # noqa: T201
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
