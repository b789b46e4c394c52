"""The ingest: loads dropped CSV files into a raw table, each exactly once.

The files are loaded in batches, with one transaction each, so that a drop of any size makes lasting progress and needs
little disk space besides the tables. The order of the steps guarantees that a crash at any point leaves the CSV file,
or its rows, or both: the rejected rows are committed, then the rows, both together with the content hash of their file,
and only then is the file deleted, if it is still the one that was read. A file that is left over although its rows are
committed is recognised by its content hash and its identity (`identity.py`). The same content in another file is a
repeat as long as the table holds what it says, and loaded again otherwise (`repeats.py`).
"""

import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from music_assets.data_root import LockHeldError, acquire_lock, exclusive_lock, one_look
from music_assets.ingest.batch import FEWEST_TOGETHER, Batch, BatchFile, split_into_batches
from music_assets.ingest.content_hash import ContentHashes
from music_assets.ingest.csv_header import SHOWN_CHARACTERS, UTF8, BadFileError, CsvFile, check_compression, read_header
from music_assets.ingest.csv_records import INVALID_UTF8, TOO_LONG
from music_assets.ingest.encoding import describe_encoding, transcode
from music_assets.ingest.identity import RETRACTED, time_of
from music_assets.ingest.landing import DroppedFile, Landing, with_utf8_name
from music_assets.ingest.parser import ParsedFile, Parser
from music_assets.ingest.quarantine import Quarantine
from music_assets.ingest.repeats import replaced
from music_assets.ingest.report import FileReport, IngestReport, Outcome
from music_assets.object_store import ObjectStoreError, in_parallel
from music_assets.storage.compaction import compact
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.storage.integrity import truncated_log
from music_assets.storage.lineage import FILES
from music_assets.storage.published_snapshot import DamagedPointerError, referenced_files
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, Table


class IngestRunningError(Exception):
    """Another process is loading files of this data root."""


class LostHistoryError(Exception):
    """A table has fewer rows than were published of it, because its log is damaged. No file was changed."""


