"""The decision log: what becomes of a decision between the answer and its file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clicktrail import decision_files
from clicktrail.clock import microseconds
from clicktrail.forget_derived import from_decisions
from clicktrail.settings import Settings, load
from clicktrail.traces import Traces
from serving.decide_again import KeptView
from serving.decision import Decision, Read
from serving.decision_log import DecisionLog
from serving.decision_rows import DecisionTable, Noted, request_of
from serving.endpoints import ENDPOINTS
from serving.features import Features, Moment
from serving.schema import parse
from tests.serving import shop

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
TAG = "clicktrail-fraud:0123456789abcdef"


class Counts:
    """What became of rows."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.rows = {"kept": 0, "dropped": 0}
        self.bytes = 0

    def kept(self, rows: int, size: int) -> None:
        """They were written."""
        self.rows["kept"] += rows
        self.bytes += size

    def dropped(self, rows: int) -> None:
        """They were not."""
        self.rows["dropped"] += rows


def table(task: str) -> DecisionTable:
    return DecisionTable(task, TAG, ENDPOINTS[task].fields, shop.DECLARATIONS[task])


def log(folder: Path, counts: Counts, **more: Any) -> DecisionLog:  # noqa: ANN401
    return DecisionLog(folder, "fraud", table("fraud"), counts, **more)


def payment(**more: object) -> dict[str, Any]:
    """A payment as the service takes it."""
    body = {"event_id": "p1", "user_id": "ann", "card_id": "card1", "terminal_id": "shop1", "price_minor": 1200, **more}
    return parse(json.dumps(body).encode(), ENDPOINTS["fraud"].fields)


def decision(
    task: str, request: Mapping[str, Any], fields: Mapping[str, Sequence[Any]], outcomes: Sequence[Mapping[str, Any]]
) -> Decision:
    """A decision about made-up features, the same for each of its rows."""
    rows = len(outcomes)
    views, _, t = shop.features_of(task, 1)
    features = Features(
        results={
            one.name: KeptView(
                columns={name: pa.array(views[one.name][name] * rows, type_) for name, type_ in one.outputs.items()},
                known=[True] * rows,
                times=[t] * rows,
                offsets=[8] * rows,
            )
            for one in shop.DECLARATIONS[task]
        },
        as_of=[t] * rows,
    )
    answers = [{"answered_by": "model", "cold_start": False} for _ in outcomes]
    return Decision(
        answer={"answers": answers} if rows > 1 else answers[0],
        request=request,
        read=Read(fields=fields, moment=Moment(t=t, watermark=t - 1, offset=8), features=features),
        outcomes=outcomes,
    )


def noted(request_id: str = "r1", at: datetime = NOON, **more: object) -> Noted:
    """A scored payment."""
    request = payment(**more)
    fields = {name: [value] for name, value in request.items()}
    outcomes = [{"score": 0.25, "threshold": 0.5, "flagged": False}]
    return Noted(
        request_id=request_id,
        received=microseconds(at),
        latency_us=900,
        decision=decision("fraud", request, fields, outcomes),
    )


def kept_ids(folder: Path) -> list[str]:
    """Ids of the requests in the files."""
    return [
        one
        for path in decision_files.files(folder)
        for one in pq.read_table(path, partitioning=None)["request_id"].to_pylist()
    ]


