"""Files of requests, answered by a bundle's own code as its service answers them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from serving import manifest as manifests
from serving.batch_rows import REJECTED_SCHEMA
from serving.build import CHECKOUT
from serving.features import LiveState
from serving.model import Model
from serving.predictor import Predictor
from serving.score_batch import rejected_path, score_file
from tests.serving import shop
from tests.serving.conftest import Bundles, Server

pytestmark = [pytest.mark.xdist_group("serving"), pytest.mark.slow]


def payments() -> list[dict[str, Any]]:
    """Payments at times of their own, of cards that are known and not."""
    return [
        {
            "event_id": f"b{number}",
            "user_id": "ann",
            "card_id": ("card1", "card2", "card9", None)[number % 4],
            "terminal_id": ("shop1", None, "shop2")[number % 3],
            "price_minor": 100 + 997 * number,
            "device": "phone",
            "event_timestamp": shop.at(40 + 9 * number),
        }
        for number in range(10)
    ]


def predictor(bundles: Bundles, task: str) -> Predictor:
    model = Model.load(manifests.read(bundles.built[task].path))
    return Predictor(model, LiveState(replace(bundles.settings, clock="log"), model.declarations))


def run(bundles: Bundles, task: str, source: Path, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.score_batch", "--bundle", f"clicktrail-{task}:latest", "--quiet"]
    command += ["--in", str(source), "--out", str(target), *more]
    return subprocess.run(command, cwd=CHECKOUT, env=bundles.environ(), capture_output=True, text=True, check=False)


def test_answers_are_the_services_to_the_bit(servers: dict[str, Server], bundles: Bundles, tmp_path: Path) -> None:
    """Row by row the command says what the service says over HTTP, numbers and words; in chunks the same to 1e-6."""
    rows = payments()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    done = run(bundles, "fraud", tmp_path / "in.parquet", tmp_path / "out.parquet", "--rows", "1")
    assert done.returncode == 0, done.stderr
    assert "10 rows: 10 answered" in done.stdout
    table = pq.read_table(tmp_path / "out.parquet")
    assert not rejected_path(tmp_path / "out.parquet").exists()
    scores = []
    for number, (row, found) in enumerate(zip(rows, table.to_pylist(), strict=True), 1):
        body = {**row, "event_timestamp": row["event_timestamp"].isoformat()}
        answer = servers["fraud"].client.post("/score", json=body).json()
        scores.append(answer["score"])
        assert found.pop("row") == number
        assert found.pop("features_as_of").isoformat() == answer.pop("features_as_of").replace("Z", "+00:00")
        assert found.pop("reasons") == answer.pop("reasons", None)
        assert found == answer
    made = tmp_path / "chunks.parquet"
    score_file(predictor(bundles, "fraud"), "fraud", tmp_path / "in.parquet", made, more={})
    assert pq.read_table(made)["score"].to_pylist() == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_users_and_what_is_asked_of_all(bundles: Bundles, tmp_path: Path, rows: int) -> None:
    """Whatever the chunks, each row has its answer, also where a user is there twice; all have the same options."""
    users = ["ann", "nobody", "bob", "ann", "bob"]
    pq.write_table(pa.table({"user_id": users}), tmp_path / "in.parquet")
    target = tmp_path / "out.parquet"
    mine = predictor(bundles, "retention")
    assert score_file(mine, "retention", tmp_path / "in.parquet", target, more={"drivers": True}, rows=rows) == (5, 0)
    found = pq.read_table(target).to_pylist()
    assert [one["user_id"] for one in found] == users
    assert [one["row"] for one in found] == [1, 2, 3, 4, 5]
    assert [one["answered_by"] for one in found] == ["model", "base_rate", "model", "model", "model"]
    assert found[0]["drivers"] == found[3]["drivers"] != []
    assert found[0]["expected_value_minor"] == round(found[0]["probability"] * 8000)
    assert found[1]["expected_value_minor"] == round(shop.BASE_RATE * 4000)


def test_recommendations_are_lists_of_items(bundles: Bundles, tmp_path: Path) -> None:
    """A row a user, with items and scores in it."""
    pq.write_table(pa.table({"user_id": ["ann", "nobody"]}), tmp_path / "in.parquet")
    target = tmp_path / "out.parquet"
    mine = predictor(bundles, "recommendation")
    score_file(mine, "recommendation", tmp_path / "in.parquet", target, more={"k": 2})
    found = pq.read_table(target).to_pylist()
    assert [[one["item_id"] for one in row["items"]] for row in found] == [["b", "a"], ["e", "d"]]


def test_rows_that_break_rules_stand_aside(bundles: Bundles, tmp_path: Path) -> None:
    """Of a CSV file: a number that is none, a missing key, a time without offset and a payment of the future."""
    header = "event_id,user_id,card_id,terminal_id,price_minor,device,event_timestamp"
    lines = [
        "p1,ann,card1,shop1,1200,phone,2026-03-03T14:00:00Z",
        "p2,ann,card1,shop1,12x,phone,2026-03-03T14:00:00Z",
        "p3,,card1,shop1,1200,phone,2026-03-03T14:00:00Z",
        "p4,ann,,,1200,,",
        "p5,ann,card1,shop1,-5,phone,2026-03-03T14:00:00",
        "p6,ann,card1,shop1,1200,phone,2999-01-01T00:00:00Z",
    ]
    (tmp_path / "in.csv").write_text("\n".join([header, *lines]) + "\n")
    target = tmp_path / "out.parquet"
    model = Model.load(manifests.read(bundles.built["fraud"].path))
    mine = Predictor(model, LiveState(replace(bundles.settings, clock="wall"), model.declarations))
    assert score_file(mine, "fraud", tmp_path / "in.csv", target, more={}) == (2, 4)
    assert pq.read_table(target).select(["row", "event_id"]).to_pylist() == [
        {"row": 1, "event_id": "p1"},
        {"row": 4, "event_id": "p4"},
    ]
    rejected = pq.read_table(rejected_path(target))
    assert rejected.schema.equals(REJECTED_SCHEMA)
    assert [(one["row"], one["field"], one["rule"]) for one in rejected.to_pylist()] == [
        (2, "price_minor", "integer"),
        (3, "user_id", "not_null"),
        (5, "event_timestamp", "time"),
        (5, "price_minor", "range"),
        (6, "event_timestamp", "ahead_of_arrival"),
    ]
    # the next file has none, and its name does not point at those of the one before
    (tmp_path / "in.csv").write_text("\n".join([header, lines[0]]) + "\n")
    assert score_file(mine, "fraud", tmp_path / "in.csv", target, more={}) == (1, 0)
    assert not rejected_path(target).exists()


def test_files_that_cannot_be_scored(bundles: Bundles, tmp_path: Path) -> None:
    """A column that is no field is named with the way out; nothing is left behind, and no traceback is shown."""
    pq.write_table(pa.table({"user_id": ["ann"], "segment": ["a"]}), tmp_path / "in.parquet")
    target = tmp_path / "out.parquet"
    done = run(bundles, "retention", tmp_path / "in.parquet", target)
    assert done.returncode == 1
    assert "no fields of a request: segment" in done.stderr
    assert "--ignore segment" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
    mine = predictor(bundles, "retention")
    assert score_file(mine, "retention", tmp_path / "in.parquet", target, more={}, ignore=["segment"]) == (1, 0)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read"):
        score_file(mine, "retention", tmp_path / "broken.parquet", target, more={})
