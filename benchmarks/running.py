"""What every case has in common: its setting, and contestants that take their turns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Protocol, TypeVar

from benchmarks.results import Measurement, Session


class Entrant(Protocol):
    """Somebody who takes part in a case."""

    @property
    def name(self) -> str:
        """Its name in the results."""
        ...

    @property
    def needs(self) -> Sequence[str]:
        """The modules and programs without which it cannot take part."""
        ...


Taker = TypeVar("Taker", bound=Entrant)


@dataclass
class Setting:
    """How a case is run: with how many users and rounds, in which folder, by whom (empty: everybody)."""

    users: int
    rounds: int
    work: Path
    only: Sequence[str] = ()
    seconds: float = 5.0
    """Length of each measurement under load."""
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    made: dict[Path, int] = field(default_factory=dict)
    """Folders that cases of this process made for each other, with the number of users in them."""

    def present(self, entrants: Sequence[Taker]) -> list[Taker]:
        """Return who takes part; who cannot is noted with what is missing."""
        chosen = [one for one in entrants if not self.only or one.name in self.only]
        for one in chosen:
            if missing := [need for need in one.needs if not (which(need) or find_spec(need))]:
                self.skipped[one.name] = f"{', '.join(missing)} is not installed"
                print(f"skipped: {one.name} ({self.skipped[one.name]})", flush=True)
        return [one for one in chosen if one.name not in self.skipped]

    def in_turn(self, entrants: Sequence[Taker]) -> Iterator[tuple[int, Taker]]:
        """Yield round and contestant: everybody in the first round, everybody in the second ..."""
        for number in range(1, self.rounds + 1):
            for one in entrants:
                yield number, one


@dataclass(frozen=True)
class Case:
    """A case: its name, its title, what it measures in words, and the function that runs it.

    With more than `most_users` it runs only where it is named.
    """

    name: str
    title: str
    description: str
    run: Callable[[Setting], Iterator[Measurement]]
    most_users: int | None = None


def line(session: Session, one: Measurement) -> str:
    """Return a measurement in words."""
    figures = "  ".join(f"{name} {value:,.4g}" for name, value in one.figures.items())
    return f"{session.case}  {one.variant or '-'}  round {one.round}  {one.contestant}: {figures}"
