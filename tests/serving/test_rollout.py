"""Champion, canary, shadow and the way back: the pure parts here, the running front in test_rollout_load.py."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.free_port import free_port
from serving.rollout import leash, state
from serving.rollout.__main__ import main
from serving.rollout.answers import NOTHING, Reading, difference, reading
from serving.rollout.guard import Observation, Verdict, Window, judge
from serving.rollout.passing import passed_on
from serving.rollout.routing import is_in, place, user_of
from serving.rollout.state import Canary, Limits

A, B, C = (f"clicktrail-fraud:{letter * 16}" for letter in "abc")
NOW = "2026-03-01T12:00:00.000+00:00"

users = st.text(max_size=20)
shares = st.floats(0.1, 90)


# ---- routing


def test_a_user_has_the_same_place_everywhere() -> None:
    """The place is a hash of tag and user, not of the process: another front sends the user the same way."""
    # printf 'clicktrail-fraud:bbbbbbbbbbbbbbbb\\0ann' | b2sum -l 64
    assert place(B, "ann") == pytest.approx(100 * 0x25089C9C1C2FB617 / 2**64)
    assert place(B, "bob") == pytest.approx(100 * 0x26A3877E6F179B43 / 2**64)


@given(user=users, one=shares, other=shares)
def test_who_is_in_stays_in_as_the_share_grows(user: str, one: float, other: float) -> None:
    """Nobody goes back and forth between two models while a share is raised."""
    small, large = sorted((one, other))
    assert not is_in(B, small, user) or is_in(B, large, user)


def test_a_share_is_that_share_of_users() -> None:
    """5 % is 5 % of users, and another canary's 5 % are others: 5 % of them too."""
    people = [f"u{number:06}" for number in range(20_000)]
    first = {user for user in people if is_in(B, 5, user)}
    second = {user for user in people if is_in(C, 5, user)}
    assert len(first) == pytest.approx(1000, abs=4 * (20_000 * 0.05 * 0.95) ** 0.5)
    assert len(first & second) == pytest.approx(50, abs=4 * 50**0.5)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'{"user_id": 7}', b'{"users": [{"user_id": "ann"}]}', b'{"user_ids": ["ann"]}', b"[" * 60_000],
)
def test_what_is_about_no_single_user_goes_to_the_champion(body: bytes) -> None:
    """A body with several users, or none that can be read, belongs to no user's bundle."""
    assert user_of(body) is None
    assert user_of(b'{"user_id": "ann", "k": 3}') == "ann"


@given(user=users)
def test_any_text_has_a_place(user: str) -> None:
    """Whatever JSON can hold as a user, half surrogates too, is somewhere from 0 to 100."""
    assert 0 <= place(B, user) < 100
    assert user_of(json.dumps({"user_id": user + "\ud800"}).encode()) == user + "\ud800"
    assert 0 <= place(B, user + "\ud800") < 100


# ---- guard


def seen(count: int, *, failed: int = 0, seconds: float = 0.01, cold: int = 0, score: float = 0.5) -> list[Observation]:
    """`count` requests, the first of them failed or cold; scores are `score` and a tenth around it."""
    return [
        Observation(
            at=float(number),
            failed=number < failed,
            seconds=seconds,
            said=NOTHING if number < failed else Reading(cold=number < cold, score=score + (number % 3 - 1) / 10),
        )
        for number in range(count)
    ]


def rule(canary: list[Observation], champion: list[Observation], **limits: float) -> str | None:
    verdict = judge(canary, champion, replace(Limits(), **limits))  # type: ignore[arg-type]
    return verdict.rule if verdict else None


def test_equal_bundles_are_left_alone() -> None:
    """A canary that does what the champion does stays."""
    assert rule(seen(100, failed=3, cold=20), seen(1000, failed=30, cold=200)) is None


def test_each_rule_takes_a_canary_out() -> None:
    """Errors, slowness, cold starts and other scores are each enough, and the verdict has the figures."""
    champion = seen(1000, failed=10, cold=100)
    assert judge(seen(100, failed=20), champion, Limits()) == Verdict(
        rule="error_rate", why="errors 20.0% of 100 against 1.0% of 1000, allowed 2.0% more"
    )
    # 10 ms * 2 + 20 ms = 40 ms
    assert judge(seen(100, seconds=0.05), champion, Limits()) == Verdict(
        rule="p99", why="100.0% of 100 took over 40 ms, where the champion's p99 is 10 ms"
    )
    assert rule(seen(100, cold=50), champion) == "cold_starts"
    # a deviation of 0.082, so 0.1 is more than one
    assert rule(seen(100, score=0.6), champion) == "score_drift"
    assert rule(seen(100, score=0.6), champion, score_drift=2) is None