def test_a_row_holds_all_that_a_decision_rests_on(tmp_path: Path) -> None:
    """Request, features as served with offset and time, and what was decided, in columns of the declared types."""
    counts = Counts()
    written = log(tmp_path, counts)
    written.note(noted(event_timestamp="2026-04-01T11:00:00Z"))
    written.close()
    (path,) = decision_files.files(tmp_path, "fraud")
    assert path.parent == tmp_path / "fraud" / "date=2026-04-01"
    assert counts.rows == {"kept": 1, "dropped": 0}
    assert counts.bytes == path.stat().st_size
    (row,) = pq.read_table(path, partitioning=None).to_pylist()
    assert (row["request_id"], row["row"], row["task"], row["model"]) == ("r1", 0, "fraud", TAG)
    assert (row["received"], row["latency_us"]) == (NOON, 900)
    assert (row["user_id"], row["card_id"], row["terminal_id"]) == ("ann", "card1", "shop1")
    assert (row["score"], row["threshold"], row["flagged"], row["answered_by"]) == (0.25, 0.5, False, "model")
    assert (row["request__price_minor"], row["request__event_timestamp"]) == (1200, NOON - timedelta(hours=1))
    assert row["card_recent_v1__price_minor"] == [100, 2000]
    assert row["card_recent_v1__terminal_id"] == ["shop1", None]
    assert row["terminal_risk_v1__label_rate_fraud_payment_7d"] == [1, 3]
    assert (row["offset__card_recent_v1"], row["known__card_recent_v1"]) == (8, True)
    assert row["read_at__card_recent_v1"] == row["t"] == shop.at(40)
    schema = pq.read_schema(path)
    assert decision_files.declarations_of(schema) == list(shop.DECLARATIONS["fraud"])
    for one in shop.DECLARATIONS["fraud"]:
        for name, type_ in one.outputs.items():
            found = schema.field(f"{one.name}__{name}").type
            assert (found.value_type, type_.value_type) if pa.types.is_list(type_) else found == type_


def test_a_request_comes_back_as_it_was_taken() -> None:
    """From the rows of a decision: every field, times in microseconds, a field that nobody sent at its default."""
    request = payment(event_timestamp="2026-04-01T11:00:00Z", device=None)
    rows = table("fraud").rows([noted(event_timestamp="2026-04-01T11:00:00Z", device=None)])
    whole = pa.table(
        {
            name: column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            for name, column in zip(rows.column_names, rows.columns, strict=True)
        }
    )
    assert request_of(whole.to_pylist(), ENDPOINTS["fraud"].fields) == request


def test_a_request_about_many_has_a_row_for_each() -> None:
    """Each row has its own user; no row names the others, so that one of them can be forgotten."""
    users = ["ann", "bob"]
    outcomes = [{"score": 0.1}, {"score": 0.2, "margin": 3}]
    asked = decision("retention", {"user_id": None, "users": users}, {"user_id": users}, outcomes)
    found = table("retention").rows([Noted(request_id="r1", received=0, latency_us=1, decision=asked)]).to_pylist()
    assert [(row["row"], row["user_id"], row["score"], row["more"]) for row in found] == [
        (0, "ann", 0.1, None),
        (1, "bob", 0.2, '{"margin": 3}'),
    ]
    assert not any("ann" in str(value) for value in found[1].values())


