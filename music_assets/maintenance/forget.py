"""Erases users from tables, older versions, snapshots, vectors, rejected rows and files, and statistics in the logs."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from music_assets.data_root import DataRoot, LockHeldError, exclusive_lock
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.object_landing import open_landing
from music_assets.maintenance.rebuild import RebuildError, Report, check_idle, recompute, run_history
from music_assets.maintenance.redaction import UnsearchableError, count, number_pattern, redact
from music_assets.maintenance.retract import author
from music_assets.settings import Settings
from music_assets.storage.deletion import delete_rows, erase_statistics
from music_assets.storage.delta import DeltaStore
from music_assets.storage.integrity import refuse_damaged
from music_assets.storage.lineage import INPUTS
from music_assets.storage.published_snapshot import pointer_files, referenced_files
from music_assets.storage.publisher import remove_older_snapshots
from music_assets.tables import (
    ARTIST_EMBEDDING,
    RANKING_TABLES,
    RAW_TABLES,
    REJECTED_ROWS,
    TABLES,
    TRAIN_EMBEDDINGS,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
)


class ForgetError(Exception):
    """The users are not erased, or not everywhere. The message says what to do."""


def forget(settings: Settings, user_ids: Sequence[int], report: Report) -> None:
    """Erase the users, and report what was removed from where. An erasure that was interrupted is repeated.

    Nothing that is written, neither log nor report, contains the user ids. Raises ForgetError if a run is in progress,
    if the result cannot be published, or if a rejected file cannot be searched; LayoutError; and DamagedTableError if a
    table is damaged.
    """
    root = DataRoot.of(settings)
    root.check_exists()
    store = DeltaStore(root)
    with _exclusive(root), run_history(root) as instance:
        _check(store, instance)
        erasure = Erasure(settings, store, tuple(user_ids), report)
        erasure.delete_from_tables()
        erasure.delete_from_embeddings()
        unsearchable = erasure.redact_rejected_files()
        erasure.delete_leftovers()
        erasure.publish(instance)
        erasure.delete_older_versions()
        erasure.name_waiting_files()
    if unsearchable:
        raise ForgetError(f"{'; '.join(unsearchable)}. Delete what may contain rows of the users. All else is erased.")
    report(f"Done. Backups are not searched. Run the job {TRAIN_EMBEDDINGS} to train vectors without the users' plays.")


@contextmanager
def _exclusive(root: DataRoot) -> Iterator[None]:
    """Keep other processes from loading files and from training."""
    try:
        with exclusive_lock(root.ingest_lock), exclusive_lock(root.training_lock):
            yield
    except LockHeldError:
        raise ForgetError("Another process is loading files, removing rows or training. Wait until it ends.") from None


def _check(store: DeltaStore, instance: dg.DagsterInstance) -> None:
    try:
        check_idle(instance)
    except RebuildError as error:
        raise ForgetError(str(error)) from None
    refuse_damaged(store, TABLES)


@dataclass(frozen=True)
class Erasure:
    """The steps of an erasure, each of which may be repeated."""

    settings: Settings
    store: DeltaStore
    user_ids: Sequence[int]
    report: Report

    def delete_from_tables(self) -> None:
        """Delete the users' rows from the raw tables, and the rejected rows that contain a user id."""
        for table in RAW_TABLES:
            self._report_rows(table.full_name, delete_rows(self.store, table, self._is_user, self._record))
        matching = pc.match_substring_regex(pc.field("raw_line"), number_pattern(self.user_ids))
        self._report_rows(REJECTED_ROWS.full_name, delete_rows(self.store, REJECTED_ROWS, matching, self._record))

    def delete_from_embeddings(self) -> None:
        """Delete the users' vectors, and those of artists whom no other user has.

        The vectors of users name the version of the vectors of artists that they are published with.
        """
        inputs = self.store.latest_commit_metadata(ARTIST_EMBEDDING, INPUTS)
        unlisted = pc.field("artist_name").isin(self._unlisted_artists())
        removed = delete_rows(self.store, ARTIST_EMBEDDING, unlisted, self._record, metadata={INPUTS: inputs})
        self._report_rows(ARTIST_EMBEDDING.full_name, removed)
        inputs = self.store.latest_commit_metadata(USER_EMBEDDING, INPUTS)
        if inputs is None:
            return
        artists = self.store.table_version(ARTIST_EMBEDDING).version
        paired = {INPUTS: {**inputs, ARTIST_EMBEDDING.name: artists}}
        removed = delete_rows(self.store, USER_EMBEDDING, self._is_user, self._record, metadata=paired)
        if not removed and inputs.get(ARTIST_EMBEDDING.name) != artists:
            self.store.append(USER_EMBEDDING, [], {}, paired)
        self._report_rows(USER_EMBEDDING.full_name, removed)

    def redact_rejected_files(self) -> list[str]:
        """Remove the rows with a user id from the files in `rejected/`; return which files cannot be searched."""
        unsearchable = []
        root = self.store.root
        root.refresh(root.rejected)
        for path in sorted(filter(Path.is_file, root.rejected.glob("*"))):
            try:
                if removed := redact(path, self.user_ids):
                    root.upload([path])
                    self.report(f"{root.address(path)}: {removed:,} lines removed")
            except UnsearchableError as error:
                unsearchable.append(str(error))
        return unsearchable

    def delete_leftovers(self) -> None:
        """Delete damaged tables that `rebuild` moved away, and what a training that was killed left."""
        root = self.store.root
        if damaged := root.files_below(root.damaged):
            root.remove(damaged)
            self.report(f"{root.address(root.damaged)}: deleted")
        for folder in (root.damaged, root.training, root.staging):
            if folder.exists():
                shutil.rmtree(folder)
                self.report(f"{folder}: deleted")

    def publish(self, instance: dg.DagsterInstance) -> None:
        """Compute and publish the rankings without the users, unless nothing was computed or published yet."""
        computed = any(self.store.table_version(table).version >= 0 for table in RANKING_TABLES)
        if not computed and not pointer_files(self.store.root):
            return
        try:
            recompute(self.settings, instance, self.report)
        except RebuildError as error:
            raise ForgetError(f"{error}. The rows are deleted, but older versions remain. Fix it and repeat.") from None

    def delete_older_versions(self) -> None:
        """Delete older snapshots, parquet files of older versions, their statistics in the logs, and all copies."""
        root = self.store.root
        with exclusive_lock(root.publish_lock, wait=True):
            for path in remove_older_snapshots(root):
                self.report(f"{root.address(path)}: deleted")
            for table in TABLES:
                removed = self.store.vacuum(table, 0, referenced_files(root))
                if removed:
                    self.report(f"{table.full_name}: {len(removed):,} files of older versions deleted")
                erase_statistics(self.store, table)
            for folder in (*map(root.table_folder, TABLES), root.snapshots):
                root.discard_copies(folder)

    def name_waiting_files(self) -> None:
        """Report which waiting files would bring the users back."""
        landing = open_landing(self.store.root)
        for file in (file for table in landing.tables for file in landing.files(table)):
            try:
                file.stage()
                found = count(file.path, self.user_ids)
            except (UnsearchableError, OSError):
                found = -1
            file.unstage()
            if found:
                self.report(
                    f"{file.address}: waits, and may contain rows of the users. Delete them before it is loaded."
                )

    @property
    def _is_user(self) -> pc.Expression:
        return pc.field("user_id").isin(pa.array(self.user_ids, pa.int32()))

    @property
    def _record(self) -> dict[str, object]:
        return {**author(), "users": len(self.user_ids)}

    def _unlisted_artists(self) -> pa.Array:
        """Return the artists that have a vector, but no row in the raw table any more."""
        reader = DuckDBEngine(self.store.root.scratch, self.settings.memory_limit, self.settings.threads)
        listed = reader.read(USER_TOP_ARTISTS, self.store.table_version(USER_TOP_ARTISTS).files)
        known = listed.select("artist_name").distinct().to_pyarrow()["artist_name"].combine_chunks()
        # Not by the reader, since release 0.1 wrote fewer columns.
        files = self.store.table_version(ARTIST_EMBEDDING).files
        names = [pq.ParquetFile(file).read(columns=["artist_name"])["artist_name"] for file in files]
        found = pa.chunked_array(names, pa.string()).combine_chunks()
        return found.filter(pc.invert(pc.is_in(found, known)))

    def _report_rows(self, name: str, rows: int) -> None:
        self.report(f"{name}: {rows:,} rows deleted")
