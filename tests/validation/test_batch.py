"""What stops a whole batch, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from validation.batch import BatchFacts, Thresholds, changed_kinds, compare, judge, of_reader

LIMITS = Thresholds()
DAY = 86_400 * 1_000_000
USUAL = {"view": 800, "cart": 150, "purchase": 50}


def day(number: int, **changes: object) -> BatchFacts:
    """An ordinary day of a thousand rows."""
    facts = BatchFacts(
        file=f"{number}.parquet",
        digest=str(number),
        reader="shop",
        rows=1_000,
        types=USUAL,
        kinds={"price": "number"},
        newest_event=number * DAY,
        newest_arrival=number * DAY,
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


HISTORY = [day(number) for number in range(14)]


def rules(facts: BatchFacts, history: list[BatchFacts] = HISTORY) -> list[str]:
    return [stop.rule for stop in judge(facts, history, LIMITS)]


def test_an_ordinary_day_passes() -> None:
    """A day like its history is not stopped."""
    assert rules(day(14)) == []


@pytest.mark.parametrize(
    "facts",
    [
        day(0, rows=1, types={"view": 1}),
        day(0, rows=1_000_000, types={"purchase": 1_000_000}),
    ],
)
def test_the_first_batches_have_no_history(facts: BatchFacts) -> None:
    """Volume, mix and age are compared from the fourth batch on."""
    assert rules(facts, []) == []
    assert rules(facts, HISTORY[:2]) == []


@pytest.mark.parametrize(("rows", "stopped"), [(99, True), (100, False), (10_000, False), (10_001, True), (0, True)])
def test_volume_a_tenth_to_ten_times_the_median(rows: int, stopped: bool) -> None:  # noqa: FBT001
    """Below 1/10 or above 10x of the median of the history a file is not whole, or more than a day."""
    assert ("volume" in rules(day(14, rows=rows, types={}))) is stopped


def test_the_median_forgives_one_odd_day() -> None:
    """A sale in the history moves the median by little."""
    assert rules(day(14, rows=150), [*HISTORY[1:], day(13, rows=9_000)]) == []


def test_mix_is_half_the_sum_of_absolute_differences() -> None:
    """Total variation distance against the pooled shares of the history."""
    seen = compare(day(14, types={"view": 300, "login": 700}), HISTORY, LIMITS)
    assert seen.mix_distance == pytest.approx(((0.8 - 0.3) + 0.15 + 0.05 + 0.7) / 2)
    assert rules(day(14, types={"view": 300, "login": 700})) == ["mix"]
    assert rules(day(14, types={"view": 500, "login": 500})) == []


def test_a_renamed_event_type_is_named_in_the_reason() -> None:
    """The types that moved most are said with their old and new shares."""
    stop = judge(day(14, types={"(unmapped)": 800, "cart": 200}), HISTORY, LIMITS)[0]
    assert "(unmapped) 0% -> 80%" in stop.reason
    assert "view 80% -> 0%" in stop.reason


def test_few_rows_say_nothing_of_shares() -> None:
    """Shares of fewer than 100 rows stop nothing: noise is not a fault."""
    small = [replace(facts, rows=60) for facts in HISTORY]
    assert rules(day(14, rows=60, types={"login": 60}, quarantined={"x": 60}), small) == []


def test_stale_beside_its_own_arrival() -> None:
    """A file that arrives on day 14 and holds nothing newer than day 10 is an old one again."""
    assert rules(day(14, newest_event=14 * DAY - 3 * DAY)) == []
    assert rules(day(14, newest_event=14 * DAY - 3 * DAY - 1)) == ["stale"]


def test_stale_beside_its_history() -> None:
    """A file whose newest event is over a week older than what was there before is stopped."""
    assert rules(day(13 - 7)) == []
    assert rules(day(13 - 8)) == ["stale"]


def test_a_changed_type_is_named() -> None:
    """A source column that held numbers and now holds text stops the batch, an all-null one does not."""
    assert rules(day(14, kinds={"price": "text"})) == ["type_changed"]
    assert rules(day(14, kinds={"price": "null", "new": "text"})) == []
    assert changed_kinds(day(15, kinds={"price": "text"}), [*HISTORY, day(14, kinds={"price": "null"})]) == [
        ("price", "number", "text")
    ]


def test_a_column_that_is_mostly_unreadable_has_changed_its_type() -> None:
    """Over half of its values unreadable: the batch is stopped, even without history."""
    assert rules(day(0, unreadable={"price_minor": [501, 1_000]}), []) == ["type_changed"]
    assert rules(day(0, unreadable={"price_minor": [500, 1_000]}), []) == []


def test_a_batch_of_mostly_bad_rows_is_stopped() -> None:
    """Over half of its rows under a row rule: not fit to learn from."""
    assert rules(day(0, quarantined={"a": 300, "b": 201}), []) == ["bad_rows"]
    assert rules(day(0, quarantined={"a": 500}), []) == []


def test_history_is_of_the_same_reader() -> None:
    """Another reader's files are another world; only the last ones count."""
    mixed = [day(1), day(2, reader="other"), day(3), day(4)]
    assert [facts.file for facts in of_reader(mixed, "shop", 2)] == ["3.parquet", "4.parquet"]


def test_facts_survive_being_recorded() -> None:
    """What the log records of a batch comes back as it was."""
    facts = day(3, quarantined={"a": 1}, unreadable={"price_minor": [1, 2]})
    assert BatchFacts.from_json({**facts.to_json(), "of_a_later_version": 1}) == facts
