"""Totals as an earlier refresh left them: the ranking that stands, and what its commit tells of where it came from."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from music_assets.engines.base import Engine
from music_assets.storage.delta import DeltaStore, TableVersion
from music_assets.storage.integrity import damaged_files
from music_assets.storage.published_snapshot import INPUTS
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, USER_DATA, USER_TOP_ARTISTS
from music_assets.transforms.totals import Covered, Earlier

COVERED = "covered"
"""Key of a commit's metadata under which stands what its rows cover of history. Give it another name where totals come
to mean something else: then none is built upon that was computed by the old meaning."""


def coverage(snapshots: Mapping[str, TableVersion]) -> dict[str, Any]:
    """Return what rows computed from these snapshots, given by table name, cover of history, for a commit to carry."""
    return {
        name: {"version": snapshot.version, "rows": snapshot.rows, "until": snapshot.latest_ingest.isoformat()}
        for name, snapshot in snapshots.items()
        if snapshot.latest_ingest
    }


def earlier_totals(store: DeltaStore, engine: Engine) -> Earlier | None:
    """Return the totals in the ranking as it stands; None where it is damaged, or not known what it covers."""
    if damaged_files(store, ARTIST_RANK_IN_COUNTRY):
        return None
    snapshot = store.table_version(ARTIST_RANK_IN_COUNTRY)
    inputs = store.latest_commit_metadata(ARTIST_RANK_IN_COUNTRY, INPUTS, upto=snapshot.version)
    found = store.latest_commit_metadata(ARTIST_RANK_IN_COUNTRY, COVERED, upto=snapshot.version)
    if found is None or found.keys() != {USER_DATA.name, USER_TOP_ARTISTS.name}:
        return None
    # A version of this program that does not know the key may have computed the ranking anew since.
    if inputs != {name: each["version"] for name, each in found.items()}:
        return None
    return Earlier(
        engine.read(ARTIST_RANK_IN_COUNTRY, snapshot.files),
        {name: Covered(datetime.fromisoformat(each["until"]), each["rows"]) for name, each in found.items()},
    )
