"""Decisions of the running services, explained: made again by their bundles, computed again from the event log."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from clicktrail.contract import arrow_schema
from clicktrail.event_log import EventLog
from clicktrail.settings import Settings
from serving import decisions
from serving.decisions import Kept, find
from serving.explain import ask, explain, main
from serving.explain_text import render
from serving.offline_features import rebuilt
from tests.docs.guide import ROOT, blocks
from tests.serving import shop
from tests.serving.conftest import Bundles, Server
from tests.serving.test_service import PAYMENT

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]

GUIDE = ROOT / "docs" / "guides" / "follow-a-decision.md"

ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a payment": ("fraud", "/score", {**PAYMENT, "event_timestamp": "2026-03-03T14:00:00Z"}),
    "a payment of before": ("fraud", "/score", {**PAYMENT, "event_timestamp": "2026-03-01T22:00:00Z"}),
    "items": ("recommendation", "/recommend", {"user_id": "ann", "k": 3, "exclude_seen": True}),
    "items for nobody": ("recommendation", "/recommend", {"user_id": "nobody", "k": 2}),
    "a user": ("retention", "/score", {"user_id": "bob"}),
}


@pytest.fixture(scope="module")
def settings(servers: dict[str, Server], bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of the shop after these requests; more may come in there without the services' noticing."""
    for number, (task, path, body) in enumerate(ASKED.values()):
        answer = servers[task].client.post(path, json=body, headers={"x-request-id": f"explained-{number}"})
        assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(_found(bundles.settings))) < len(ASKED):
        time.sleep(0.5)
    home = tmp_path_factory.mktemp("explained")
    shutil.copytree(bundles.settings.home, home, dirs_exist_ok=True)
    return Settings(home=home, bentoml_home=bundles.store)


def _found(settings: Settings) -> Iterator[Kept]:
    for number in range(len(ASKED)):
        try:
            yield from find(settings, f"explained-{number}")
        except ValueError:
            return


def kept(settings: Settings, what: str) -> Kept:
    """The one decision about this."""
    (found,) = find(settings, f"explained-{list(ASKED).index(what)}")
    return found


@pytest.mark.parametrize("what", list(ASKED))
def test_a_decision_is_made_again_to_the_bit(settings: Settings, what: str) -> None:
    """The bundle that answered comes to the same decision, and the log to the same features, later events or not."""
    found = explain(settings, kept(settings, what))
    assert (found.again.problem, found.again.same) == (None, True)
    assert (found.problem, found.differing) == (None, {})


def test_what_came_later_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """The log is read at the offset of the decision: an event that arrives afterwards, dated before it, is not seen."""
    home = tmp_path / "home"
    shutil.copytree(settings.home, home)
    later = replace(settings, home=home)
    row = dict.fromkeys(arrow_schema().names)
    row |= {"event_id": "late", "user_id": "ann", "event_type": "payment", "card_id": "card1", "terminal_id": "shop1"}
    row |= {"price_minor": 1, "source_seq": 99, "event_timestamp": shop.at(20), "ingested_at": shop.at(21)}
    EventLog(later.log).append(pa.Table.from_pylist([row], schema=arrow_schema()))
    one = kept(later, "a payment")
    anew = rebuilt(EventLog(later.log), one.rows, one.declarations)
    assert anew.equals(one.rows.select(anew.column_names))


def test_a_feature_that_was_served_wrong_is_found(settings: Settings) -> None:
    """A value that the log does not give is named beside the log's, and that the decision is another one with it."""
    one = kept(settings, "a payment")
    name = "card_recent_v1__price_minor"
    at = one.rows.schema.get_field_index(name)
    wrong = one.rows.set_column(at, one.rows.schema.field(at), pa.array([[7, 7, 7]], one.rows.schema.field(at).type))
    found = explain(settings, replace(one, rows=wrong))
    assert found.differing == {name: [[1200, 800, 90_000]]}
    assert found.again.same is False
    text = render(found)
    assert re.search(r"price_minor +\[7, 7, 7\] \(3\) +log: \[1200, 800, 90000\]", text)
    assert "ANOTHER" in text