def test_what_came_together_is_one_file_a_day(tmp_path: Path) -> None:
    """A batch over midnight goes to both days, in order; no file is left aside."""
    written = log(tmp_path, Counts())
    for number, hours in enumerate((0, 11, 12, 13)):
        written.note(noted(f"r{number}", NOON + timedelta(hours=hours)))
    written.flush()
    written.note(noted("r4", NOON + timedelta(hours=13)))
    written.close()
    days = [path.parent.name for path in decision_files.files(tmp_path)]
    assert days == ["date=2026-04-01", "date=2026-04-02", "date=2026-04-02"]
    assert kept_ids(tmp_path) == ["r0", "r1", "r2", "r3", "r4"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_it_writes_in_the_background(tmp_path: Path) -> None:
    """What is noted is in a file soon, without anybody asking for it."""
    written = log(tmp_path, Counts(), seconds=0.01)
    written.start()
    written.note(noted(at=datetime.now(UTC)))
    while not kept_ids(tmp_path):
        time.sleep(0.01)
    written.close()
    assert kept_ids(tmp_path) == ["r1"]


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    """Memory is bounded: a decision beyond it is not kept, and there is room again once the rest is written."""
    counts = Counts()
    written = log(tmp_path, counts, room=2)
    for number in range(3):
        written.note(noted(f"r{number}"))
    assert counts.rows == {"kept": 0, "dropped": 1}
    written.flush()
    written.note(noted("r3"))
    written.close()
    assert kept_ids(tmp_path) == ["r0", "r1", "r3"]


def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    """A folder that cannot be made costs rows, which are counted, and not the service."""
    (tmp_path / "decisions").write_text("a file where the folder should be")
    counts = Counts()
    written = log(tmp_path / "decisions", counts)
    written.note(noted())
    written.close()
    assert counts.rows == {"kept": 0, "dropped": 1}


def test_a_share_is_the_same_requests_everywhere(tmp_path: Path) -> None:
    """Which requests are kept depends on their ids alone, so that two services keep the same ones."""
    for name in ("one", "other"):
        written = log(tmp_path / name, Counts(), share=0.5)
        for number in range(100):
            written.note(noted(f"r{number}"))
        written.close()
    assert kept_ids(tmp_path / "one") == kept_ids(tmp_path / "other")
    assert 30 < len(kept_ids(tmp_path / "one")) < 70


def test_how_much_is_kept_is_read_strictly() -> None:
    """On, off or a share, and whole days: anything else is an error that names the variable and what it takes."""
    assert load({}).decision_share == load({"CLICKTRAIL_DECISION_LOG": "on"}).decision_share == 1
    assert load({"CLICKTRAIL_DECISION_LOG": "off"}).decision_share == 0
    assert load({"CLICKTRAIL_DECISION_LOG": "0.25", "CLICKTRAIL_DECISION_DAYS": "7"}).decision_share == 0.25
    for name, values in (
        ("CLICKTRAIL_DECISION_LOG", ("yes", "1.5", "-0.1", "nan")),
        ("CLICKTRAIL_DECISION_DAYS", ("0", "-1", "1.5", "ten")),
        ("CLICKTRAIL_LOG_LEVEL", ("debug", "INFO")),
    ):
        for value in values:
            with pytest.raises(ValueError, match=f"{name} is '{value}': give"):
                load({name: value})


def test_days_that_are_over_go(tmp_path: Path) -> None:
    """A day further back than it may be is removed, with all its files; the last one that may be there stays."""
    written = log(tmp_path, Counts())
    for days in (0, 1, 2, 3):
        written.note(noted(f"r{days}", NOON - timedelta(days=days)))
    written.close()
    assert decision_files.remove_older(tmp_path, "fraud", 2, date(2026, 4, 1)) == 1
    assert sorted(kept_ids(tmp_path)) == ["r0", "r1", "r2"]


def test_a_forgotten_user_is_gone_from_it(tmp_path: Path) -> None:
    """Her decisions go, and those that read her events through her card; also what was in memory, and later ones."""
    settings = Settings(home=tmp_path)
    counts = Counts()
    written = log(settings.decisions, counts)
    for request_id, user, card in (("r1", "zoe", "card9"), ("r2", "bob", "card1"), ("r3", "bob", "card2")):
        written.note(noted(request_id, user_id=user, card_id=card))
    written.flush()
    now = datetime.now(UTC)
    written.note(noted("r4", now - timedelta(seconds=1), user_id="zoe"))
    # her events name the terminal too, but what is kept of it counts and divides
    found = Traces(users=("zoe",), entities={"card_id": ("card1",), "terminal_id": ("shop1",)})
    assert from_decisions(settings, found) == 2
    written.note(noted("r5", now + timedelta(minutes=1), user_id="zoe"))
    written.note(noted("r6", now + timedelta(minutes=1), user_id="bob", card_id="card2"))
    written.close()
    assert kept_ids(settings.decisions) == ["r3", "r6"]
    assert b"zoe" not in b"".join(path.read_bytes() for path in settings.decisions.rglob("*") if path.is_file())
    assert from_decisions(settings, found) == 0


@pytest.mark.parametrize(("given", "rows"), [("2", 2), ("3", 1)])
def test_rows_of_a_decision_stay_together(tmp_path: Path, given: str, rows: int) -> None:
    """A request about several users is kept whole or not at all."""
    users = [f"u{number}" for number in range(int(given))]
    asked = decision("retention", {}, {"user_id": users}, [{"score": 0.1} for _ in users])
    counts = Counts()
    written = DecisionLog(tmp_path, "retention", table("retention"), counts, room=2)
    written.note(Noted(request_id="r1", received=0, latency_us=1, decision=asked))
    written.close()
    assert counts.rows == ({"kept": 2, "dropped": 0} if rows == 2 else {"kept": 0, "dropped": 3})
