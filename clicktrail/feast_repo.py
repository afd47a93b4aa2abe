"""Open the Feast repo for one shop, wherever the caller stands: paths in its configuration become absolute.

`python -m clicktrail.feast_repo` writes that configuration to the shop's folder and prints its path, for
Feast's own command line: `feast -c feature_repo -f PATH apply`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clicktrail.publish import publish_bytes
from clicktrail.settings import Settings, load

if TYPE_CHECKING:  # importing Feast costs seconds, and writing the configuration does not need it
    from feast import FeatureStore


def configuration(settings: Settings) -> dict[str, Any]:
    """feature_store.yaml as data, with this shop's absolute paths in place of the demo shop's.

    Without the URL of the online state, which may hold a password: CLICKTRAIL_ONLINE_URL gives it.
    """
    raw: dict[str, Any] = yaml.safe_load((settings.feature_repo / "feature_store.yaml").read_text())
    if raw["registry"].get("registry_store_type"):  # a registry elsewhere (registry_type: sql) is where it says
        raw["registry"]["path"] = str(settings.registry)
    raw["offline_store"]["log_path"] = str(settings.log)
    raw["online_store"] |= {
        "path": str(settings.online),
        "clock": settings.clock,
        "catalogue": str(settings.catalogue / "items_history.parquet"),
        "read_log": str(settings.read_log),
        "read_log_share": settings.read_log_share,
    }
    return raw


def write_configuration(settings: Settings) -> Path:
    """Publish the shop's feature_store.yaml; returns its path."""
    path = settings.shop_home / "feature_store.yaml"
    publish_bytes(path, yaml.safe_dump(configuration(settings), sort_keys=False).encode(), "registry.configuration")
    return path


def open_store(settings: Settings) -> FeatureStore:
    """The feature store of this shop."""
    from feast import FeatureStore, RepoConfig

    settings.shop_home.mkdir(parents=True, exist_ok=True)
    raw = configuration(settings)
    raw["online_store"]["url"] = settings.online_url
    return FeatureStore(config=RepoConfig(**raw, repo_path=settings.feature_repo))


if __name__ == "__main__":
    print(write_configuration(load()))  # noqa: T201 - the command's answer
