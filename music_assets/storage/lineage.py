"""What a commit records about the origin of its rows: the metadata keys and their values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from music_assets.storage.delta import DeltaStore, TableVersion
from music_assets.tables import Table
from music_assets.transforms.totals import Coverage

FILES = "files"
"""The CSV files whose rows a commit added, as a list of objects with `name`, `rows`, `content_hash`, `ingested_at` …"""
REMOVED = "removed"
"""What a commit removed on request, as an object: the number of `rows`, `by` whom, when (`at`), and which `drops`."""
INPUTS = "inputs"
"""The versions of the tables that the rows were computed from, by table name."""
COVERED = "covered_with_listeners"
"""The part of each input's history that the rows cover. Rename the key when the meaning of totals changes, so that
no refresh continues from totals of the old meaning."""
UNRANKED = "unranked_plays"
"""What `unranked_plays` counts in the inputs of a ranking."""


def inputs_of(read: Mapping[str, TableVersion]) -> dict[str, Any]:
    """Return the commit metadata of rows that were computed from these versions, given by table name."""
    return {
        INPUTS: {name: version.version for name, version in read.items()},
        COVERED: {
            name: {"version": version.version, "rows": version.rows, "until": version.latest_ingest.isoformat()}
            for name, version in read.items()
            if version.latest_ingest
        },
    }


def coverage_of(covered: Mapping[str, Mapping[str, Any]]) -> dict[str, Coverage]:
    """Return by table name what rows cover, from the value of COVERED."""
    return {name: Coverage(datetime.fromisoformat(each["until"]), each["rows"]) for name, each in covered.items()}


def removed_rows(store: DeltaStore, table: Table, since: int = -1) -> int:
    """Return the number of rows that were removed on request after a version of the table."""
    return sum(removed["rows"] for removed in store.commit_metadata(table, REMOVED, since))
