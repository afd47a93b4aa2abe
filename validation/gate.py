"""The gate: Great Expectations over what the row rules let through, and its Data Docs.

SQL routed the bad rows away before (GX takes a minute where a third of the rows is bad), so GX states that what is
left keeps the contract, and documents it. Batches come in slices, since each costs GX a second of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from clicktrail.contract import EVENT_COLUMNS, Column
from clicktrail.publish import failpoint, sweep_killed
from validation.batch import Stop, Thresholds
from validation.suites import batch_expectations, contract_expectations, contract_frame

SLICE_ROWS = 500_000
"""Rows that GX sees at once: bounds its memory (about 0.7 GB) and spreads its fixed cost."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An expectation that did not hold: which, of which column, how often, three examples."""

    expectation: str
    column: str
    count: int
    examples: tuple[str, ...]

    def stop(self) -> Stop:
        """As a reason to stop a batch."""
        return Stop(
            rule="gate",
            subject=self.column,
            reason=f"{self.expectation} failed {self.count} times, for example {', '.join(self.examples) or '-'}",
            remedy="row rules and expectations disagree: open the Data Docs and report it as a defect",
        )


class Gate:
    """One intake's validations. Data Docs of all of them are written once, by `write_docs`."""

    def __init__(self, docs: Path, limits: Thresholds) -> None:
        """`docs` is the folder of the Data Docs."""
        self.docs = docs
        self.limits = limits
        self._context: Any = None
        self._definitions: dict[str, Any] = {}
        self._runs = 0
        self._import: threading.Thread | None = None

    def warm_up(self) -> None:
        """Import GX (8 s) on the side while files are read; call it once there is something to check."""
        if self._import is None:
            self._import = threading.Thread(target=importlib.import_module, args=["great_expectations"], daemon=True)
            os.environ["GX_ANALYTICS_ENABLED"] = "false"
            self._import.start()

    def check(self, name: str, table: pa.Table, columns: tuple[Column, ...] = EVENT_COLUMNS) -> list[Failed]:
        """Hold a contract table to its suite.

        Args:
            name: of the suite: events, items or users.
            table: contract columns of `columns`.
            columns: the contract.
        """
        failed = []
        for start in range(0, table.num_rows, SLICE_ROWS):
            frame = contract_frame(table.slice(start, SLICE_ROWS), columns)
            failed += self._run(name, frame, lambda: contract_expectations(columns))
        return failed

    def check_batches(self, facts: pd.DataFrame) -> list[Failed]:
        """Hold the facts of files (one a row, columns `BATCH_FACTS`) to the thresholds."""
        return self._run("batches", facts, lambda: batch_expectations(self.limits))

    def write_docs(self) -> None:
        """Write the Data Docs of this intake in the place of the last one's."""
        sweep_killed(self.docs)
        if self._context is None:
            return
        self._context.build_data_docs()
        fresh, old = self._aside(), self.docs.with_name(f".{self.docs.name}.old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        if self.docs.exists():
            self.docs.rename(old)
        failpoint("data_docs.between")  # killed here there are no docs until the next intake: they are derived
        fresh.rename(self.docs)
        shutil.rmtree(old, ignore_errors=True)

    def _aside(self) -> Path:
        return self.docs.with_name(f".{self.docs.name}.{os.getpid()}.tmp")

    def _run(self, name: str, frame: pd.DataFrame, expectations: Any) -> list[Failed]:  # noqa: ANN401 - a factory
        gx = self._start()
        if name not in self._definitions:
            suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations()))
            asset = self._context.data_sources.get("clicktrail").add_dataframe_asset(name)
            data = asset.add_batch_definition_whole_dataframe("whole")
            self._definitions[name] = self._context.validation_definitions.add(
                gx.ValidationDefinition(name=name, data=data, suite=suite)
            )
        self._runs += 1
        result = self._definitions[name].run(
            batch_parameters={"dataframe": frame},
            result_format="BASIC",
            run_id=gx.RunIdentifier(run_name=f"{self._runs:04d}-{name}"),
        )
        return [_failed(one) for one in result.results if not one.success]

    def _start(self) -> Any:  # noqa: ANN401 - GX is untyped here
        self.warm_up()
        if self._import is not None:
            self._import.join()
        import great_expectations as gx

        if self._context is None:
            logging.getLogger("great_expectations").setLevel(logging.ERROR)
            fresh = self._aside()
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            self._context = gx.get_context(mode="ephemeral")
            self._context.variables.progress_bars = {"globally": False}
            for site in list(self._context.variables.data_docs_sites or {}):
                self._context.delete_data_docs_site(site)
            self._context.add_data_docs_site(
                site_name="data_docs",
                site_config={
                    "class_name": "SiteBuilder",
                    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                    "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(fresh)},
                },
            )
            self._context.data_sources.add_pandas("clicktrail")
        return gx


def _failed(result: Any) -> Failed:  # noqa: ANN401 - GX's result
    config, found = result.expectation_config, result.result or {}
    error = (result.exception_info or {}).get("exception_message") if not found else None
    return Failed(
        expectation=config.type,
        column=str(config.kwargs.get("column", "table")),
        count=int(found.get("unexpected_count") or 0),
        examples=tuple(str(one) for one in found.get("partial_unexpected_list", ())[:3]) or ((error,) if error else ()),
    )
