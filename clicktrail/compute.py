"""EventLogComputeEngine: `feast materialize` on an event-log view brings its state up to the log."""

from __future__ import annotations

import time
from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

from clicktrail import backfills
from clicktrail.data_source import declaration_of
from clicktrail.offline_store import open_log


class EventLogComputeEngineConfig(LocalComputeEngineConfig):
    """Configuration in feature_store.yaml."""

    type: Literal["clicktrail.compute.EventLogComputeEngine"] = "clicktrail.compute.EventLogComputeEngine"


class EventLogComputeEngine(LocalComputeEngine):
    """Feast's local engine, but for event-log views: their state follows the log instead of copied values."""

    def _materialize_one(
        self,
        registry: BaseRegistry,
        task: MaterializationTask,
        **kwargs: Any,  # noqa: ANN401 - Feast's signature
    ) -> LocalMaterializationJob:
        declaration = declaration_of(task.feature_view)
        if declaration is None:
            return super()._materialize_one(registry, task, **kwargs)
        log, _ = open_log(self.repo_config)
        job_id = f"{task.feature_view.name}-{log.version}"
        try:
            here = self.online_store.applied(self.repo_config, task.feature_view)
            began, processor = time.monotonic(), time.process_time()
            with task.tqdm_builder(max(log.version - here, 0)) as bar:
                self.online_store.catch_up(self.repo_config, task.feature_view, log, bar.update)
        except (OSError, ValueError) as error:
            return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.ERROR, error=error)
        if here == 0 and log.version:
            known = backfills.record(
                backfills.folder_of(log.path),
                declaration.fingerprint,
                processor_seconds=time.process_time() - processor,
                seconds=time.monotonic() - began,
            )
            if known is not None:
                print(known)  # noqa: T201 - who asked for a plan is told how it came out
        return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)
