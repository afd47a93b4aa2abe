"""What a service tells of its requests, and what it keeps to itself."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from clicktrail import decision_files
from serving.decision import Mark
from serving.decisions import find
from serving.explain import ask
from serving.logs import AccessLog, JsonLines
from serving.manifest import RefusedError
from serving.metrics import Metrics
from serving.request_ids import identified, request_id
from serving.tracing import Tracing
from tests.serving import shop
from tests.serving.conftest import Bundles, Server, start, stop, wait_until_ready
from tests.serving.test_decision_log import decision, noted
from tests.serving.test_service import PAYMENT, post

pytestmark = pytest.mark.xdist_group("serving")

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("given", ["r1", "a" * 128, "2026/04/01:12+00=x_y-z.0"])
def test_an_id_that_a_caller_gives_stays(given: str) -> None:
    """So that a request can be followed through his systems and ours."""
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", 'a"', "a\\", "ä", "a\n", "ann@example.com"])
def test_an_id_that_will_not_do_is_replaced(given: str | None) -> None:
    """By one of our own that tells its time: nothing that breaks a log line, and no mail address."""
    before = time.time_ns() // 1_000_000
    made = request_id(given)
    assert UUID7.fullmatch(made)
    assert before <= int(made[:8] + made[9:13], 16) <= time.time_ns() // 1_000_000
    assert request_id(given) != made


def test_a_request_that_is_passed_on_has_an_id() -> None:
    """One for all who are asked the same: the caller's, or one of ours in its place."""
    assert identified([(b"x-request-id", b"r1"), (b"host", b"shop")]) == [(b"host", b"shop"), (b"x-request-id", b"r1")]
    for headers in ([], [(b"x-request-id", b"two words")]):
        ((name, value),) = identified(headers)
        assert name == b"x-request-id"
        assert UUID7.fullmatch(value.decode())


def test_a_line_a_request() -> None:
    """One JSON object with id, bundle, status and time: an error where it is ours."""
    stream = io.StringIO()
    access = AccessLog("clicktrail-fraud:v1", stream)
    access.line("r1", 200, 1.25, 1, 1_775_044_800.0)
    access.line("r2", 503, 0.5, 0, 1_775_044_800.5)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "time": "2026-04-01T12:00:00.000Z",
        "level": "info",
        "event": "request",
        "request_id": "r1",
        "model": "clicktrail-fraud:v1",
        "status": 200,
        "ms": 1.25,
        "rows": 1,
    }
    assert (second["level"], second["status"]) == ("error", 503)
    stream.close()
    access.line("r3", 200, 1.0, 1, 0.0)  # nobody reads any more: nothing happens


def test_an_exception_is_told_without_what_it_quotes() -> None:
    """Type and lines of code, of what it came from too; a message only where it speaks of the state or the bundle."""
    try:
        try:
            {}["ann"]
        except KeyError as error:
            message = "no such view"
            raise RefusedError(message) from error
    except RefusedError:
        record = logging.LogRecord("clicktrail", logging.ERROR, __file__, 1, "it failed", None, sys.exc_info())
    record.about = {"request_id": "r1"}
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["level"], line["request_id"]) == ("it failed", "error", "r1")
    assert (line["error"]["type"], line["error"]["message"]) == ("RefusedError", "no such view")
    assert line["error"]["from"]["type"] == "KeyError"
    assert "test_an_exception_is_told" in line["error"]["from"]["at"][-1]
    assert "ann" not in json.dumps(line).replace(__file__, "")