def test_few_requests_say_nothing() -> None:
    """Under `min_requests` of the canary nothing is said; under that of the champion, of errors alone."""
    assert rule(seen(49, failed=49), seen(1000)) is None
    assert rule(seen(50, failed=50), []) == "error_rate"
    assert rule(seen(50, seconds=9.0), seen(49)) is None


def test_a_difference_that_chance_may_give_is_not_enough() -> None:
    """2 of 50 are above 2 %, but within what 50 requests may show of a bundle that is no worse."""
    assert rule(seen(50, failed=2), seen(1000, failed=10)) is None
    assert rule(seen(5000, failed=200), seen(100_000, failed=1000)) == "error_rate"  # 4 % against 1 %


@given(st.integers(50, 300), st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.5))
def test_more_errors_never_help(count: int, fewer: int, more: int, limit: float) -> None:
    """A canary taken out for its errors is taken out with more of them."""
    fewer, more = sorted((min(fewer, count), min(more, count)))
    champion = seen(200)
    few, many = (rule(seen(count, failed=failed), champion, error_rate=limit) for failed in (fewer, more))
    assert few != "error_rate" or many == "error_rate"


def test_a_window_slides() -> None:
    """What ended before the window is forgotten."""
    window = Window()
    for observation in seen(10):
        window.add(observation)
    assert [one.at for one in window.since(7.0)] == [7.0, 8.0, 9.0]
    assert len(window.since(0.0)) == 3


# ---- answers


def test_answers_are_compared_by_score_or_by_items() -> None:
    """Scores by their difference, recommendations by the share of items that are missing."""
    one = reading(b'{"score": 0.25, "cold_start": false}')
    assert difference(one, reading(b'{"score": 0.75, "cold_start": true}')) == 0.5
    few = reading(b'{"items": [{"item_id": "a"}, {"item_id": "b"}]}')
    assert difference(few, reading(b'{"items": [{"item_id": "b"}, {"item_id": "c"}]}')) == 1 / 2
    assert difference(one, few) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"score": "high", "items": 3, "cold_start": 1}'])
def test_a_foreign_answer_says_nothing(body: bytes) -> None:
    """What is not one of our answers is not guessed at."""
    assert reading(body) == NOTHING


# ---- headers


