"""Online state in Redis: one server, many readers; several shops may share it.

Keys: `{clicktrail:<name>}:texts` is a hash, `{clicktrail:<name>}:<generation>:<entity>` the records of an entity. The
braces keep a shop's keys together in a cluster, where a script may touch only such. A step is one script, so it
happens whole, also when whoever asked for it is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urldefrag

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from clicktrail.state_store import Held, StateUnreachableError, Step

_STEP = """
local texts, at = KEYS[1], 1
local function count() at = at + 1; return tonumber(ARGV[at - 1]) end
local function take() at = at + 1; return ARGV[at - 1] end
local expected = count()
for _ = 1, expected do
  local name, is_there, text = take(), take(), take()
  local found = redis.call('HGET', texts, name)
  if (is_there == '1') ~= (found ~= false) or (found and found ~= text) then return 0 end
end
local put = count()
for _ = 1, put do
  local name, is_there, text = take(), take(), take()
  if is_there == '1' then redis.call('HSET', texts, name, text) else redis.call('HDEL', texts, name) end
end
local key = 1
local append = count()
for _ = 1, append do key = key + 1; redis.call('APPEND', KEYS[key], take()) end
for place = key + 1, #KEYS do
  local bytes = take()
  if bytes == '' then redis.call('UNLINK', KEYS[place]) else redis.call('SET', KEYS[place], bytes) end
end
return 1
"""
_AT_ONCE = 2_000


class RedisState:
    """State in the Redis at a URL; what follows # in it names the shop (none: `default`)."""

    piece = 0
    """See `StateStore`: an entity is one value, however often it was appended to."""

    def __init__(self, url: str) -> None:
        """`url` as `clicktrail.state_target.open_store` takes it; nothing is connected yet."""
        server, name = urldefrag(url)
        self._url = url
        self._shown = server.rpartition("@")[2]  # without a password
        self._client = redis.Redis.from_url(server, retry=Retry(ExponentialBackoff(cap=0.2, base=0.01), 3))
        self._prefix = f"{{clicktrail:{name or 'default'}}}:"
        self._texts = f"{self._prefix}texts"
        self._step = self._client.register_script(_STEP)
        self._keeps_all = False

    # ---- reading

    def texts(self, prefix: str) -> dict[str, str]:
        """See `StateStore`."""
        with self._asking():
            every = self._client.hgetall(self._texts)
        names = {name.decode(): text.decode() for name, text in every.items()}
        return {name[len(prefix) :]: text for name, text in names.items() if name.startswith(prefix)}

    def read(
        self, names: Sequence[str], wanted: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[list[str | None], list[Held]]:
        """See `StateStore`."""
        keys = [f"{self._prefix}{generation}:{entity}" for generation, entities in wanted for entity in entities]
        with self._asking(), self._client.pipeline(transaction=bool(keys)) as pipe:
            pipe.hmget(self._texts, list(names) or [""])  # HMGET wants one name at least
            if keys:
                pipe.mget(keys)
            answers = pipe.execute()
        texts = [None if text is None else text.decode() for text in answers[0][: len(names)]]
        values: list[bytes | None] = answers[1] if keys else []
        held, at = [], 0
        for _, entities in wanted:
            mine = values[at : at + len(entities)]
            at += len(entities)
            held.append(Held(pieces=[one for one in mine if one], sizes=[len(one) if one else 0 for one in mine]))
        return texts, held

    def sizes(self, generation: str, entities: Sequence[str]) -> list[int]:
        """See `StateStore`."""
        with self._asking(), self._client.pipeline(transaction=False) as pipe:
            for entity in entities:
                pipe.strlen(f"{self._prefix}{generation}:{entity}")
            return list(pipe.execute())

    def entities(self, generation: str) -> Iterator[str]:
        """See `StateStore`."""
        start = f"{self._prefix}{generation}:"
        for keys in self._keys(start):
            yield from (key[len(start.encode()) :].decode() for key in keys)

    def identity(self) -> object:
        """See `StateStore`: nothing can be told without asking."""
        return self._url

    # ---- writing

    def apply(self, steps: Sequence[Step]) -> list[bool]:
        """See `StateStore`.

        Raises:
            ValueError: this Redis may throw state away to make room.
        """
        with self._asking(), self._client.pipeline(transaction=False) as pipe:
            self._check()
            for step in steps:
                self._step(*self._arguments(step), client=pipe)
            return [bool(answer) for answer in pipe.execute()]

    def clear(self, generation: str) -> None:
        """See `StateStore`."""
        for keys in self._keys(f"{self._prefix}{generation}:"):
            with self._asking():
                self._client.unlink(*keys)

    # ---- inside

    def _arguments(self, step: Step) -> tuple[list[str], list[str | bytes | int]]:
        every = [*step.append, *step.replace]
        keys = [self._texts, *(f"{self._prefix}{step.generation}:{entity}" for entity, _ in every)]
        arguments: list[str | bytes | int] = []
        for texts in (step.expect, step.put):
            arguments.append(len(texts))
            for name, text in texts.items():
                arguments += (name, "0", "") if text is None else (name, "1", text)
        arguments.append(len(step.append))
        arguments += [chunk for _, chunk in every]
        return keys, arguments

    def _keys(self, start: str) -> Iterator[list[bytes]]:
        literal = "".join(f"\\{sign}" if sign in "*?[]^\\" else sign for sign in start)
        cursor = 0
        while True:
            with self._asking():
                cursor, keys = self._client.scan(cursor, match=f"{literal}*", count=_AT_ONCE)
            if keys:
                yield keys
            if cursor == 0:
                return

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            message = f"the Redis of the online state ({self._shown}) does not do it: {error}"
            raise StateUnreachableError(message) from error

    def _check(self) -> None:
        """An entity that Redis evicted would look like one of which nothing is known."""
        if self._keeps_all:
            return
        policy = self._client.info("memory").get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys"):
            message = (
                f"the Redis of the online state has maxmemory-policy {policy}, so it drops entities when it is full, "
                "and they would be read as unknown: set noeviction (or volatile-lru: state has no expiry)"
            )
            raise ValueError(message)
        self._keeps_all = True