class Ingest:
    """Loads the complete files of a data root into its raw tables."""

    def __init__(self, landing: Landing, store: DeltaStore, parser: Parser, retention_hours: float) -> None:
        self.landing = landing
        self.store = store
        self.parser = parser
        self.retention_hours = retention_hours
        self.quarantine = Quarantine(landing.root)
        self.hashes = ContentHashes(landing.encoding)

    @one_look()
    def load(self, table: Table, log: logging.Logger) -> IngestReport:
        """Load every complete file that waits for the table, and report what became of each.

        Raises IngestRunningError if another process is loading files, ConcurrentCommitError if another process
        committed in between, LostHistoryError if the log of a table is damaged. The files then wait for the next run.
        """
        self.landing.root.prepare()
        with self._lock():
            self._check_history(table)
            report = IngestReport()
            for batch in self._batches(table, log):
                self._find_repeats(batch)
                self._delete_repeats(batch, report)
                self._read_headers(batch)
                self._parse(batch)
                self._delete_utf8_copies()
                self._copy_incomplete(batch)
                self._commit(batch)
                self._clear(batch, report)
                for file in batch.files:
                    file.dropped.unstage()
            self._create_missing(table)
            self._compact_and_vacuum(table, log)
            return report

    @contextmanager
    def _lock(self) -> Iterator[None]:
        root = self.landing.root
        try:
            lock = acquire_lock(root.ingest_lock)
        except LockHeldError:
            raise IngestRunningError(f"Another run is loading files below {root}. Wait until it has ended.") from None
        try:
            yield
        finally:
            lock.release()

    def _check_history(self, table: Table) -> None:
        """Raise LostHistoryError before vacuum deletes files that a damaged log no longer refers to."""
        for each in (table, REJECTED_ROWS):
            if damage := truncated_log(self.store, each):
                raise LostHistoryError(f"{damage}. No file was loaded. Run `music-assets doctor` for the remedy.")

    def _batches(self, table: Table, log: logging.Logger) -> Iterator[Batch]:
        """Yield the complete files of the table, hashed, in batches; cut where an earlier file must be loaded first."""
        batches = deque(self._list(table, log))
        while batches:
            batch = batches.popleft()
            self._hash(batch)
            self.hashes.start(file.dropped for each in [*batches][:1] for file in each.files)
            if rest := batch.cut():
                batches.appendleft(rest)
            yield batch

    def _list(self, table: Table, log: logging.Logger) -> list[Batch]:
        """List the complete files of the table, and start to hash the first batches of this table and of later ones."""
        complete = self.landing.complete_files()
        for entry in self.landing.ignored(table):
            log.warning(f"Ignored in {self.landing.root.address(self.landing.root.drop_folder(table))}: {entry}")
        self.landing.discard_stale(chain.from_iterable(complete.values()))
        batches = {each: split_into_batches(complete[each]) for each in RAW_TABLES[RAW_TABLES.index(table) :]}
        self.hashes.start(file for each in batches.values() for file in chain(*each[:1]))
        return [Batch(table, [BatchFile(file) for file in files], log) for files in batches[table]]

    def _hash(self, batch: Batch) -> None:
        """Hash the files, and find out which of them, and which contents, were loaded before."""
        for file in batch.files:
            try:
                file.dropped = with_utf8_name(file.dropped)
                file.content_hash = file.content_hash or self.hashes.get(file.dropped)
            except OSError as error:
                file.problem = f"unreadable: {error.strerror}"
        readable = [file for file in batch.files if not file.problem]
        ids = chain.from_iterable((file.content_hash, file.file_id) for file in readable)
        found = self.store.transactions(batch.table, ids)
        for file in readable:
            file.loaded_version = found.get(file.content_hash, RETRACTED)
            file.was_loaded = file.file_id in found

    def _find_repeats(self, batch: Batch) -> None:
        """Decide which files are loaded: of each content the last one, unless the table holds what it says.

        Of copies that follow each other it is the first.
        """
        delivered = [file for file in batch.files if not file.problem and not file.was_loaded]
        counting: dict[str, BatchFile] = {}
        for previous, file in pairwise([None, *delivered]):
            if file and (previous is None or previous.content_hash != file.content_hash):
                counting[file.content_hash] = file
        for file in delivered:
            file.original = counting[file.content_hash]
        known = [file for file in delivered if file.original is file and file.is_known]
        if known:
            history = self.parser.engine.read(batch.table, self.store.table_version(batch.table).files)
            again = replaced(history, batch.table, [time_of(file.loaded_version) for file in known])
            for number, file in enumerate(known):
                file.is_repeat = number not in again
        for file in batch.files:
            file.is_repeat |= file.was_loaded

    def _delete_repeats(self, batch: Batch, report: IngestReport) -> None:
        """Delete the repeats, the oldest first, before a file is loaded whose rows replace theirs.

        A run that dies in between, or cannot delete them, would otherwise make new deliveries of them.
        """
        for file in batch.repeats:
            self._report_duplicate(file, "a file loaded before", report, batch.log)
            if not _delete(file.dropped, batch.log) and not file.was_loaded:
                self.store.append(batch.table, [], {file.file_id: file.original.loaded_version}, {})

    def _read_headers(self, batch: Batch) -> None:
        """Match the header of each new file with the table, and give each a later time than the one before."""
        ingested_at = self.store.table_version(batch.table).latest_ingest
        for file in batch.new:
            path, name = file.dropped.path, file.dropped.name
            try:
                check_compression(path)
                path = self._as_utf8(file)
                header = read_header(path, batch.table)
            except BadFileError as error:
                file.problem = str(error)
                continue
            ingested_at = _later_than(ingested_at)
            file.csv_file = CsvFile(path, header, name, ingested_at)

    def _as_utf8(self, file: BatchFile) -> Path:
        """Return the path of the file or, if its encoding is another, of a copy in UTF-8 in the scratch folder."""
        if self.landing.encoding == UTF8:
            return file.dropped.path
        copy = self._utf8_folder / f"{file.content_hash}.csv"
        copy.parent.mkdir(exist_ok=True)
        transcode(file.dropped.path, copy, self.landing.encoding)
        return copy

    def _delete_utf8_copies(self) -> None:
        if self.landing.encoding != UTF8:
            shutil.rmtree(self._utf8_folder, ignore_errors=True)

    @property
    def _utf8_folder(self) -> Path:
        return self.parser.scratch.folder / "utf8"

    def _parse(self, batch: Batch) -> None:
        found = self.store.transactions(REJECTED_ROWS, [file.rejects_id for file in batch.new])
        for file in batch.new:
            file.rejects_version = found.get(file.rejects_id, RETRACTED)
        for group in batch.groups():
            self._parse_group(batch, group)

    def _parse_group(self, batch: Batch, files: Sequence[BatchFile]) -> None:
        """Parse files into shared parquet files; again without those that changed meanwhile, if there are any."""
        while files:
            self._parse_once(batch, files)
            parsed = [file for file in files if file.parsed]
            files = [file for file in parsed if _is_still_there(file.dropped, batch.log)]
            if len(files) == len(parsed):
                return
            for file in parsed:
                file.parsed = None

    def _parse_once(self, batch: Batch, files: Sequence[BatchFile]) -> None:
        what = files[0].dropped.name if len(files) == 1 else f"{len(files):,} small files"
        size = sum(file.dropped.size for file in files)
        batch.log.info(f"{what}: reading {size:,} bytes for {batch.table.name}")
        folder, reject_folder = self.store.new_folder(batch.table), self.store.new_folder(REJECTED_ROWS)
        try:
            results = self.parser.parse([file.csv_file for file in files], folder, reject_folder)
        except BaseException:
            shutil.rmtree(folder)
            shutil.rmtree(reject_folder)
            raise
        for file, result in zip(files, results, strict=True):
            if isinstance(result, ParsedFile):
                file.parsed = result
            else:
                file.problem = str(result)
        if not any(file.parsed for file in files):
            shutil.rmtree(folder)
        if not any(file.parsed and file.parsed.reject_files for file in files):
            shutil.rmtree(reject_folder)

    def _copy_incomplete(self, batch: Batch) -> None:
        """Copy files with lines that `rejected_rows` does not show as delivered: the file itself is deleted."""
        for file, parsed in batch.loaded.items():
            lost = [reason for reason in (TOO_LONG, INVALID_UTF8) if reason in parsed.reject_reasons]
            if not lost:
                continue
            counts = ", ".join(f"{parsed.reject_reasons[reason]} x {reason}" for reason in lost)
            reason = f"{counts}: {REJECTED_ROWS.name} does not show these as delivered. All other rows are loaded."
            if INVALID_UTF8 in lost:
                reason += f" {describe_encoding(file.csv_file.path)}"
            copy = self.quarantine.copy(file.dropped, reason)
            batch.log.warning(
                f"{file.dropped.name}: {reason} A copy of the file is in {self.landing.root.address(copy)}"
            )

    def _commit(self, batch: Batch) -> None:
        """Commit the rejected rows, then the rows; the ids of both commits keep a later run from repeating them."""
        loaded = batch.loaded
        if not loaded:
            return
        rejecting = [file for file in loaded if not file.rejects_committed]
        if reject_files := _distinct(path for file in rejecting for path in loaded[file].reject_files):
            self.store.append(
                REJECTED_ROWS,
                reject_files,
                {file.rejects_id: file.version for file in rejecting},
                {},
                {file.rejects_id: file.rejects_version for file in rejecting},
            )
        self.store.append(
            batch.table,
            _distinct(path for parsed in loaded.values() for path in parsed.files),
            {file.content_hash: file.version for file in loaded}
            | {file.file_id: file.original.version for file in batch.files if file.original.parsed},
            {FILES: [_origin(file, parsed) for file, parsed in loaded.items()]},
            {file.content_hash: file.loaded_version for file in loaded},
        )
        rows = sum(parsed.rows for parsed in loaded.values())
        batch.log.info(f"Loaded {len(loaded):,} files with {rows:,} rows into {batch.table.name}")

    def _clear(self, batch: Batch, report: IngestReport) -> None:
        """Delete the files whose content is in the table now, and move bad ones away. Files that changed stay."""
        for file in batch.files:
            original = file.original
            if original.problem:
                self._reject(file.dropped, original.problem, report, batch.log)
            elif file.parsed:
                report.add(_report(file, file.parsed), batch.log, quiet=len(batch.files) >= FEWEST_TOGETHER)
                report.reject_reasons.update(file.parsed.reject_reasons)
            elif original.parsed:
                self._report_duplicate(file, original.dropped.name, report, batch.log)
        loaded = [file.dropped for file in batch.files if file.original.parsed]
        in_parallel(lambda file: _delete(file, batch.log), loaded)

    def _report_duplicate(self, file: BatchFile, original: str, report: IngestReport, log: logging.Logger) -> None:
        note = f"same content as {original}: counted once, deleted"
        report.add(FileReport(file.dropped.name, Outcome.DUPLICATE, file.dropped.size, note=note), log)

    def _reject(self, file: DroppedFile, reason: str, report: IngestReport, log: logging.Logger) -> None:
        """Move a bad file away, unless it changed: then it was not complete."""
        if not _is_still_there(file, log):
            return
        try:
            result = f"moved to {self.landing.root.address(self.quarantine.move(file, reason))}"
        except OSError as error:
            result = f"could not be moved to {self.landing.root.address(self.quarantine.folder)}: {error.strerror}"
            log.error(f"{file.name}: {result}")
        report.add(FileReport(file.name, Outcome.REJECTED, file.size, note=f"{reason}; {result}"), log)

    def _create_missing(self, table: Table) -> None:
        """Create the tables if no file did, so that they can be read."""
        for each in (REJECTED_ROWS, table):
            if self.store.table_version(each).version < 0:
                self.store.append(each, [], {}, {})

    def _compact_and_vacuum(self, table: Table, log: logging.Logger) -> None:
        for each in (table, REJECTED_ROWS):
            try:
                if compact(self.store, each):
                    number = len(self.store.table_version(each).paths)
                    log.info(f"{each.full_name}: compacted to {number} parquet files")
                with exclusive_lock(self.store.root.publish_lock, wait=True):
                    self.store.vacuum(each, self.retention_hours, referenced_files(self.store.root))
            except ConcurrentCommitError as error:
                log.info(f"{each.full_name}: not compacted this time: {error}")
            except DamagedPointerError as error:
                log.warning(f"{each.full_name}: not vacuumed, since the published snapshot is unknown: {error}")