def test_stages_are_spans_below_the_requests() -> None:
    """Where a trace is recorded its stages are there, with the times that they took; elsewhere nothing is made."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    now = time.perf_counter_ns()
    marks = [Mark("state.read", now - 3_000_000, now - 1_000_000), Mark("model.run", now - 1_000_000, now)]
    tracing.stages(marks, {"clicktrail.request_id": "r1"})
    assert exporter.get_finished_spans() == ()
    with provider.get_tracer("test").start_as_current_span("POST /score"):
        tracing.stages(marks, {"clicktrail.request_id": "r1"})
    read, model, request = exporter.get_finished_spans()
    assert [one.name for one in (read, model, request)] == ["state.read", "model.run", "POST /score"]
    assert {read.parent.span_id, model.parent.span_id} == {request.context.span_id}
    assert read.end_time - read.start_time == 2_000_000
    assert abs(model.end_time - time.time_ns()) < 10_000_000_000
    assert request.attributes == {"clicktrail.request_id": "r1"}


def test_figures_have_bounded_labels() -> None:
    """Whatever is decided for whomever, the series are the same: an action that nobody knows is counted as other."""
    registry = CollectorRegistry()
    metrics = Metrics("clicktrail-fraud:v1", registry)
    for number in range(20):
        one = noted(user_id=f"u{number}", card_id=f"c{number}").decision
        outcomes = [{"score": number / 20, "action": f"action {number}" if number else "decline"}]
        metrics.decided(decision("fraud", one.request, one.read.fields, outcomes), [Mark("state.read", 0, 500_000_000)])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"bundle": "clicktrail-fraud:v1", **labels})

    assert value("clicktrail_decisions_total", answered_by="model", action="decline") == 1
    assert value("clicktrail_decisions_total", answered_by="model", action="other") == 19
    assert value("clicktrail_stage_seconds_total", stage="state.read") == 20 * 0.5
    assert value("clicktrail_score_bucket", le="0.5") == 11
    assert value("clicktrail_feature_age_seconds_bucket", le="0.1") == 20
    assert not any("u1" in str(sample) for family in registry.collect() for sample in family.samples)


@pytest.mark.slow
def test_every_answer_has_its_id(servers: dict[str, Server]) -> None:
    """The caller's, or one of ours; refused or not."""
    client = servers["fraud"].client
    assert client.post("/score", json=PAYMENT, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert UUID7.fullmatch(client.post("/score", json=PAYMENT).headers["x-request-id"])
    refused = client.post("/score", json={}, headers={"x-request-id": "mine-2"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (400, "mine-2")


@pytest.mark.slow
def test_figures_are_of_one_server(servers: dict[str, Server], bundles: Bundles) -> None:
    """What a bundle decided is on its own page alone, although BentoML's home is the same."""
    post(servers["fraud"], "/score", PAYMENT)
    page = servers["fraud"].client.get("/metrics").text
    tag = bundles.built["fraud"].tag
    for name in ("decisions_total", "score_bucket", "feature_age_seconds_bucket", "stage_seconds_total"):
        assert re.search(rf'^clicktrail_{name}{{.*bundle="{tag}".*}} (?!0\.0$)', page, re.MULTILINE), name
    offset = re.search(rf'^clicktrail_state_offset{{bundle="{tag}"}} (.*)$', page, re.MULTILINE)
    assert offset is not None
    assert float(offset[1]) == shop.events().num_rows
    assert tag not in servers["recommendation"].client.get("/metrics").text


@pytest.mark.slow
def test_a_service_that_ends_has_told_all_but_who(bundles: Bundles, tmp_path: Path) -> None:
    """Ended in the middle it keeps every decision, and the costs behind it; its log is JSON that names nobody."""
    costs = {
        "review": {"fixed_minor": 1e9, "finds": 1},
        "missed_fraud": {"share": 1, "fixed_minor": 0},
        "false_decline": {"share": 0, "fixed_minor": 0},
    }
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    environ = bundles.environ(CLICKTRAIL_FRAUD_COSTS=str(tmp_path / "costs.json"))
    server = start("clicktrail-fraud:latest", tmp_path, tmp_path / "log", environ)
    wait_until_ready(server)
    private = {"user_id": "someone-real", "card_id": "4111-1111", "terminal_id": "the-corner-shop"}
    ids = [f"ending-{number}" for number in range(20)]
    for one in ids:
        body = {**PAYMENT, **private, "event_id": f"{one}-event"}
        assert server.client.post("/score", json=body, headers={"x-request-id": one}).status_code == 200
    assert server.client.post("/score", json={**PAYMENT, **private, "currency": 7}).status_code == 400
    assert server.client.post("/score", content=json.dumps(private) + "}").status_code == 400
    assert server.client.post(f"/score/{private['user_id']}").status_code == 404
    stop(server)
    kept = [
        row
        for path in decision_files.files(bundles.settings.decisions, "fraud")
        for row in pq.read_table(path, partitioning=None).to_pylist()
        if row["request_id"] in ids
    ]
    assert [(row["request_id"], row["user_id"]) for row in kept] == [(one, "someone-real") for one in ids]
    (first,) = find(bundles.settings, ids[0])
    assert first.rows["action"].to_pylist() == ["decline"]  # the bundle's own costs would have it reviewed
    assert ask(replace(bundles.settings, bentoml_home=bundles.store), first, first.model).same is True
    said = server.log.read_text()
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [one["request_id"] for one in lines if one["event"] == "request"][: len(ids)] == ids
    assert sum(one["event"] == "request" and one["status"] == 400 for one in lines) == 2
    assert not any(value in said for value in private.values())
