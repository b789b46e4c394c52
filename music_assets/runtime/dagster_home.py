"""The DAGSTER_HOME of a data root, and the configuration files of Dagster that come with the package."""

import shutil
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.settings import ForeignVariables

INSTANCE_FILE = Path(__file__).with_name("dagster.yaml")
EXPORT_HOME = 'Set it with: export DAGSTER_HOME="$(music-assets home)"'
WORKSPACE_FILE = Path(__file__).with_name("workspace.yaml")
"""In the repository a symbolic link to the top-level file, which `dagster dev` reads there; in a wheel a copy."""


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

    A dagster.yaml in a folder that the variable DAGSTER_HOME names is not overwritten.
    """
    folder = find_dagster_home(root)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / INSTANCE_FILE.name
    if ForeignVariables().dagster_home is None or foreign_home(root) or not target.exists():
        shutil.copyfile(INSTANCE_FILE, target)
    return folder
