"""What every page claims can be looked up: links, make targets, views, environment variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.guide import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the checkout, and its anchor a heading there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings], link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_commands_and_names_exist(page: Path) -> None:
    """Every make target, module with a command, test helper file and CLICKTRAIL variable that a page names is there."""
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(path.read_text() for path in (ROOT / "clicktrail").glob("*.py"))
    for named in re.findall(r"(?:`|^)make ([a-z][a-z -]*)", text, re.MULTILINE):
        assert set(named.split()) <= targets, named
    for module in re.findall(
        r"python -m ((?:clicktrail|ingestion|validation|training|serving|benchmarks)[\w.]*)", text
    ):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for path_named in re.findall(
        r"`((?:clicktrail|feature_repo|ingestion|validation|training|serving)/[\w/.]+)`", text
    ):
        assert (ROOT / path_named).exists(), path_named
    for variable in re.findall(r"CLICKTRAIL_[A-Z]+", text):
        assert variable in code, variable


def test_decisions_are_numbered_without_a_gap() -> None:
    """One page each, the number in name and title."""
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert page.read_text().startswith(f"# {page.name[:4]} ")
