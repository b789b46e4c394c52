"""The I/O manager of the computed tables: an asset's output becomes a commit, its inputs are table versions."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import ibis.expr.types as ir

from music_assets.data_root import one_look
from music_assets.defs.metadata import table_metadata
from music_assets.engines.base import Engine
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore, TableVersion
from music_assets.storage.lineage import INPUTS, UNRANKED, inputs_of
from music_assets.tables import Table
from music_assets.transforms.rankings import Numbered

IN_MEMORY = "in memory"
"""Metadata of an input that takes what an asset of this run has returned, where the table still has that content."""


class DeltaIOManager(dg.IOManager):
    """Reads and writes Delta tables. `engine` computes the rows; `reader` reads the result for the metadata."""

    def __init__(
        self,
        store: DeltaStore,
        engine: Engine,
        reader: Engine,
        tables: Sequence[Table],
        descriptions: Mapping[Table, Callable[[ir.Table], dict[str, Any]]],
        retention_hours: float,
    ) -> None:
        self.store = store
        self.engine = engine
        self.reader = reader
        self.tables = {dg.AssetKey(table.asset_key): table for table in tables}
        self.descriptions = descriptions
        self.retention_hours = retention_hours
        self._inputs: dict[tuple[str, str], dict[str, TableVersion]] = {}
        self._written: dict[tuple[str, str], tuple[TableVersion, Numbered]] = {}

    @one_look()
    def load_input(self, context: dg.InputContext) -> ir.Table | Numbered:
        """Return the rows of the newest version of the table."""
        table = self.tables[context.asset_key]
        version = self.store.table_version(table)
        self._inputs.setdefault(_step(context), {})[table.name] = version
        run_id, _ = _step(context)
        written, rows = self._written.get((run_id, table.name), (None, None))
        if rows and written == version and IN_MEMORY in context.definition_metadata:
            return rows
        return self.engine.read(table, version.files)

    @one_look()
    def handle_output(self, context: dg.OutputContext, obj: ir.Table | Numbered) -> None:
        """Compute the rows and replace the content of the table by them in one commit.

        Raises Failure if another run has meanwhile committed rows that were computed from newer inputs.
        """
        started = time.monotonic()
        table = self.tables[context.asset_key]
        read = self._inputs.get(_step(context), {})
        counted = context.output_metadata.get(UNRANKED)
        recorded = {UNRANKED: counted.value} if counted else {}
        self._replace(table, obj.named() if isinstance(obj, Numbered) else obj, read, recorded)
        self.store.vacuum(table, self.retention_hours)
        version = self.store.table_version(table)
        # The second table that a step writes belongs to the first, and names it as an input.
        self._inputs[_step(context)] = {**read, table.name: version}
        if isinstance(obj, Numbered):
            self._written = {(context.run_id, table.name): (version, obj)}
        metadata = table_metadata(table, version, time.monotonic() - started)
        describe = self.descriptions.get(table)
        own = describe(self.reader.read(table, version.files)) if describe else {}
        context.add_output_metadata({**metadata, **own, "computed from": inputs_of(read)[INPUTS]})

    def _replace(
        self, table: Table, rows: ir.Table, read: Mapping[str, TableVersion], recorded: Mapping[str, Any]
    ) -> None:
        folder = self.store.new_folder(table)
        try:
            files = self.engine.write(rows, table, folder)
            metadata = {**inputs_of(read), **recorded}
            self.store.replace(table, files, metadata, self._replaceable_version(table, read))
        except ConcurrentCommitError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise dg.Failure(f"{error}. Nothing was changed. Run again once no other run is in progress.") from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _replaceable_version(self, table: Table, read: Mapping[str, TableVersion]) -> int:
        """Return the version of the table that rows computed from these inputs may replace.

        Raises ConcurrentCommitError if it was computed from newer inputs that still exist. (They do not if someone
        deleted and recreated an input.)
        """
        version = self.store.table_version(table).version
        recorded = self.store.commit_metadata(table, INPUTS, since=version - 1) if version >= 0 else []
        newest = {
            each.name: self.store.table_version(each).version for each in self.tables.values() if each.name in read
        }
        for name, used in (recorded[0] if recorded else {}).items():
            if name in read and read[name].version < used <= newest[name]:
                raise ConcurrentCommitError(f"{table.full_name}: another run has computed it from newer {name}")
        return version


def _step(context: dg.InputContext | dg.OutputContext) -> tuple[str, str]:
    return context.run_id if isinstance(context, dg.OutputContext) else context.step_context.run_id, context.op_def.name
