"""What became of the files of an ingest: for the log, the commit and the web UI."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What happened to a file."""

    LOADED = "loaded"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(frozen=True)
class FileReport:
    """What became of a file: its size in bytes, and numbers of rows."""

    name: str
    outcome: Outcome
    bytes: int
    rows: int = 0
    rejects: int = 0
    duplicates: int = 0
    note: str = ""

    @property
    def level(self) -> int:
        """The log level: INFO if all rows were loaded and there is no remark."""
        is_plain = self.outcome is Outcome.LOADED and not self.rejects and not self.note
        return logging.INFO if is_plain else logging.WARNING

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}: {self.outcome}, {self.rows} rows, {self.rejects} rejected{note}"


@dataclass
class IngestReport:
    """What became of all files of an ingest, and the number of rejected rows for each reason."""

    files: list[FileReport] = field(default_factory=list)
    reject_reasons: Counter[str] = field(default_factory=Counter)

    def add(self, file: FileReport, log: logging.Logger, quiet: bool = False) -> None:
        """Add a file and log it; with `quiet`, only if there is more to say than that it was loaded."""
        self.files.append(file)
        if file.level > logging.INFO or not quiet:
            log.log(file.level, str(file))