def test_headers_of_a_connection_stay_with_it() -> None:
    """Hop-by-hop headers, those that Connection names, and the proxy's own are not passed on; all else is."""
    headers = [
        (b"Host", b"shop"),
        (b"Connection", b"keep-alive, X-Mine"),
        (b"Keep-Alive", b"timeout=5"),
        (b"X-Mine", b"1"),
        (b"TE", b"trailers"),
        (b"Traceparent", b"00-1-2-01"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]
    left = [(b"traceparent", b"00-1-2-01"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert passed_on(headers, frozenset({b"host"})) == left


# ---- state


def test_a_rollback_returns_to_the_champion_before() -> None:
    """And a second one to that before it; the bundles that were left are not returned to."""
    rollout = state.begun("fraud", A, NOW)
    rollout = state.promoted(state.promoted(rollout, B, NOW), C, NOW)
    assert (rollout.champion, rollout.previous) == (C, (A, B))
    rollout = state.rolled_back(rollout, NOW)
    assert (rollout.champion, rollout.previous) == (B, (A,))
    rollout = state.rolled_back(rollout, NOW)
    assert (rollout.champion, rollout.previous, rollout.revision) == (A, (), 5)
    with pytest.raises(ValueError, match="no champion before"):
        state.rolled_back(rollout, NOW)


def test_a_canary_ends_with_its_champion() -> None:
    """Promoted or not: what it was compared with has gone. The shadow stays, unless it is the champion now."""
    rollout = state.with_canary(state.begun("fraud", A, NOW), Canary(tag=B, share=5), NOW)
    rollout = state.with_shadow(rollout, C, NOW)
    assert rollout.roles == {"champion": A, "canary": B, "shadow": C}
    assert state.promoted(rollout, B, NOW).roles == {"champion": B, "shadow": C}
    assert state.promoted(rollout, C, NOW).roles == {"champion": C}


def test_a_bundle_is_not_compared_with_itself() -> None:
    """The champion can be neither canary nor shadow, nor be promoted again."""
    rollout = state.begun("fraud", A, NOW)
    with pytest.raises(ValueError, match="has to be another bundle"):
        state.with_canary(rollout, Canary(tag=A, share=5), NOW)
    with pytest.raises(ValueError, match="has to be another bundle"):
        state.with_shadow(rollout, A, NOW)
    with pytest.raises(ValueError, match="champion already"):
        state.promoted(rollout, A, NOW)


def test_taken_out_says_why_and_once() -> None:
    """Whoever has lost the role meanwhile is left alone; the last champion stays, since somebody must answer."""
    rollout = state.with_canary(state.begun("fraud", A, NOW), Canary(tag=B, share=5), NOW)
    after = state.taken_out(rollout, "canary", B, "it was slow", NOW)
    assert after.canary is None
    assert (after.history[-1].what, after.history[-1].tag, after.history[-1].why) == (
        "canary taken out",
        B,
        "it was slow",
    )
    assert state.taken_out(after, "canary", B, "it was slow", NOW) is after
    assert state.taken_out(after, "champion", A, "gone", NOW) is after
    assert state.taken_out(state.promoted(after, B, NOW), "champion", B, "no start", NOW).champion == A


@pytest.mark.parametrize("share", [0, -1, 90.5, 100, float("nan")])
def test_a_share_leaves_users_to_compare_with(share: float) -> None:
    """A canary has some users, and the champion keeps some."""
    with pytest.raises(ValueError, match="promote it"):
        Canary(tag=B, share=share)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """The file holds everything, a step starts from what it says, and one that changes nothing writes nothing."""
    file = state.file_of(tmp_path, "fraud")
    begun = state.begin(file, state.begun("fraud", A, NOW))
    assert state.begin(file, state.begun("fraud", B, NOW)) == begun  # somebody was quicker
    changed = state.change(file, lambda rollout: state.with_canary(rollout, Canary(tag=B, share=2.5), NOW))
    changed = state.change(file, lambda rollout: state.with_limits(rollout, Limits(error_rate=0.5), NOW))
    assert state.read(file) == changed
    written = file.stat().st_mtime_ns
    state.change(file, lambda rollout: state.with_shadow(rollout, None, NOW))
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "task": "fraud", "previous": [], "canary": {}, "limits": {}, "history": []}',
    ],
)
def test_a_file_that_is_no_rollout_is_refused(tmp_path: Path, content: str) -> None:
    """Whatever was written by hand: the error names the file."""
    file = tmp_path / "fraud.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"fraud\.json is no rollout"):
        state.read(file)


def test_commands_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No rollout, no such limit, a canary without its share: each is told with the way out."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path))
    assert main(["--task", "fraud", "--rollback"]) == 1
    assert "begin one with python -m serving.rollout --task fraud" in capsys.readouterr().err
    state.begin(state.file_of(tmp_path, "fraud"), state.begun("fraud", A, NOW))
    assert main(["--task", "fraud", "--guard", "errors=1"]) == 1
    assert "give LIMIT=VALUE, of window_s, min_requests, error_rate" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--task", "fraud", "--canary", B])
    assert "go together" in capsys.readouterr().err


def test_a_command_without_a_front_is_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no front runs the file is changed all the same, and the status says that nobody answers."""
    monkeypatch.setenv("CLICKTRAIL_HOME", str(tmp_path))
    file, port = state.file_of(tmp_path, "fraud"), ["--task", "fraud", "--port", str(free_port())]
    state.begin(file, state.promoted(state.begun("fraud", A, NOW), B, NOW))
    assert main([*port, "--rollback"]) == 0
    assert state.read(file).champion == A
    assert "no front of fraud answers" in capsys.readouterr().out
    assert main([*port, "--status"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"champion  {A}\nno front of fraud answers on port ")
    assert f"rolled back {B}" in told


# ---- processes


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells a child that its parent is gone")
def test_a_bundle_does_not_outlive_a_front_that_was_killed() -> None:
    """The leash: kill -9 of the parent ends the child."""
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {leash.__file__!r}, str(os.getpid()), 'sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        child = psutil.Process(int(front.stdout.readline()))
        deadline = time.monotonic() + 20
        while child.name() != "sleep" and time.monotonic() < deadline:
            time.sleep(0.01)
        front.kill()
    child.wait(20)
