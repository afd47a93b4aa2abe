"""Where things lie and what time it is: the only module that reads environment variables.

CLICKTRAIL_HOME          folder of everything that a run produces (default: `var/` of the checkout, else ~/.clicktrail)
CLICKTRAIL_SHOP          whose data (default: demo); every shop has its own log, registry and online state
CLICKTRAIL_FEATURE_REPO  the Feast repo (default: `feature_repo/` of the checkout)
CLICKTRAIL_CLOCK         `wall` (default), `log` (the end of the event log: for replayed data), or an ISO 8601 time
CLICKTRAIL_ONLINE_URL    Redis of the online state, redis://host:port/db[#name] (default: a SQLite file of the shop);
                         shops that share it have names of their own, by default that of the shop
CLICKTRAIL_INTAKE_TOKEN  what a producer must send as its bearer token to the HTTP intake (default: none is asked for)
CLICKTRAIL_STREAM_URL    where the stream is: redis://host:port/db, or Kafka's bootstrap servers (default: this machine)
CLICKTRAIL_SIGNING_KEY   private Ed25519 key (PEM) that bundles are signed with at their build (default: not signed)
CLICKTRAIL_TRUSTED_KEYS  public key (PEM), or a folder of them: bundles must be signed by one (default: none is asked)
CLICKTRAIL_FRAUD_COSTS   JSON file of what acting on a payment costs (default: what the bundle says; serving/costs.py)
CLICKTRAIL_READ_LOG      share of the rows read online that is kept for `make parity`, 0 to 1 (default: 0, none)
CLICKTRAIL_DECISION_LOG  `on` (default), `off`, or the share of requests, 0 to 1, whose decisions services keep
CLICKTRAIL_DECISION_DAYS for how many days decisions are kept (default: 90)
CLICKTRAIL_LOG_LEVEL     what services write to stdout: `info` (default: a line a request), `warning` or `error`
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent

LOG_LEVELS = ("info", "warning", "error")
"""From the most that is told to the least."""

_SWITCH = {"on": "1", "off": "0"}
_NO_WORDS: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Absolute paths of one shop under one home."""

    home: Path
    shop: str = "demo"
    clock: str = "wall"
    online_url: str = field(default="", repr=False)  # may hold a password
    feature_repo: Path = _CHECKOUT / "feature_repo"
    read_log_share: float = 0.0
    decision_share: float = 1.0
    decision_days: int = 90
    log_level: str = "info"
    bentoml_home: Path = field(default_factory=lambda: Path.home() / "bentoml")
    intake_token: str = field(default="", repr=False)
    stream_url: str = field(default="", repr=False)  # may hold a password
    signing_key: Path | None = None
    trusted_keys: Path | None = None
    fraud_costs: Path | None = None

    @property
    def shop_home(self) -> Path:
        """What belongs to this shop's data alone."""
        return self.home / "shops" / self.shop

    @property
    def log(self) -> Path:
        """The event log."""
        return self.shop_home / "log"

    @property
    def catalogue(self) -> Path:
        """Side tables: `items.parquet`, `users.parquet`; either may be absent."""
        return self.shop_home / "catalogue"

    @property
    def item_history(self) -> Path:
        """Every version of every item, with when it became known (clicktrail.catalogue)."""
        return self.catalogue / "items_history.parquet"

    @property
    def quarantine(self) -> Path:
        """Rejected rows with reasons, one Parquet file per batch that had any."""
        return self.shop_home / "quarantine"

    @property
    def data_docs(self) -> Path:
        """Great Expectations' Data Docs."""
        return self.shop_home / "data_docs"

    @property
    def catalogue_page(self) -> Path:
        """The page of the features (clicktrail.feature_page)."""
        return self.shop_home / "catalogue_page"

    @property
    def registry(self) -> Path:
        """Feast's registry (clicktrail.registry)."""
        return self.shop_home / "registry.db"

    @property
    def online(self) -> Path:
        """The online store's state (SQLite)."""
        return self.shop_home / "online.db"

    @property
    def online_state(self) -> str:
        """Where the online state is: a Redis URL, or the path of the SQLite file."""
        return self.online_url or str(self.online)

    @property
    def training_sets(self) -> Path:
        """Training sets by task and digest."""
        return self.shop_home / "training_sets"

    @property
    def read_log(self) -> Path:
        """A sample of what was answered online (clicktrail.read_log)."""
        return self.shop_home / "read_log"

    @property
    def decisions(self) -> Path:
        """What services decided, and all that it rests on (clicktrail.decision_files)."""
        return self.shop_home / "decisions"

    @property
    def parity(self) -> Path:
        """What parity found, run by run (validation.parity)."""
        return self.shop_home / "parity"

    @property
    def forgotten(self) -> Path:
        """A report of each time that users were forgotten (clicktrail.forget)."""
        return self.shop_home / "forgotten"

    @property
    def runs(self) -> Path:
        """`<task>/<run_id>/`, and `<task>/latest`."""
        return self.home / "runs"


