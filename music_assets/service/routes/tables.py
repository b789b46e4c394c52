"""The tables of the newest snapshot: `/tables`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import PROBLEMS, parts_of
from music_assets.service.snapshots import published_tables
from music_assets.storage.published_snapshot import PublishedSnapshot
from music_assets.storage.sql import column_type
from music_assets.tables import Table

SAMPLE_ROWS = 5

router = APIRouter(responses=PROBLEMS, tags=["Tables"])


@router.get("/tables")
async def list_tables(request: Request) -> dict[str, Any]:
    """List the tables with row counts, and columns with types and descriptions."""
    snapshot = parts_of(request).snapshots.newest()
    tables = [describe(table, snapshot) for table in published_tables(snapshot)]
    return {"data_version": snapshot.data_version, "tables": tables}


@router.get("/tables/{name}")
async def show_table(request: Request, name: Annotated[str, Path(max_length=200)]) -> dict[str, Any]:
    """Describe one table and return some of its rows."""
    snapshot = parts_of(request).snapshots.newest()
    table = next((table for table in published_tables(snapshot) if table.full_name == name), None)
    if table is None:
        raise ProblemError("not-found", "There is no such table.")
    sample = await parts_of(request).responder.sample(request, f"SELECT * FROM {name}", SAMPLE_ROWS)
    return {"data_version": snapshot.data_version, **describe(table, snapshot), "sample": sample}


def describe(table: Table, snapshot: PublishedSnapshot) -> dict[str, Any]:
    """Return what the API says about a table of the snapshot."""
    return {
        "name": table.full_name,
        "description": table.description,
        "row_count": snapshot.tables[table.full_name].rows,
        "columns": [
            {"name": column.name, "type": column_type(kind), "description": column.description}
            for column, kind in zip(table.columns, table.schema.types, strict=True)
        ],
    }
