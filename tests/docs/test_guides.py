"""The guides, carried out block by block in a copy of the checkout."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from serving.endpoints import ENDPOINTS
from serving.openapi import openapi
from serving.schema import InvalidRequestError, parse
from tests.docs.guide import ROOT, Block, Checkout, blocks, checkout, edit

GUIDES = ROOT / "docs" / "guides"
EXECUTED = ("bring-your-data.md", "register-a-feature.md", "stream-events.md")

slow = pytest.mark.slow


@pytest.fixture
def copy(tmp_path: Path) -> Checkout:
    return checkout(tmp_path)


def small_shop(home: Path) -> None:
    """A log of two users: each bought three times in March, u000001 sent one thing back."""
    rows: list[dict[str, Any]] = []
    for user in ("u000001", "u000002"):
        for day in (1, 10, 20):
            rows += [event(user, "view", day, 9), event(user, "purchase", day, 10)]
    rows.append(event("u000001", "return", 25, 8))
    table = pa.Table.from_pylist(
        [{**dict.fromkeys(arrow_schema().names), **row} for row in rows], schema=arrow_schema()
    )
    EventLog(Settings(home=home).log).append(table)


def event(user: str, type_: str, day: int, hour: int) -> dict[str, Any]:
    at = datetime(2026, 3, day, hour, tzinfo=UTC)
    return {
        "event_id": f"{user} {type_} {day}",
        "user_id": user,
        "item_id": f"i{day}",
        "category_id": "shoes",
        "event_type": type_,
        "event_timestamp": at,
        "ingested_at": at + timedelta(seconds=2),
        "source_seq": day,
        "price_minor": 1_000,
    }


@slow
def test_the_copy_is_what_runs(copy: Checkout) -> None:
    """What a guide changes is changed in a copy: its modules come before those of the editable install."""
    copy.carry_out(
        Block(
            language="python", order="", text="import clicktrail, sys; print(clicktrail.__file__, sys.prefix)", line=0
        ),
        "here",
    )
    assert copy.output.split() == [str(copy.root / "clicktrail/__init__.py"), str(copy.root / ".venv")]


@slow
def test_register_a_feature(copy: Checkout) -> None:
    """Every block of the guide does what the guide says: declare, test, apply, preview, read, serve, refuse."""
    small_shop(copy.home)
    copy.follow(GUIDES / "register-a-feature.md")


@slow
def test_bring_your_data(copy: Checkout) -> None:
    """Every block of the guide does what the guide says: map, ingest, quarantine, a stopped batch."""
    copy.follow(GUIDES / "bring-your-data.md")


def test_every_block_says_what_is_to_be_done_with_it() -> None:
    """No block of an executed guide is left out, and every page that claims to be executed has some."""
    for name in EXECUTED:
        found = blocks(GUIDES / name)
        assert found, name
        assert sum(line.startswith("```") for line in (GUIDES / name).read_text().splitlines()) == 2 * len(found)


def test_a_diff_that_does_not_fit_is_found(tmp_path: Path) -> None:
    """An edit whose context is gone, or stands twice, fails rather than changing something else."""
    path = tmp_path / "views.py"
    path.write_text("a\nb\na\n")
    with pytest.raises(AssertionError, match="0 times"):
        edit(path, " c\n+d\n", "here")
    with pytest.raises(AssertionError, match="2 times"):
        edit(path, " a\n+d\n", "here")
    edit(path, " b\n+d\n-a\n", "here")
    assert path.read_text() == "a\nb\nd\n"


def test_the_requests_of_the_serving_guide_are_answered_as_it_says() -> None:
    """Each request passes the endpoint's own rules, or breaks just those that the guide shows."""
    guide = blocks(GUIDES / "serve-a-bundle.md")
    bodies = [
        (path, body.encode())
        for block in guide
        for path, body in re.findall(r"localhost:3000(/\w+) -d '(.*?)'", block.text, re.DOTALL)
    ]
    tasks = {"/recommend": ["recommendation"] * 2, "/score": ["retention"] * 2 + ["fraud"] * 2}
    assert [path for path, _ in bodies] == ["/recommend"] * 2 + ["/score"] * 4
    refused = json.loads(next(block.text for block in guide if block.order == "refused"))
    for path, body in bodies:
        endpoint = ENDPOINTS[tasks[path].pop(0)]
        assert endpoint.path == path
        if b"59.90" not in body:
            parse(body, endpoint.fields)
            continue
        with pytest.raises(InvalidRequestError) as error:
            parse(body, endpoint.fields)
        assert str(error.value) == refused["error"]
        assert [problem.__dict__ for problem in error.value.problems] == refused["problems"]


@pytest.mark.parametrize("task", ["recommendation", "retention", "fraud"])
def test_the_answers_of_the_serving_guide_have_the_keys_of_the_service(task: str) -> None:
    """Every key that is described is shown, and no other."""
    shown = json.loads(next(block.text for block in blocks(GUIDES / "serve-a-bundle.md") if block.order == task))
    answer = openapi(task)["paths"][ENDPOINTS[task].path]["post"]["responses"]["200"]["content"]
    described = answer["application/json"]["schema"]["properties"]
    assert shown.keys() == described.keys() - {"answers"}


def test_the_answer_to_many_in_the_serving_guide_has_the_keys_of_the_service() -> None:
    """What is said of each user, and what is common to all, is together what is said of one, and whom it is about."""
    shown = json.loads(next(block.text for block in blocks(GUIDES / "serve-a-bundle.md") if block.order == "many"))
    answer = openapi("recommendation")["paths"]["/recommend"]["post"]["responses"]["200"]["content"]
    described = answer["application/json"]["schema"]["properties"]
    for one in shown["answers"]:
        assert one.keys() | shown.keys() == described.keys() | {"user_id"}
        assert not one.keys() & shown.keys()