def load(environ: dict[str, str] | None = None) -> Settings:
    """Settings from environment variables.

    Raises:
        ValueError: CLICKTRAIL_SHOP is no plain name, or another variable is not what the list above says.
    """
    env = os.environ if environ is None else environ
    in_checkout = (_CHECKOUT / "pyproject.toml").is_file()
    default_home = _CHECKOUT / "var" if in_checkout else Path.home() / ".clicktrail"
    shop = env.get("CLICKTRAIL_SHOP") or "demo"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", shop):
        message = f"CLICKTRAIL_SHOP is {shop!r}: use letters, digits, '_' and '-' alone, since it names a folder"
        raise ValueError(message)
    url = env.get("CLICKTRAIL_ONLINE_URL") or ""
    return Settings(
        home=Path(env.get("CLICKTRAIL_HOME") or default_home).expanduser().resolve(),
        shop=shop,
        clock=env.get("CLICKTRAIL_CLOCK") or "wall",
        online_url=url if "#" in url or not url else f"{url}#{shop}",
        feature_repo=Path(env.get("CLICKTRAIL_FEATURE_REPO") or _CHECKOUT / "feature_repo").expanduser().resolve(),
        read_log_share=_share(env, "CLICKTRAIL_READ_LOG", "0", "the share of reads to keep, 0 to 1 (0.01)"),
        decision_share=_share(
            env, "CLICKTRAIL_DECISION_LOG", "on", "on, off, or the share of requests to keep, 0 to 1 (0.1)", _SWITCH
        ),
        decision_days=_days(env.get("CLICKTRAIL_DECISION_DAYS") or "90"),
        log_level=_level(env.get("CLICKTRAIL_LOG_LEVEL") or LOG_LEVELS[0]),
        bentoml_home=Path(env.get("BENTOML_HOME") or Path.home() / "bentoml").expanduser().resolve(),
        intake_token=env.get("CLICKTRAIL_INTAKE_TOKEN") or "",
        stream_url=env.get("CLICKTRAIL_STREAM_URL") or "",
        signing_key=_path(env.get("CLICKTRAIL_SIGNING_KEY")),
        trusted_keys=_path(env.get("CLICKTRAIL_TRUSTED_KEYS")),
        fraud_costs=_path(env.get("CLICKTRAIL_FRAUD_COSTS")),
    )


def _share(env: Mapping[str, str], name: str, default: str, wanted: str, words: Mapping[str, str] = _NO_WORDS) -> float:
    text = env.get(name) or default
    try:
        share = float(words.get(text, text))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        message = f"{name} is {text!r}: give {wanted}"
        raise ValueError(message)
    return share


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        message = f"CLICKTRAIL_DECISION_DAYS is {text!r}: give a number of days, 1 or more"
        raise ValueError(message)
    return int(text)


def _level(text: str) -> str:
    if text not in LOG_LEVELS:
        message = f"CLICKTRAIL_LOG_LEVEL is {text!r}: give {', '.join(LOG_LEVELS)}"
        raise ValueError(message)
    return text


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser().resolve() if text else None
