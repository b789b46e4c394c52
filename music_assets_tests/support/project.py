"""The project over a data root of its own: real definitions, runs in this process, and files dropped by tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.engines.base import Engine
from music_assets.ingest.object_landing import open_landing
from music_assets.settings import PREFIX, Settings
from music_assets.storage.delta import DeltaStore
from music_assets.tables import REFRESH_RANKINGS, USER_DATA, USER_TOP_ARTISTS, Table

USERS = "user_id,country,total_scrobbles\n1,Germany,90\n2,France,50\n3,Germany,10\n4,,7\n"
TOP_ARTISTS = (
    "user_id,rank,artist_name,playcount,mbid\n"
    '1,1,Can,60,\n1,2,"Earth, Wind & Fire",30,\n2,1,Air,40,\n2,2,Can,10,\n3,1,Neu!,10,\n4,1,Can,7,\n'
)
RANKED_ARTISTS = [
    ("France", "Air", 40.0, 1, 1),
    ("France", "Can", 10.0, 2, 1),
    ("Germany", "Can", 60.0, 1, 1),
    ("Germany", "Earth, Wind & Fire", 30.0, 2, 1),
    ("Germany", "Neu!", 10.0, 3, 1),
]
"""artist_rank_in_country of `USERS` and `TOP_ARTISTS`, computed by hand."""


class Project:
    """Definitions over a data root, and an ephemeral Dagster instance."""

    def __init__(self, root: DataRoot | Path, engine: Engine | None = None, **settings: Any) -> None:
        self.root = root if isinstance(root, DataRoot) else DataRoot(root)
        self.settings = settings_of(self.root, **{"settle_seconds": 0, **settings})
        self.defs = build_definitions(self.settings, engine)
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.store = DeltaStore(self.root)
        self.landing = open_landing(self.root)
        self.landing.root.prepare()

    def drop(self, table: Table, text: str, name: str = "drop.csv") -> Path:
        """Write a CSV file into the table's drop folder."""
        path = self.root.drop_folder(table) / name
        self.root.write(path, text.encode())
        return path

    def drop_both(self) -> None:
        """Drop `USERS` and `TOP_ARTISTS`."""
        self.drop(USER_DATA, USERS, "users.csv")
        self.drop(USER_TOP_ARTISTS, TOP_ARTISTS, "top.csv")

    def refresh(self, tags: Mapping[str, str] | None = None) -> dg.ExecuteInProcessResult:
        """Run refresh_rankings; a failed run is returned, not raised."""
        job = self.defs.resolve_job_def(REFRESH_RANKINGS)
        return job.execute_in_process(instance=self.instance, tags=dict(tags or {}), raise_on_error=False)

    def materialize_raw(self) -> None:
        """Load the waiting files without computing anything from them."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(table.asset_key) for table in (USER_DATA, USER_TOP_ARTISTS)]
        assert job.execute_in_process(instance=self.instance, asset_selection=keys).success

    def materialize(self, *keys: str) -> dg.ExecuteInProcessResult:
        """Materialize single assets with their checks, as the web UI does."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, asset_selection=[dg.AssetKey([key]) for key in keys], raise_on_error=False
        )

    def tick(self, last_sensor_start_time: float | None = None) -> Any:
        """Evaluate csv_drop_sensor once; return its RunRequest or SkipReason. The daemon says when it started it."""
        context = dg.build_sensor_context(
            instance=self.instance,
            definitions=self.defs,
            cursor=self.cursor,
            last_sensor_start_time=last_sensor_start_time,
        )
        decision = self.defs.resolve_sensor_def("csv_drop_sensor")(context)
        self.cursor = context.cursor
        return decision

    def put(self, table: Table, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None = None) -> None:
        """Commit rows to a table without any check; columns that are not given are NULL."""
        self.put_arrow(table, pa.Table.from_pylist([dict(row) for row in rows], schema=loose_schema(table)), metadata)

    def put_arrow(self, table: Table, rows: pa.Table, metadata: Mapping[str, Any] | None = None) -> None:
        """Commit an Arrow table without any check."""
        target = self.store.new_folder(table) / "rows.parquet"
        pq.write_table(rows, target)
        if table.is_raw:
            self.store.append(table, [target], {}, metadata or {})
        else:
            self.store.replace(table, [target], metadata)


def loose_schema(table: Table) -> pa.Schema:
    """Return the table's schema with every column nullable."""
    return pa.schema([field.with_nullable(True) for field in table.schema.to_pyarrow()])


def settings_of(root: DataRoot, **settings: Any) -> Settings:
    """Return the settings of a data root, with these changes."""
    named = {name.removeprefix(PREFIX).lower(): value for name, value in root.environment.items()}
    return Settings(**{**named, **settings})
