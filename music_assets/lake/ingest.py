"""Taking dropped files into a raw table, each exactly once.

The order is what makes it so: parse, commit the rejects, commit the rows, both with the file's identity, and only then
delete the CSV, if it is still the file that was read. A crash at any point leaves the CSV, or its rows, or both, and
then the identity tells that the rows are in.
"""

import logging
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from music_assets.engines.base import CsvFile, Engine, ParsedFile
from music_assets.lake.csv_file import BadFileError, check_compression, read_header
from music_assets.lake.damage import lost_history
from music_assets.lake.delta import FILES, DeltaStore
from music_assets.lake.landing import DroppedFile, Landing, identity_of
from music_assets.tables import REJECTED_ROWS, Table

LANDED = "landed"
DUPLICATE = "duplicate"
REJECTED = "rejected"


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

    def add(self, file: TakenFile, log: logging.Logger) -> None:
        """Note a file, and say so in the log."""
        self.files.append(file)
        level = logging.INFO if file.outcome == LANDED and not file.rejects else logging.WARNING
        detail = f" ({file.note})" if file.note else ""
        log.log(level, f"{file.name}: {file.outcome}, {file.rows} rows, {file.rejects} rejected{detail}")


@dataclass(frozen=True)
class _Parsed:
    dropped: DroppedFile
    identity: str
    result: ParsedFile
    unknown_columns: tuple[str, ...]

    @property
    def taken(self) -> TakenFile:
        return TakenFile(
            name=self.dropped.name,
            outcome=LANDED,
            bytes=self.dropped.size,
            rows=self.result.rows,
            rejects=self.result.rejects,
            duplicates=self.result.duplicates,
            note=f"unknown columns ignored: {', '.join(self.unknown_columns)}" if self.unknown_columns else "",
        )


class Ingest:
    """Takes the complete files of a data root into its raw tables."""

    def __init__(self, landing: Landing, store: DeltaStore, engine: Engine, retention_hours: float = 168.0) -> None:
        self.landing = landing
        self.store = store
        self.engine = engine
        self.retention_hours = retention_hours

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
                self.store.vacuum(written, self.retention_hours)
            return report

    def _check_history(self, table: Table) -> None:
        """Raise LostHistoryError before what a damaged log does not tell of any more is vacuumed."""
        for each in (table, REJECTED_ROWS):
            if lost := lost_history(self.store, each):
                raise LostHistoryError(f"{lost}. Nothing was taken. `music-assets doctor` tells how to go on.")

    def _take(self, table: Table, log: logging.Logger) -> IngestReport:
        report = IngestReport()
        parsed: dict[str, _Parsed] = {}
        repeated: list[tuple[DroppedFile, str, str]] = []
        after = self.store.snapshot(table).latest_ingest
        for entry in self.landing.ignored(table):
            log.warning(f"{entry}: not looked at; only regular files are taken")
        for seen in self.landing.complete()[table]:
            file = seen
            try:
                file = self.landing.with_plain_name(seen)
                identity = identity_of(file.path)
            except OSError as error:
                self._reject(file, f"unreadable: {error.strerror}", report, log)
                continue
            earlier = parsed.get(identity)
            if earlier or self.store.holds(table, identity):
                same = f"as {earlier.dropped.name}" if earlier else "as a file taken before"
                repeated.append((file, identity, f"the same bytes {same}: counted once, removed"))
                continue
            ingested_at = after = _later_than(after)
            try:
                parsed[identity] = self._parse(table, file, identity, ingested_at, log)
            except BadFileError as error:
                self._reject(file, str(error), report, log)
        unchanged = [file for file in parsed.values() if _still_there(file.dropped, log)]
        self._commit(table, unchanged)
        for done in unchanged:
            report.add(done.taken, log)
            report.reasons.update(done.result.reasons)
            _delete(done.dropped, log)
        for file, identity, note in repeated:
            if self.store.holds(table, identity):
                report.add(TakenFile(file.name, DUPLICATE, file.size, note=note), log)
                _delete(file, log)
        return report

    def _reject(self, file: DroppedFile, reason: str, report: IngestReport, log: logging.Logger) -> None:
        """Move a bad file aside, unless it is no longer the one that was read: then it was not complete."""
        if not _still_there(file, log):
            return
        try:
            became = f"moved to {self.landing.quarantine(file, reason)}"
        except OSError as error:
            became = f"it stays, as it cannot be moved to {self.landing.root / 'rejected'}: {error.strerror}"
            log.error(f"{file.name}: {became}")
        report.add(TakenFile(file.name, REJECTED, file.size, note=f"{reason}; {became}"), log)

    def _parse(
        self, table: Table, file: DroppedFile, identity: str, ingested_at: datetime, log: logging.Logger
    ) -> _Parsed:
        check_compression(file.path)
        header = read_header(file.path, table)
        if header.unknown:
            log.warning(f"{file.name}: unknown columns ignored: {', '.join(header.unknown)}")
        folder = self.store.new_folder(table)
        reject_folder = self.store.new_folder(REJECTED_ROWS)
        csv_file = CsvFile(file.path, table, header, file.name, ingested_at)
        log.info(f"{file.name}: reading {file.size:,} bytes for {table.name}")
        try:
            result = self.engine.parse(csv_file, folder, reject_folder)
        except BaseException:
            shutil.rmtree(folder)
            shutil.rmtree(reject_folder)
            raise
        if not result.reject_files:
            reject_folder.rmdir()
        return _Parsed(file, identity, result, header.unknown)

    def _commit(self, table: Table, parsed: list[_Parsed]) -> None:
        """Commit the rejects, then the rows. Both carry the identities, so that a repetition commits neither twice."""
        if parsed or self.store.snapshot(table).version < 0:
            self._commit_rejects(table, parsed)
            self.store.append(
                table,
                [path for file in parsed for path in file.result.files],
                [file.identity for file in parsed],
                {FILES: [asdict(file.taken) for file in parsed]},
            )

    def _commit_rejects(self, table: Table, parsed: list[_Parsed]) -> None:
        fresh = {
            f"{table.name}:{file.identity}": file.result.reject_files
            for file in parsed
            if not self.store.holds(REJECTED_ROWS, f"{table.name}:{file.identity}")
        }
        files = [path for paths in fresh.values() for path in paths]
        if files or self.store.snapshot(REJECTED_ROWS).version < 0:
            self.store.append(REJECTED_ROWS, files, fresh, {})


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
