"""Stores of state: steps happen whole or not at all, what is read is of one moment; over SQLite and over Redis."""

from __future__ import annotations

import shutil
import threading
import uuid
from pathlib import Path

import pytest

from benchmarks.redis_server import redis_server
from clicktrail.settings import Settings, load
from clicktrail.sqlite_state import SqliteState
from clicktrail.state_store import StateStore, StateUnreachableError, Step
from clicktrail.state_target import is_url, open_store, shown


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    """An empty store."""
    if request.param == "sqlite":
        return open_store(tmp_path / "online.db")
    return open_store(f"{request.getfixturevalue('redis_url')}#{uuid.uuid4().hex}")


def held(store: StateStore, generation: str, *entities: str) -> list[bytes]:
    """The bytes of entities."""
    (one,) = store.read([], [(generation, entities)])[1]
    raw, out = b"".join(one.pieces), []
    for size in one.sizes:
        out.append(raw[:size])
        raw = raw[size:]
    return out


def test_a_step_needs_every_text_that_it_expects(store: StateStore) -> None:
    """One that differs, lacks or is there after all: nothing of the step happens, and the next one is not held up."""
    assert store.apply([Step(expect={"a": None}, put={"a": "1", "b": ""})]) == [True]
    change = {"put": {"a": "2"}, "generation": "g", "moment": 1, "append": [("u", b"12345678")]}
    refused = [Step(expect=expect, **change) for expect in ({"a": "0"}, {"a": "1", "c": "x"}, {"b": None})]
    assert store.apply([*refused, Step(expect={"b": ""}, put={"c": "3"})]) == [False, False, False, True]
    assert store.texts("") == {"a": "1", "b": "", "c": "3"}
    assert held(store, "g", "u") == [b""]
    assert store.apply([Step(expect={"a": "1"}, put={"a": None})]) == [True]
    assert store.read(["a", "b", "nothing"], [])[0] == [None, "", None]


def test_bytes_are_appended_replaced_and_removed(store: StateStore) -> None:
    """Entities and generations do not touch each other, whatever their names."""
    first = [("u", b"aaaaaaaa"), ("ü:*", b"bbbbbbbb"), ("", b"cccccccc")]
    store.apply([Step(expect={}, generation="g", moment=1, append=first)])
    store.apply([Step(expect={}, generation="g1", moment=1, append=[("u", b"other...")])])
    more = [("u", b"AAAAAAAAAAAAAAAA")]
    store.apply([Step(expect={}, generation="g", moment=2, append=more, replace=[("ü:*", b"B"), ("", b"")])])
    assert held(store, "g", "u", "ü:*", "", "nobody", "u") == [
        b"aaaaaaaaAAAAAAAAAAAAAAAA",
        b"B",
        b"",
        b"",
        b"aaaaaaaaAAAAAAAAAAAAAAAA",
    ]
    assert store.sizes("g", ["u", "nobody", "ü:*"]) == [24, 0, 1]
    assert sorted(store.entities("g")) == ["u", "ü:*"]
    store.clear("g")
    assert held(store, "g", "u", "ü:*") == [b"", b""]
    assert held(store, "g1", "u") == [b"other..."]


def test_several_reads_are_of_one_moment(store: StateStore) -> None:
    """While somebody counts up in a text and two generations at once, no read sees them apart."""
    done = threading.Event()

    def count() -> None:
        for number in range(1, 150):
            store.apply(
                [
                    Step(
                        expect={},
                        put={"n": str(number)},
                        generation="g",
                        moment=number,
                        append=[("u", b"x"), ("v", b"x")],
                    )
                ]
            )
        done.set()

    writer = threading.Thread(target=count)
    writer.start()
    seen = set()
    while not done.is_set():
        (text,), (one, other) = store.read(["n"], [("g", ["u"]), ("g", ["v"])])
        assert one.sizes == other.sizes == [int(text or 0)]
        seen.add(text)
    writer.join()
    assert len(seen) > 1


def test_many_entities_at_once(store: StateStore) -> None:
    """More than fit into one query."""
    names = [f"u{number}" for number in range(25_000)]
    store.apply([Step(expect={}, generation="g", moment=1, append=[(name, name.encode()) for name in names])])
    assert held(store, "g", *names) == [name.encode() for name in names]
    assert sum(store.sizes("g", names)) == sum(map(len, names))
    assert len(set(store.entities("g"))) == 25_000
    store.clear("g")
    assert list(store.entities("g")) == []


def test_a_file_that_takes_anothers_place_is_read(tmp_path: Path) -> None:
    """An open store notices, for reading and for writing."""
    one, two = SqliteState(tmp_path / "online.db"), SqliteState(tmp_path / "other.db")
    one.apply([Step(expect={}, put={"a": "one"})])
    two.apply([Step(expect={}, put={"a": "two"})])
    assert one.texts("") == {"a": "one"}
    del two
    (tmp_path / "online.db").unlink()
    for left in tmp_path.glob("online.db-*"):
        left.unlink()
    assert one.texts("") == {}
    shutil.copyfile(tmp_path / "other.db", tmp_path / "online.db")
    assert one.texts("") == {"a": "two"}
    assert one.apply([Step(expect={"a": "two"}, put={"a": "three"})]) == [True]
    assert SqliteState(tmp_path / "online.db").texts("") == {"a": "three"}


def test_a_redis_that_evicts_is_refused() -> None:
    """An entity that was thrown out would look like one that nothing is known of."""
    with redis_server(("--maxmemory-policy", "allkeys-lru")) as url, pytest.raises(ValueError, match="noeviction"):
        open_store(url).apply([Step(expect={}, put={"a": "1"})])


def test_a_redis_that_is_gone_is_an_error_in_words() -> None:
    """It names the server."""
    with redis_server() as url:
        store = open_store(url)
        assert store.texts("") == {}
    with pytest.raises(StateUnreachableError, match=r"127\.0\.0\.1"):
        store.texts("")


def test_what_a_target_names(tmp_path: Path) -> None:
    """A URL is a Redis, all else a file; messages show no password; shops in one Redis have names of their own."""
    assert [is_url(one) for one in ("redis://a/0", "rediss://a", "unix:///a", tmp_path, "online.db")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert shown("redis://:secret@host:1/0#shop") == "redis://host:1/0#shop"
    assert shown(tmp_path) == str(tmp_path)
    assert Settings(home=tmp_path).online_state == str(tmp_path / "shops/demo/online.db")
    environ = {"CLICKTRAIL_ONLINE_URL": "redis://host/0", "CLICKTRAIL_SHOP": "paris"}
    assert load(environ).online_state == "redis://host/0#paris"
    assert load({**environ, "CLICKTRAIL_ONLINE_URL": "redis://host/0#all"}).online_state == "redis://host/0#all"
    assert "host" not in repr(load(environ))
