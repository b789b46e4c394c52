"""Taking dropped files into a raw table, each exactly once.

The order is what makes it so: parse, commit the rejects, commit the rows, both with the file's identity, and only then
delete the CSV, if it is still the file that was read. A crash at any point leaves the CSV, or its rows, or both, and
then the identity tells that the rows are in.

The files are taken in batches, one transaction each: a drop of any size makes progress that lasts, and of disk beside
the tables it needs no more than a batch does.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, compress
from pathlib import Path
from typing import TypeVar

from music_assets.ingest.csv_header import BadFileError, CsvFile, check_compression, is_compressed, read_header
from music_assets.ingest.csv_records import TOO_LONG
from music_assets.ingest.daemon_thread import resolve, run_in_thread
from music_assets.ingest.landing import DroppedFile, Landing, identity_of
from music_assets.ingest.parser import ParsedFile, Parser
from music_assets.storage.delta import FILES, ConcurrentCommitError, DeltaStore
from music_assets.storage.integrity import truncated_log
from music_assets.storage.published_snapshot import DamagedPointerError, publish_lock, referenced_files
from music_assets.tables import RAW_TABLES, REJECTED_ROWS, Table

File = TypeVar("File")
LANDED = "landed"
DUPLICATE = "duplicate"
REJECTED = "rejected"
FILES_AT_ONCE = 1_000
BYTES_AT_ONCE = 1 << 30
"""What one transaction takes at most; a file may be larger."""
SMALL_BYTES = 1 << 20
FEWEST_TOGETHER = 20
"""Fewer are parsed one by one, which takes seconds at most."""
BYTES_TOGETHER = 1 << 24
"""Of CSV, whose rows stand in memory as text."""


class LostHistoryError(Exception):
    """A table holds less than was published of it: its log is damaged. Nothing was taken, and nothing removed."""


@dataclass(frozen=True)
class TakenFile:
    """What became of one file of a drop."""

    name: str
    outcome: str
    bytes: int
    rows: int = 0
    rejects: int = 0
    duplicates: int = 0
    note: str = ""


@dataclass
class IngestReport:
    """What became of the files of a drop, and how many rows were rejected for which reason."""

    files: list[TakenFile] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, file: TakenFile, log: logging.Logger, one_of_many: bool = False) -> None:
        """Note a file, and say so in the log: of many, where there is more to say than that it landed."""
        self.files.append(file)
        level = logging.INFO if file.outcome == LANDED and not file.rejects else logging.WARNING
        if one_of_many and level == logging.INFO and not file.note:
            return
        detail = f" ({file.note})" if file.note else ""
        log.log(level, f"{file.name}: {file.outcome}, {file.rows} rows, {file.rejects} rejected{detail}")


@dataclass(frozen=True)
class _Readable:
    """A file that is new, and whose header fits the table."""

    dropped: DroppedFile
    identity: str
    csv_file: CsvFile

    @property
    def rejects_identity(self) -> str:
        """The identity of its rejected rows, which stand in one table for all raw tables."""
        return f"{self.csv_file.table.name}:{self.identity}"


@dataclass(frozen=True)
class _Parsed:
    file: _Readable
    result: ParsedFile

    @property
    def taken(self) -> TakenFile:
        unknown = self.file.csv_file.header.unknown
        return TakenFile(
            name=self.file.dropped.name,
            outcome=LANDED,
            bytes=self.file.dropped.size,
            rows=self.result.rows,
            rejects=self.result.rejects,
            duplicates=self.result.duplicates,
            note=f"unknown columns ignored: {', '.join(unknown)}" if unknown else "",
        )


class Identities:
    """The identities of files, those that are needed next worked out by a thread beside what else is done."""

    def __init__(self) -> None:
        self._ahead: dict[DroppedFile, Future[str]] = {}

    def begin(self, files: Iterable[DroppedFile]) -> None:
        """Begin with these, one after the other."""
        new = {file: Future[str]() for file in files if file not in self._ahead}
        self._ahead |= new
        run_in_thread(partial(_work_out, new))

    def of(self, file: DroppedFile) -> str:
        """Return the identity, as soon as it is known. Raises OSError where the file cannot be read."""
        begun = self._ahead.pop(file, None)
        return begun.result() if begun else identity_of(file.path)


def _work_out(identities: Mapping[DroppedFile, Future[str]]) -> None:
    for file, identity in identities.items():
        resolve(identity, partial(identity_of, file.path))


class Ingest:
    """Takes the complete files of a data root into its raw tables."""

    def __init__(self, landing: Landing, store: DeltaStore, parser: Parser, retention_hours: float = 168.0) -> None:
        self.landing = landing
        self.store = store
        self.parser = parser
        self.retention_hours = retention_hours
        self.identities = Identities()

    def take(self, table: Table, log: logging.Logger) -> IngestReport:
        """Take every complete file that waits for the table; return what became of each.

        Raises IngestRunningError where another process is at it, ConcurrentCommitError where one got in between,
        LostHistoryError where a log is damaged; the files wait on in each case.
        """
        self.landing.prepare()
        with self.landing.exclusively():
            self._check_history(table)
            report = self._take(table, log)
            for written in (table, REJECTED_ROWS):
                self._tidy(written, log)
            return report

    def _tidy(self, table: Table, log: logging.Logger) -> None:
        """Put small parquet files together where they are many; delete those that nothing refers to any more."""
        try:
            if self.store.compact(table):
                log.info(f"{table.full_name}: compacted to {len(self.store.table_version(table).files)} parquet files")
            with publish_lock(self.store.root):
                self.store.vacuum(table, self.retention_hours, referenced_files(self.store.root))
        except ConcurrentCommitError as error:
            log.info(f"Not compacted this time: {error}")
        except DamagedPointerError as error:
            log.warning(f"Nothing is vacuumed, as it is not known what is published: {error}")

    def _check_history(self, table: Table) -> None:
        """Raise LostHistoryError before what a damaged log does not tell of any more is vacuumed."""
        for each in (table, REJECTED_ROWS):
            if lost := truncated_log(self.store, each):
                raise LostHistoryError(f"{lost}. Nothing was taken. `music-assets doctor` tells how to go on.")

    def _take(self, table: Table, log: logging.Logger) -> IngestReport:
        report = IngestReport()
        for entry in self.landing.ignored(table):
            log.warning(f"{entry}: not looked at; only regular files are taken")
        complete = self.landing.complete()
        batches = {each: list(_batches(complete[each])) for each in RAW_TABLES[RAW_TABLES.index(table) :]}
        self.identities.begin(file for each in batches.values() for file in chain(*each[:1]))
        for batch in batches[table]:
            self._take_batch(table, batch, report, log)
        if not batches[table]:
            self._commit(table, [], set())
        return report

    def _take_batch(
        self, table: Table, batch: Sequence[DroppedFile], report: IngestReport, log: logging.Logger
    ) -> None:
        """Take some files in one transaction, each content once."""
        bad: dict[DroppedFile, str] = {}
        identities = self._identities(batch, bad)
        held = self.store.committed_ids(table, identities.values())
        first: dict[str, DroppedFile] = {}
        for file, identity in identities.items():
            if identity not in held and file not in bad:
                first.setdefault(identity, file)
        readable = self._readable(table, first, bad, log)
        known_rejects = self.store.committed_ids(REJECTED_ROWS, [file.rejects_identity for file in readable])
        groups = [self._parse(table, files, bad, log) for files in _groups(readable, known_rejects)]
        parsed = [done for group in groups for done in self._unchanged(table, group, bad, log)]
        self._keep_long_lines(parsed, log)
        self._commit(table, parsed, known_rejects)
        log.info(f"{len(parsed):,} files, {sum(done.result.rows for done in parsed):,} rows are in {table.name}")
        landed = {done.file.identity: done for done in parsed}
        for file, identity in identities.items():
            original = first.get(identity)
            if reason := bad.get(original or file):
                self._reject(file, reason, report, log)
            elif file is original and identity in landed:
                report.add(landed[identity].taken, log, one_of_many=len(batch) >= FEWEST_TOGETHER)
                report.reasons.update(landed[identity].result.reject_reasons)
                _delete(file, log)
            elif file is not original and (identity in held or identity in landed):
                same = f"as {landed[identity].taken.name}" if identity in landed else "as a file taken before"
                note = f"the same bytes {same}: counted once, removed"
                report.add(TakenFile(file.name, DUPLICATE, file.size, note=note), log)
                _delete(file, log)

    def _reject(self, file: DroppedFile, reason: str, report: IngestReport, log: logging.Logger) -> None:
        """Move a bad file aside, unless it is no longer the one that was read: then it was not complete."""
        if not _still_there(file, log):
            return
        try:
            became = f"moved to {self.landing.quarantine(file, reason)}"
        except OSError as error:
            became = f"it stays, as it cannot be moved to {self.landing.root.rejected}: {error.strerror}"
            log.error(f"{file.name}: {became}")
        report.add(TakenFile(file.name, REJECTED, file.size, note=f"{reason}; {became}"), log)

    def _identities(self, files: Iterable[DroppedFile], bad: dict[DroppedFile, str]) -> dict[DroppedFile, str]:
        """Return the identity of each file; note those that cannot be read, which have none, with the reason."""
        identities = {}
        for seen in files:
            file = seen
            try:
                file = self.landing.with_plain_name(seen)
                identities[file] = self.identities.of(file)
            except OSError as error:
                bad[file] = f"unreadable: {error.strerror}"
                identities[file] = ""
        return identities

    def _readable(
        self, table: Table, files: Mapping[str, DroppedFile], bad: dict[DroppedFile, str], log: logging.Logger
    ) -> list[_Readable]:
        """Give each file, here by its identity, a later time than the one before; note bad ones with the reason."""
        readable = []
        ingested_at = self.store.table_version(table).latest_ingest
        for identity, file in files.items():
            try:
                check_compression(file.path)
                header = read_header(file.path, table)
            except BadFileError as error:
                bad[file] = str(error)
                continue
            if header.unknown:
                log.warning(f"{file.name}: unknown columns ignored: {', '.join(header.unknown)}")
            ingested_at = _later_than(ingested_at)
            readable.append(_Readable(file, identity, CsvFile(file.path, header, file.name, ingested_at)))
        return readable

    def _parse(
        self, table: Table, files: Sequence[_Readable], bad: dict[DroppedFile, str], log: logging.Logger
    ) -> list[_Parsed]:
        """Parse one file, or many small ones together; note bad ones with the reason."""
        csv_files = [file.csv_file for file in files]
        what = csv_files[0].source_file if len(files) == 1 else f"{len(files):,} small files"
        log.info(f"{what}: reading {sum(file.dropped.size for file in files):,} bytes for {table.name}")
        folder = self.store.new_folder(table)
        reject_folder = self.store.new_folder(REJECTED_ROWS)
        try:
            results = self._results(csv_files, folder, reject_folder)
        except BaseException:
            shutil.rmtree(folder)
            shutil.rmtree(reject_folder)
            raise
        outcomes = list(zip(files, results, strict=True))
        bad |= {file.dropped: str(result) for file, result in outcomes if isinstance(result, BadFileError)}
        parsed = [_Parsed(file, result) for file, result in outcomes if isinstance(result, ParsedFile)]
        if not parsed:
            shutil.rmtree(folder)
        if not any(done.result.reject_files for done in parsed):
            shutil.rmtree(reject_folder)
        return parsed

    def _results(
        self, files: Sequence[CsvFile], folder: Path, reject_folder: Path
    ) -> Sequence[ParsedFile | BadFileError]:
        if len(files) > 1:
            return self.parser.parse_together(files, folder, reject_folder)
        try:
            return [self.parser.parse(files[0], folder, reject_folder)]
        except BadFileError as error:
            return [error]

    def _unchanged(
        self, table: Table, parsed: list[_Parsed], bad: dict[DroppedFile, str], log: logging.Logger
    ) -> list[_Parsed]:
        """Return the files that did not change while they were read, parsed without those that did."""
        rest = [done.file for done in parsed if _still_there(done.file.dropped, log)]
        if len(rest) == len(parsed):
            return parsed
        return self._unchanged(table, self._parse(table, rest, bad, log), bad, log) if rest else []

    def _keep_long_lines(self, parsed: Sequence[_Parsed], log: logging.Logger) -> None:
        """Copy files aside of which `rejected_rows` will not hold all: the CSV is deleted once it is taken."""
        for done in parsed:
            if count := done.result.reject_reasons.get(TOO_LONG, 0):
                reason = f"{count} x {TOO_LONG}: only its start is in {REJECTED_ROWS.name}; all other rows are taken"
                copy = self.landing.keep_copy(done.file.dropped, reason)
                log.warning(f"{done.file.dropped.name}: {reason}. A copy of the file is kept: {copy}")

    def _commit(self, table: Table, parsed: Sequence[_Parsed], known_rejects: Container[str]) -> None:
        """Commit the rejects, then the rows. Both carry the identities, so that a repetition commits neither twice."""
        if parsed or self.store.table_version(table).version < 0:
            self._commit_rejects([done for done in parsed if done.file.rejects_identity not in known_rejects])
            self.store.append(
                table,
                _distinct(path for done in parsed for path in done.result.files),
                [done.file.identity for done in parsed],
                {FILES: [asdict(done.taken) for done in parsed]},
            )

    def _commit_rejects(self, parsed: Sequence[_Parsed]) -> None:
        files = _distinct(path for done in parsed for path in done.result.reject_files)
        if files or self.store.table_version(REJECTED_ROWS).version < 0:
            self.store.append(REJECTED_ROWS, files, [done.file.rejects_identity for done in parsed], {})


def _groups(files: Sequence[_Readable], known_rejects: Container[str]) -> list[list[_Readable]]:
    """Put small files together, if they are many: those whose rejects are in already apart from the others."""
    small = [file.dropped.size <= SMALL_BYTES and not is_compressed(file.dropped.path) for file in files]
    if sum(small) < FEWEST_TOGETHER:
        return [[file] for file in files]
    groups = [[file] for file, together in zip(files, small, strict=True) if not together]
    for known in (False, True):
        alike = [file for file in compress(files, small) if (file.rejects_identity in known_rejects) == known]
        groups += _chunks(alike, lambda file: file.dropped.size, BYTES_TOGETHER)
    return groups


def _batches(files: Iterable[DroppedFile]) -> Iterator[list[DroppedFile]]:
    return _chunks(files, lambda file: file.size, BYTES_AT_ONCE)


def _chunks(files: Iterable[File], size: Callable[[File], int], most_bytes: int) -> Iterator[list[File]]:
    """Yield the files some at a time: FILES_AT_ONCE and that many bytes at most, if it is more than one."""
    chunk: list[File] = []
    total = 0
    for file in files:
        total += size(file)
        if chunk and (len(chunk) == FILES_AT_ONCE or total > most_bytes):
            yield chunk
            chunk, total = [], size(file)
        chunk.append(file)
    if chunk:
        yield chunk


def _distinct(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))


def _later_than(moment: datetime | None) -> datetime:
    """Return the time, or the next microsecond after `moment` where the clock is behind it: later drops must win."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now if moment is None else max(now, moment + timedelta(microseconds=1))


def _still_there(file: DroppedFile, log: logging.Logger) -> bool:
    if file.unchanged():
        return True
    log.warning(f"{file.name}: changed while it was read; it waits for the next run")
    return False


def _delete(file: DroppedFile, log: logging.Logger) -> None:
    if not file.unchanged():
        log.warning(f"{file.name}: changed after it was read; the new content waits for the next run")
        return
    try:
        file.path.unlink()
    except OSError as error:
        log.error(
            f"{file.name}: its rows are in, but it cannot be removed: {error.strerror}. Every run reads it again until "
            f"you remove it, or let the user with the number {os.geteuid()} remove files from {file.path.parent}"
        )
