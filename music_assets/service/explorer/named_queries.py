"""Queries with a name, for the SQL console: the examples, and those that a deployment ships in a file."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from music_assets.settings import SettingsError

EXAMPLES = Path(__file__).with_name("examples.toml")


@dataclass(frozen=True)
class NamedQuery:
    """A query: its name in addresses, its title, and its SQL."""

    name: str
    title: str
    sql: str


def read_named_queries(file: Path) -> list[NamedQuery]:
    """Return the queries of a TOML file with a table for each: `[name]`, `title = "..."`, `sql = "..."`.

    Raises SettingsError if the file cannot be read, or is something else.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"MUSIC_ASSETS_NAMED_QUERIES cannot be read: {error}") from None
    except ValueError as error:
        raise SettingsError(f"MUSIC_ASSETS_NAMED_QUERIES: {file} is not TOML in UTF-8: {error}") from None
    return [_named_query(file, name, entry) for name, entry in content.items()]


def _named_query(file: Path, name: str, entry: object) -> NamedQuery:
    if not isinstance(entry, dict) or not isinstance(entry.get("sql"), str):
        raise SettingsError(f'MUSIC_ASSETS_NAMED_QUERIES: {file}: [{name}] has no sql = "SELECT ...".')
    return NamedQuery(name, str(entry.get("title", name)), entry["sql"].strip())
