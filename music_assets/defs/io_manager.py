"""The I/O manager: what an asset returns becomes a commit of its Delta table, what it takes is a snapshot of one."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import ibis.expr.types as ir

from music_assets.defs.metadata import table_metadata
from music_assets.engines.base import Engine
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore, TableVersion
from music_assets.storage.lineage import COVERED, coverage
from music_assets.storage.published_snapshot import INPUTS
from music_assets.tables import Table


class DeltaIOManager(dg.IOManager):
    """Reads and writes the tables that are computed from other tables.

    `engine` computes them; by `reader` they are described.
    """

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
        self._read: dict[tuple[str, str], dict[str, TableVersion]] = {}

    def load_input(self, context: dg.InputContext) -> ir.Table:
        """Return the rows of the newest snapshot of the table."""
        table = self.tables[context.asset_key]
        snapshot = self.store.table_version(table)
        self._read.setdefault(_step(context), {})[table.name] = snapshot
        return self.engine.read(table, snapshot.files)

    def handle_output(self, context: dg.OutputContext, obj: ir.Table) -> None:
        """Compute the rows, and make them the content of the table in one commit.

        Fails where another run has put rows there meanwhile that were computed from newer ones: those stay.
        """
        begun = time.monotonic()
        table = self.tables[context.asset_key]
        read = self._read.get(_step(context), {})
        inputs = {name: snapshot.version for name, snapshot in read.items()}
        folder = self.store.new_folder(table)
        try:
            files = self.engine.write(obj, table, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            replaced = self._replaceable(table, inputs)
            self.store.replace(table, files, {INPUTS: inputs, COVERED: coverage(read)}, replaced)
        except ConcurrentCommitError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise dg.Failure(f"{error}. Nothing was changed; run again if no other run is at work.") from None
        self.store.vacuum(table, self.retention_hours)
        snapshot = self.store.table_version(table)
        # A step that writes two tables writes two that belong together: the second names the first.
        self._read[_step(context)] = {**read, table.name: snapshot}
        metadata = table_metadata(table, snapshot, time.monotonic() - begun)
        describe = self.descriptions.get(table)
        own = describe(self.reader.read(table, snapshot.files)) if describe else {}
        context.add_output_metadata({**metadata, **own, "computed from": inputs})

    def _replaceable(self, table: Table, inputs: Mapping[str, int]) -> int:
        """Return the version of the table that rows computed from these inputs may replace.

        Raises ConcurrentCommitError where it was computed from newer ones. They count only while they are there: a
        person may have begun an input anew.
        """
        version = self.store.table_version(table).version
        known = self.store.commit_metadata(table, INPUTS, since=version - 1) if version >= 0 else []
        newest = {
            each.name: self.store.table_version(each).version for each in self.tables.values() if each.name in inputs
        }
        for name, used in (known[0] if known else {}).items():
            if inputs.get(name, used) < used <= newest[name]:
                raise ConcurrentCommitError(f"{table.full_name}: another run has computed it from newer {name}")
        return version


def _step(context: dg.InputContext | dg.OutputContext) -> tuple[str, str]:
    return context.run_id if isinstance(context, dg.OutputContext) else context.step_context.run_id, context.op_def.name
