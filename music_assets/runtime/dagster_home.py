"""The DAGSTER_HOME of a data root, and the configuration files of Dagster that come with the package."""

from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from music_assets.data_root import DataRoot, durable_write
from music_assets.settings import PREFIX, ForeignVariables, settings

INSTANCE_FILE = Path(__file__).with_name("dagster.yaml")
EXPORT_HOME = 'Set it with: export DAGSTER_HOME="$(music-assets home)"'
WORKSPACE_FILE = Path(__file__).with_name("workspace.yaml")
"""In the repository a symbolic link to the top-level file, which `dagster dev` reads there; in a wheel a copy."""
POSTGRES_STORAGE = f"""
storage:
  postgres:
    postgres_url: {{env: {PREFIX}POSTGRES_URL}}
"""
CONNECT_SECONDS = 10


class DatabaseError(Exception):
    """The database of the run history cannot be used."""


def find_dagster_home(root: DataRoot) -> Path:
    """Return the folder that DAGSTER_HOME names, unless it is that of another data root, or else the root's own.

    It need not exist.
    """
    named = ForeignVariables().dagster_home
    return root.dagster_home if named is None or foreign_home(root) else named


def foreign_home(root: DataRoot) -> Path | None:
    """Return the folder that DAGSTER_HOME names if it is that of another data root, else None."""
    named, own = ForeignVariables().dagster_home, root.dagster_home
    return named if named and named.name == own.name and named.resolve() != own.resolve() else None


def prepare_dagster_home(root: DataRoot) -> Path:
    """Create the DAGSTER_HOME of a data root with the project's dagster.yaml, and return it.

    A dagster.yaml in another folder that the variable DAGSTER_HOME names is not overwritten. Raises LayoutError, and
    DatabaseError if the run history is in PostgreSQL, and the server cannot be reached.
    """
    if not root.store:  # else the home is not in the data root, and the web UI and the daemon may not read that
        root.check_layout()
    check_database()
    folder = find_dagster_home(root)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / INSTANCE_FILE.name
    if folder.resolve() == root.dagster_home.resolve() or not target.exists():
        with durable_write(target) as file:  # another process may be reading it
            file.write(instance_configuration().encode())
    return folder


def instance_configuration() -> str:
    """Return the content of dagster.yaml. The URL of the database is not in it, since it contains a password."""
    return INSTANCE_FILE.read_text(encoding="utf-8") + (POSTGRES_STORAGE if settings().postgres_url else "")


def check_database() -> None:
    """Raise DatabaseError if the settings name a PostgreSQL database that does not accept connections."""
    url = settings().postgres_url
    if url is None:
        return
    try:
        sqlalchemy.create_engine(str(url), connect_args={"connect_timeout": CONNECT_SECONDS}).connect().close()
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"PostgreSQL does not accept connections: {reason(error)}. Start the server, or correct "
            f"{PREFIX}POSTGRES_URL."
        ) from None


def reason(error: SQLAlchemyError) -> str:
    """Return what the database said, on one line."""
    return " ".join(str(getattr(error, "orig", error)).split())