def test_another_bundle_is_asked_too(settings: Settings, bundles: Bundles) -> None:
    """What it would have decided; a view that was not read then comes from the event log, and is named."""
    whole = kept(settings, "a payment")
    view = shop.TERMINAL_RISK
    without = [name for name in whole.rows.column_names if view.name in name]
    less = Kept(rows=whole.rows.drop_columns(without), declarations=(shop.CARD_RECENT, shop.CARD_ACTIVITY))
    tag = bundles.built["fraud"].tag
    other = ask(settings, less, tag)
    assert (other.problem, other.same, other.from_the_log) == (None, True, [view.name])
    without_log = ask(replace(settings, home=settings.home / "nowhere"), less, tag)
    assert without_log.problem == f"it reads views that were not read then: {view.name}"
    assert "is a bundle for retention" in str(ask(settings, whole, bundles.built["retention"].tag).problem)


def test_as_a_text(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked, known, decided, and that it holds; JSON on request; an id that nobody had is an error with the way out."""
    assert main(settings, ["explained-0", "--bundle", "clicktrail-fraud:latest"]) == 0
    text = capsys.readouterr().out
    for line in (
        r"^request explained-0, .* answered in .* ms$",
        r"^  price_minor +1200$",
        r"^  card_recent_v1 of card1, at offset 8, as of 2026-03-03 14:00:00.000000$",
        r"^    count_payment_7d +3$",
        r"^decided by model$",
        r"^  threshold +0.5$",
        r"^  action +review$",
        r"^  because: .+ \(raises it by \d+\.\d\d log odds\)$",
        r"^features: 8 of 8 are the same in the event log at that offset and time$",
        r"^decision: made again, equal to the bit$",
        r"^under clicktrail-fraud:.*: the same$",
    ):
        assert re.search(line, text, re.MULTILINE), line
    assert main(settings, ["explained-3", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["decided"][0]["items"] == ["e", "d"]
    assert said["again"]["same"] is True
    assert main(settings, ["nobody-had-this"]) == 2
    assert "CLICKTRAIL_DECISION_LOG" in capsys.readouterr().err


def test_a_bundle_that_is_gone_is_said(settings: Settings, tmp_path: Path) -> None:
    """What was known and decided is still told."""
    found = explain(replace(settings, bentoml_home=tmp_path), kept(settings, "a user"))
    assert "is not in BentoML's store" in str(found.again.problem)
    assert "decision: not made again" in render(found)


def test_decisions_meet_their_outcomes(settings: Settings, tmp_path: Path) -> None:
    """The guide's queries: a payment its label; recommended items what the user viewed and bought within a day."""
    home = tmp_path / "home"
    shutil.copytree(settings.home, home)
    shop_later = replace(settings, home=home)
    decided = kept(settings, "items").rows["t"][0].as_py()
    rows: list[dict[str, Any]] = [
        {"event_type": "payment", "event_id": "new1", "card_id": "card1", "terminal_id": "shop1", "price_minor": 1200},
        {"event_type": "label", "event_id": "l1", "label_of": "new1", "label": "fraud", "label_value": 1},
        {"event_type": "view", "event_id": "v1", "item_id": "c", "price_minor": 1},
        {"event_type": "purchase", "event_id": "v2", "item_id": "d", "price_minor": 1},
    ]
    whole = [
        dict.fromkeys(arrow_schema().names)
        | {"user_id": "ann", "source_seq": 100 + number, "event_timestamp": decided + timedelta(hours=number)}
        | {"ingested_at": decided + timedelta(hours=number)}
        | row
        for number, row in enumerate(rows)
    ]
    assert EventLog(shop_later.log).append(pa.Table.from_pylist(whole, schema=arrow_schema())).accepted == 4
    queries = {block.order: block.text for block in blocks(GUIDE) if block.language == "sql"}
    con = duckdb.connect()
    EventLog(shop_later.log).attach(con)
    decisions.attach(con, shop_later, "fraud")
    labelled = con.sql(queries["fraud"]).fetchall()
    assert {label for payment, *_, label in labelled if payment == "new1"} == {1}
    decisions.attach(con, shop_later, "recommendation")
    answers = con.sql(queries["recommendation"]).fetchall()
    followed = {row[1:3]: row[3:] for row in answers if row[0] == "explained-2"}
    assert followed["c", 1] == (True, False)
    assert followed["d", 2] == (False, True)
    assert followed["e", 3] == (False, False)
