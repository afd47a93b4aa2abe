"""Open a Feast repo for one shop, wherever the caller stands: paths in its configuration become absolute."""

from __future__ import annotations

from typing import Any

import yaml
from feast import FeatureStore, RepoConfig

from clicktrail.settings import Settings


def repo_config(settings: Settings) -> RepoConfig:
    """The configuration of feature_repo/feature_store.yaml with this shop's paths."""
    return RepoConfig(**configuration(settings), repo_path=settings.feature_repo)


def configuration(settings: Settings) -> dict[str, Any]:
    """feature_store.yaml as data, with this shop's absolute paths in place of the demo shop's."""
    raw: dict[str, Any] = yaml.safe_load((settings.feature_repo / "feature_store.yaml").read_text())
    raw["registry"]["path"] = f"sqlite:///{settings.registry}"
    raw["offline_store"]["log_path"] = str(settings.log)
    raw["online_store"] |= {"path": str(settings.online), "clock": settings.clock}
    return raw


def open_store(settings: Settings) -> FeatureStore:
    """The feature store of this shop."""
    settings.shop_home.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=repo_config(settings))
