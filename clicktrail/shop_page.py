"""One page that links all that there is to look at in a shop: written by `make catalogue` and `make ui`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from clicktrail.publish import publish_bytes
from clicktrail.settings import Settings, load

FEAST_UI = "http://127.0.0.1:8888"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Something to look at; `made_by` is the command that brings it about."""

    title: str
    what: str
    target: Path | str
    made_by: str


def publish(settings: Settings) -> Path:
    """Write the page; returns its path."""
    target = settings.shop_home / "index.html"
    publish_bytes(target, page(settings).encode(), "shop_page")
    return target


def page(settings: Settings) -> str:
    """The page; what is not there yet names the command that makes it instead of a link."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Shop {escape(settings.shop)}</title>
<style>
{(files("clicktrail") / "pages" / "page.css").read_text()}</style>
</head>
<body>
<main>
<p class="quiet">Clicktrail</p>
<h1>Shop {escape(settings.shop)}</h1>
<div class="links">
{"".join(_card(place, settings.shop_home) for place in _places(settings))}</div>
</main>
</body>
</html>
"""


def _places(settings: Settings) -> tuple[_Place, ...]:
    return (
        _Place(
            title="Feature catalogue",
            what="what every feature means, who answers for it, what it is made of, how it lies, how fresh it is",
            target=settings.catalogue_page / "index.html",
            made_by="make catalogue",
        ),
        _Place(
            title="Feast's user interface",
            what="the registry: views, entities, services and how they hang together; there while it runs",
            target=FEAST_UI,
            made_by="make ui",
        ),
        _Place(
            title="Data docs",
            what="what the gate found in the batches of the last intake",
            target=settings.data_docs / "index.html",
            made_by="make ingest",
        ),
        _Place(
            title="Run reports",
            what="the newest run of each task beside its baselines, and the runs before it",
            target=settings.runs / "index.html",
            made_by="make train",
        ),
        _Place(
            title="Parity",
            what="online reads against offline ones, over time",
            target=settings.parity / "index.html",
            made_by="make parity",
        ),
    )


def _card(place: _Place, folder: Path) -> str:
    title, note = escape(place.title), ""
    if isinstance(place.target, str):
        title, note = f'<a href="{place.target}">{title}</a>', f"<code>{place.made_by}</code> starts it"
    elif place.target.is_file():
        title = f'<a href="{escape(os.path.relpath(place.target, folder))}">{title}</a>'
    else:
        note = f"not there yet: <code>{place.made_by}</code> makes it"
    return f'<section class="card"><h2>{title}</h2><p>{place.what}</p><p class="quiet">{note}</p></section>\n'


def main() -> None:
    """Command line."""
    print(f"open {publish(load())}")  # noqa: T201


if __name__ == "__main__":
    main()
