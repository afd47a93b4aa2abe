"""Feast's registry in one file: an apply is written whole or not at all, several at once lose nothing.

Feast takes no registry of one's own, but a place to keep it: `registry_store_type` in feature_store.yaml. Feast reads
the whole registry, changes it in memory and hands it back at the end of an apply. Here that is one step under a file
lock: what was changed since it was read is done to what others have left there by then.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig, RepoConfig
from google.protobuf.message import DecodeError

from clicktrail.declarations import Declaration
from clicktrail.naming import changed
from clicktrail.publish import publish_bytes
from clicktrail.registry_merge import merge
from clicktrail.request_views import REQUEST_TAG

STORE_TYPE = "clicktrail.registry.EventLogRegistryStore"

_MAGIC = b"clicktrail registry 1\n"
_DIGEST = hashlib.sha256().digest_size


class TornRegistryError(ValueError):
    """The file is there and is no whole registry; it is not read as an empty one."""


class EventLogRegistryStore(RegistryStore):
    """Where Feast's `Registry` keeps itself; `registry_store_type: clicktrail.registry.EventLogRegistryStore`.

    The file holds a line that names its form, the sha256 of the rest, and the registry as Feast writes it.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path | None) -> None:
        """`registry_config.path` is the file, relative to the repo; it is made by who opens it first.

        Raises:
            ValueError: the path is a database's URL.
        """
        if "://" in registry_config.path:
            message = f"registry path {registry_config.path!r} is a URL: name a file, or set registry_type: sql instead"
            raise ValueError(message)
        self.path = Path(repo_path or ".", registry_config.path)
        self._base = RegistryProto()  # as it was when it was read: what differs from it is our change
        self._was_here = False
        self._notes: dict[tuple[str, str], str] = {}

    def get_registry_proto(self) -> RegistryProto:
        """The registry as it is now.

        Raises:
            FileNotFoundError: there is none; Feast then makes one.
            TornRegistryError: the file is no whole registry.
        """
        found = self._read()
        if found is None:
            message = f"there is no registry at {self.path} yet: run `make features` (feast apply)"
            raise FileNotFoundError(message)
        self._base.CopyFrom(found)
        self._was_here = True
        return found

    def update_registry_proto(self, registry_proto: RegistryProto) -> None:
        """Write the changes since it was read, all or none; `registry_proto` becomes what the registry now is.

        Raises:
            ValueError: a view is published with another declaration. `registry_proto` is as it was read.
            TornRegistryError: the file is no whole registry, or was removed since it was read.
        """
        with self._writing():
            found = self._read()
            if found is None and self._was_here:
                message = f"registry {self.path} was removed after it was read: open the feature store again"
                raise TornRegistryError(message)
            there = found or RegistryProto()
            merged = merge(self._base, registry_proto, there)
            refused = _changed_in_place(there, merged)
            if refused:
                registry_proto.CopyFrom(self._base)
                raise ValueError("; ".join(changed(view) for view in refused))
            if found is None or merged != there:
                merged.version_id = str(uuid.uuid4())
                merged.last_updated.FromDatetime(datetime.now(UTC))
                publish_bytes(self.path, _packed(merged), "registry")
        self._was_here = True
        self._base.CopyFrom(merged)
        registry_proto.CopyFrom(merged)

    def teardown(self) -> None:
        """`feast teardown`: remove the file."""
        self.path.unlink(missing_ok=True)
        self._base = RegistryProto()
        self._was_here = False

    def set_project_metadata(self, project: str, key: str, value: str) -> None:
        """What Feast's user interface remembers of its visitors: for this process alone."""
        self._notes[project, key] = value

    def get_project_metadata(self, project: str, key: str) -> str | None:
        """What `set_project_metadata` was given."""
        return self._notes.get((project, key))

    def _read(self) -> RegistryProto | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return _unpacked(content, self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time: the next one waits here. Readers need not, since the file is replaced whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def check_published(config: RepoConfig, declarations: Iterable[Declaration]) -> None:
    """Nothing happens where these views are new to the registry, or as it has them.

    Raises:
        ValueError: a view is published with another declaration.
        TornRegistryError: the registry's file is no whole registry.
    """
    published = {name: declared for (project, name), declared in _views(_registry(config)) if project == config.project}
    refused = [one.name for one in declarations if published.get(one.name, one.fingerprint) != one.fingerprint]
    if refused:
        raise ValueError("; ".join(changed(view) for view in refused))


def _registry(config: RepoConfig) -> RegistryProto:
    """Whatever registry the configuration names, as it is now."""
    if config.registry.registry_store_type == STORE_TYPE:
        try:
            return EventLogRegistryStore(config.registry, config.repo_path).get_registry_proto()
        except FileNotFoundError:
            return RegistryProto()
    from feast import FeatureStore

    return FeatureStore(config=config).registry.proto()


def _changed_in_place(before: RegistryProto, after: RegistryProto) -> list[str]:
    """Published views that are in both, with different declarations; one that lost its declaration counts."""
    now = dict(_views(after))
    return [key[1] for key, declared in _views(before) if declared and now.get(key, declared) != declared]


def _views(registry: RegistryProto) -> Iterator[tuple[tuple[str, str], str]]:
    """(project, name) of each view and what decides its values; "" where it is not one of ours."""
    for view in registry.feature_views:
        yield (view.spec.project, view.spec.name), _fingerprint(view.spec.batch_source)
    for view in registry.on_demand_feature_views:
        yield (view.spec.project, view.spec.name), view.spec.tags.get(REQUEST_TAG, "")


def _fingerprint(source: Any) -> str:  # noqa: ANN401 - a protobuf message
    if source.data_source_class_type != "clicktrail.data_source.EventLogSource":
        return ""
    return str(json.loads(source.custom_options.configuration)["fingerprint"])


def _packed(registry: RegistryProto) -> bytes:
    content = registry.SerializeToString()
    return _MAGIC + hashlib.sha256(content).digest() + content


def _unpacked(content: bytes, path: Path) -> RegistryProto:
    head = len(_MAGIC) + _DIGEST
    digest, rest = content[len(_MAGIC) : head], content[head:]
    if not content:
        problem = "is empty (0 bytes)"
    elif content.startswith(b"SQLite format 3"):
        problem = "is a SQLite database, as registries of earlier versions were"
    elif not content.startswith(_MAGIC):
        problem = f"is no registry: it begins with {content[:16]!r}"
    elif hashlib.sha256(rest).digest() != digest:
        problem = f"is torn: its {len(content)} bytes are not those that were written"
    else:
        registry = RegistryProto()
        try:
            registry.ParseFromString(rest)
        except DecodeError as error:
            problem = f"was written by another version of Feast ({error})"
        else:
            return registry
    message = (
        f"registry {path} {problem}. It is not taken for an empty one: bring it back from a backup, or "
        "remove it and run `make features` (feast apply), which registers the feature repo anew"
    )
    raise TornRegistryError(message)
