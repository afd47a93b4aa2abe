"""What a rollout of a task is meant to be: one file, published whole, that a running front follows.

`CLICKTRAIL_HOME/rollouts/<task>.json` names the champion, those before it, a canary with its share, a
shadow, the guard's limits and what happened. Commands and the guard change it under a lock, each from
what the file says at that moment; the changes themselves are pure functions.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from clicktrail.publish import publish_bytes

FORMAT = 1
LARGEST_SHARE = 90.0
"""Per cent of users: the guard needs requests of the champion's to compare with. Beyond it, promote."""

UNDONE = ("rolled back", "canary taken out", "shadow taken out")
"""What an entry says where a bundle lost its role."""

_PAST = 20
_HISTORY = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse than the champion a canary may be before it is taken out."""

    window_s: float = 60.0
    """Seconds of requests that are looked at."""
    min_requests: int = 50
    """Requests in the window before anything is said."""
    error_rate: float = 0.02
    """Share of requests answered with an error or not at all, above the champion's."""
    p99_factor: float = 2.0
    """Times the champion's p99 that the canary's may be, and ..."""
    p99_slack_ms: float = 20.0
    """... milliseconds on top of that."""
    cold_start_share: float = 0.1
    """Share of answers that knew nothing, above the champion's."""
    score_drift: float = 0.5
    """Difference of the mean scores, in standard deviations of the champion's scores."""

    def __post_init__(self) -> None:
        """Raises ValueError where a limit is no positive number."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                message = f"the guard's limit {one.name} is {value!r}: give a number above 0"
                raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A bundle that answers for a share of the users, in per cent."""

    tag: str
    share: float

    def __post_init__(self) -> None:
        """Raises ValueError where the share is out of range."""
        if not 0 < self.share <= LARGEST_SHARE:
            message = (
                f"a canary's share is {self.share:g} %: give more than 0 and at most {LARGEST_SHARE:g}, "
                "since it is compared with the champion; to give a bundle everything, promote it"
            )
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something that happened to a bundle, when (ISO 8601, UTC) and why."""

    at: str
    what: str
    tag: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One task's rollout. `previous` are earlier champions, the last one last; every change is a `revision`."""

    task: str
    champion: str
    since: str
    revision: int = 1
    previous: tuple[str, ...] = ()
    canary: Canary | None = None
    shadow: str | None = None
    limits: Limits = field(default_factory=Limits)
    history: tuple[Entry, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """Tag by role, for the roles that are taken."""
        canary = self.canary.tag if self.canary else None
        every = {"champion": self.champion, "canary": canary, "shadow": self.shadow}
        return {role: tag for role, tag in every.items() if tag is not None}


Step = Callable[[Rollout], Rollout]


# ---- changes


def begun(task: str, tag: str, now: str) -> Rollout:
    """A rollout whose champion is `tag`, and nothing else."""
    return Rollout(task=task, champion=tag, since=now, history=(Entry(at=now, what="begun", tag=tag),))


def promoted(rollout: Rollout, tag: str, now: str) -> Rollout:
    """`tag` is the champion. A canary ends with it, since what it was compared with has gone."""
    if tag == rollout.champion:
        message = f"{tag} is the champion already"
        raise ValueError(message)
    return _changed(
        rollout,
        Entry(at=now, what="promoted", tag=tag),
        champion=tag,
        since=now,
        previous=(*rollout.previous, rollout.champion)[-_PAST:],
        canary=None,
        shadow=None if rollout.shadow == tag else rollout.shadow,
    )


def rolled_back(rollout: Rollout, now: str, why: str = "") -> Rollout:
    """The champion before is the champion again; a canary ends."""
    if not rollout.previous:
        message = f"{rollout.task} has no champion before {rollout.champion}: promote a bundle instead"
        raise ValueError(message)
    tag = rollout.previous[-1]
    return _changed(
        rollout,
        Entry(at=now, what="rolled back", tag=rollout.champion, why=why),
        champion=tag,
        since=now,
        previous=rollout.previous[:-1],
        canary=None,
        shadow=None if rollout.shadow == tag else rollout.shadow,
    )


def with_canary(rollout: Rollout, canary: Canary | None, now: str) -> Rollout:
    """`canary` answers for its share of users; None ends the one that is there."""
    if canary is not None:
        _not_champion(rollout, canary.tag, "canary")
        entry = Entry(at=now, what="canary", tag=canary.tag, why=f"{canary.share:g} % of users")
    elif rollout.canary is not None:
        entry = Entry(at=now, what="canary off", tag=rollout.canary.tag)
    else:
        return rollout
    return _changed(rollout, entry, canary=canary)


def with_shadow(rollout: Rollout, tag: str | None, now: str) -> Rollout:
    """`tag` gets a copy of what the champion answers; None ends that."""
    if tag is not None:
        _not_champion(rollout, tag, "shadow")
        entry = Entry(at=now, what="shadow", tag=tag)
    elif rollout.shadow is not None:
        entry = Entry(at=now, what="shadow off", tag=rollout.shadow)
    else:
        return rollout
    return _changed(rollout, entry, shadow=tag)


def with_limits(rollout: Rollout, limits: Limits, now: str) -> Rollout:
    """The guard judges by other limits."""
    return _changed(rollout, Entry(at=now, what="limits", tag=rollout.champion), limits=limits)


def taken_out(rollout: Rollout, role: str, tag: str, why: str, now: str) -> Rollout:
    """`tag` loses its role, and the history says why; nothing changes where it has lost it already.

    A champion makes room for the one before. Where there is none it stays: somebody has to answer.
    """
    if rollout.roles.get(role) != tag:
        return rollout
    if role == "champion":
        return rolled_back(rollout, now, why) if rollout.previous else rollout
    change: dict[str, Any] = {role: None}
    return _changed(rollout, Entry(at=now, what=f"{role} taken out", tag=tag, why=why), **change)


def _not_champion(rollout: Rollout, tag: str, role: str) -> None:
    if tag == rollout.champion:
        message = f"{tag} is the champion: a {role} has to be another bundle"
        raise ValueError(message)


def _changed(rollout: Rollout, entry: Entry, **parts: Any) -> Rollout:  # noqa: ANN401 - fields of a rollout
    history = (*rollout.history, entry)[-_HISTORY:]
    return replace(rollout, revision=rollout.revision + 1, history=history, **parts)


# ---- the file


def file_of(home: Path, task: str) -> Path:
    """Where the rollout of a task is written down."""
    return home / "rollouts" / f"{task}.json"


def read(file: Path) -> Rollout:
    """What the file says.

    Raises:
        FileNotFoundError: no rollout was begun.
        ValueError: it is no rollout.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _of_format(content.pop("format"))
        return Rollout(
            **{
                **content,
                "previous": tuple(content["previous"]),
                "canary": Canary(**content["canary"]) if content["canary"] else None,
                "limits": Limits(**content["limits"]),
                "history": tuple(Entry(**entry) for entry in content["history"]),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{file} is no rollout ({error}): mend it, or move it away and begin anew"
        raise ValueError(message) from error


def _of_format(found: object) -> None:
    if found != FORMAT:
        message = f"format {found}, not {FORMAT}"
        raise ValueError(message)


def begin(file: Path, rollout: Rollout) -> Rollout:
    """Write a first rollout down; where somebody was quicker, theirs stands."""
    with _lock(file):
        if not file.exists():
            _write(file, rollout)
        return read(file)


def change(file: Path, step: Step) -> Rollout:
    """Take one step from what the file says now, and publish it; returns what it says then."""
    with _lock(file):
        before = read(file)
        after = step(before)
        if after != before:
            _write(file, after)
        return after


def _write(file: Path, rollout: Rollout) -> None:
    content = {"format": FORMAT, **asdict(rollout)}
    publish_bytes(file, (json.dumps(content, indent=2) + "\n").encode(), "rollout")


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