def _report(file: BatchFile, parsed: ParsedFile) -> FileReport:
    unknown = ", ".join(file.csv_file.header.unknown)
    more = " …" if len(unknown) > SHOWN_CHARACTERS else ""
    notes = [f"unknown columns ignored: {unknown[:SHOWN_CHARACTERS]}{more}"] if unknown else []
    if file.is_known:
        notes.append("loaded again, since later drops had replaced its rows")
    return FileReport(
        name=file.dropped.name,
        outcome=Outcome.LOADED,
        bytes=file.dropped.size,
        rows=parsed.rows,
        rejects=parsed.rejects,
        duplicates=parsed.duplicates,
        note="; ".join(notes),
    )


def _origin(file: BatchFile, parsed: ParsedFile) -> dict[str, Any]:
    """Return what the commit records about the file. `key_fields` are the places of the key columns in its rows."""
    header = file.csv_file.header
    key_fields = [header.columns.index(name) for name in header.table.key]
    status = {"inode": file.dropped.inode, "modified_ns": file.dropped.modified_ns}
    loaded = {"content_hash": file.content_hash, "ingested_at": file.csv_file.ingested_at.isoformat()}
    return {**asdict(_report(file, parsed)), **loaded, **status, "key_fields": key_fields}


def _distinct(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


def _later_than(moment: datetime | None) -> datetime:
    """Return the time, or the next microsecond after `moment` if the clock is behind it: later drops must win."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now if moment is None else max(now, moment + timedelta(microseconds=1))


def _is_still_there(file: DroppedFile, log: logging.Logger) -> bool:
    if file.is_unchanged():
        return True
    log.warning(f"{file.name}: changed while it was read; the next run loads it")
    return False


def _delete(file: DroppedFile, log: logging.Logger) -> bool:
    """Delete the file and return whether it is gone, or has other content now that the next run loads."""
    try:
        if not file.delete():
            log.warning(f"{file.name}: changed after it was read; the next run loads the new content")
    except OSError as error:
        log.error(
            f"{file.name}: rows loaded, but the file could not be deleted: {error.strerror}. Every run reads it again "
            f"until you delete it, or allow user {os.geteuid()} to delete files from {file.path.parent}"
        )
        return False
    except ObjectStoreError as error:
        log.error(f"{file.name}: rows loaded, but the object could not be deleted. Every run reads it again: {error}")
        return False
    return True
