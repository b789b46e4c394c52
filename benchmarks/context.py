"""What every case receives: its options, working folders, the contestants in turn, and the comparison of results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree, which
from typing import Any, TypeVar


class DifferentResultsError(Exception):
    """Two contestants have different results, so their times must not be compared."""


@dataclass(frozen=True)
class Entrant:
    """A participant of a case: its name in the results, and the modules and programs it needs."""

    name: str
    needs: Sequence[str] = ()


Participant = TypeVar("Participant", bound=Entrant)


@dataclass(frozen=True)
class Context:
    """Options of a case (`only`: chosen contestants; `seconds`: of each measurement under load), and its findings."""

    users: int
    rounds: int
    work: Path
    only: Sequence[str] = ()
    seconds: float = 5.0
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    _results: dict[str, tuple[str, Any]] = field(default_factory=dict)

    def turns(self, entrants: Sequence[Participant]) -> Iterator[tuple[int, Participant]]:
        """Yield round and entrant, interleaved: every available entrant in round 1, then in round 2, and so on.

        Entrants that are not installed are skipped, which is recorded.
        """
        chosen = [one for one in entrants if not self.only or one.name in self.only]
        for one in chosen:
            if missing := [need for need in one.needs if not (which(need) or find_spec(need))]:
                self.skipped[one.name] = f"{', '.join(missing)} is not installed"
                print(f"skipped: {one.name} ({self.skipped[one.name]})", flush=True)
        available = [one for one in chosen if one.name not in self.skipped]
        yield from ((number, one) for number in range(1, self.rounds + 1) for one in available)

    def compare(self, name: str, result: Any, subject: str = "the tables") -> None:
        """Compare a result with that of the first contestant on the same subject. Raises DifferentResultsError."""
        first, expected = self._results.setdefault(subject, (name, result))
        if result != expected:
            raise DifferentResultsError(f"{name} and {first} differ in {subject}:\n{result}\n{expected}")


def empty_folder(work: Path, purpose: str, name: str) -> Path:
    """Create an empty folder in the working folder."""
    folder = work / purpose / name.replace(" ", "-").lower()
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
