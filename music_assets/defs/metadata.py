"""Metadata that materializations show in the web UI: schema, column lineage, previews, charts."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import ibis.expr.types as ir

from music_assets.ingest.landing import DroppedFile
from music_assets.ingest.report import IngestReport
from music_assets.storage.delta import TableVersion
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    CURRENT_VIEWS,
    EMBEDDING_TABLES,
    LOOKUP_TABLES,
    PUBLISHED_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    TABLES,
    Table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_ROWS = 10
BARS = 12
BAR_LENGTH = 40
"""Length of the longest bar in characters."""
SHOWN_FILES = 200


PAGES = {
    **{dg.AssetKey(key): "/pipeline" for table in RAW_TABLES for key in (table.asset_key, ["user_data", table.name])},
    **{dg.AssetKey(table.asset_key): "/explore/map" for table in EMBEDDING_TABLES},
}
"""The page of the explorer that shows an asset; for all others it is the start page."""


def with_page(service_url: str, asset: dg.AssetSpec) -> dg.AssetSpec:
    """Return the asset with a link to its page in the explorer."""
    address = service_url.rstrip("/") + PAGES.get(asset.key, "/")
    return asset.merge_attributes(metadata={"explorer": dg.MetadataValue.url(address)})


def table_metadata(table: Table, version: TableVersion, seconds: float) -> dict[str, Any]:
    """Return the metadata that all tables have in common."""
    return {
        "dagster/row_count": version.rows,
        "dagster/column_schema": column_schema(table),
        "dagster/column_lineage": column_lineage(table),
        "dagster/table_name": f"music_db.{table.full_name}",
        "table version": version.version,
        "size (bytes)": version.size_bytes,
        "parquet files": len(version.paths),
        "duration (s)": round(seconds, 3),
    }


def column_schema(table: Table, prefix: str = "") -> dg.TableSchema:
    """Return the declared columns for the web UI, with a prefix to their names."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                prefix + column.name,
                str(column.type),
                column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, unique=table.key == (column.name,)),
            )
            for column in table.columns
        ]
    )


def column_lineage(table: Table) -> dg.TableColumnLineage:
    """Return the columns of other assets that each column is computed from."""
    keys = {other.name: dg.AssetKey(other.asset_key) for other in TABLES}
    origins = {column.name: [origin.split(".") for origin in column.derived_from] for column in table.columns}
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=keys[source], column_name=column) for source, column in columns]
            for name, columns in origins.items()
            if columns
        }
    )


def music_db_schema() -> dg.TableSchema:
    """Return the columns of all tables of the published snapshot, each as `table.column`."""
    return dg.TableSchema(
        [column for table in PUBLISHED_TABLES for column in column_schema(table, prefix=f"{table.full_name}.").columns]
    )


def music_db_lineage() -> dg.TableColumnLineage:
    """Return for each column of the published snapshot the columns of the assets that it comes from."""
    origins = {table: table for table in (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES)} | CURRENT_VIEWS
    copied = {
        f"{table.full_name}.{column.name}": [dg.TableColumnDep(dg.AssetKey(origin.asset_key), column.name)]
        for table, origin in origins.items()
        for column in table.columns
    }
    derived = {
        f"{table.full_name}.{name}": columns
        for table in LOOKUP_TABLES
        for name, columns in column_lineage(table).deps_by_column.items()
    }
    return dg.TableColumnLineage(copied | derived)


def ingest_metadata(report: IngestReport) -> dict[str, Any]:
    """Return the loaded files and the reject reasons, as tables."""
    files = [asdict(file) for file in report.files[:SHOWN_FILES]]
    reasons = [{"reason": reason, "rows": rows} for reason, rows in report.reject_reasons.most_common()]
    return {
        "files loaded": markdown_table(files),
        "number of files": len(report.files),
        "rows loaded": sum(file.rows for file in report.files),
        "rows rejected": sum(file.rejects for file in report.files),
        "reject reasons": markdown_table(reasons),
    }


def waiting_metadata(files: Sequence[DroppedFile]) -> dict[str, Any]:
    """Return what an observation of a drop folder says about the files that wait there."""
    shown = [{"file": file.name, "size (bytes)": file.size} for file in files[:SHOWN_FILES]]
    return {
        "waiting files": len(files),
        "size (bytes)": sum(file.size for file in files),
        "files": markdown_table(shown),
    }


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Return the rows, all with the same columns, as a Markdown table with escaped cells."""
    if not rows:
        return dg.MetadataValue.md("none")
    lines: list[Iterable[Any]] = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines))


def _cell(value: Any) -> str:
    text = "NULL" if value is None else str(value)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _describe_artists(rows: ir.Table) -> dict[str, Any]:
    countries = rows.group_by("country").agg(plays=rows["total_playcount"].sum())
    first = rows.filter(rows["rank"] == 1)
    return {
        "preview: top artist of the largest countries": markdown_table(
            _read(first.order_by(first["total_playcount"].desc(), "country").limit(PREVIEW_ROWS))
        ),
        "largest countries": bars(_read(countries.order_by(countries["plays"].desc(), "country").limit(BARS)), "plays"),
    }


def _describe_countries(rows: ir.Table) -> dict[str, Any]:
    artists = rows.group_by("artist_name").agg(plays=rows["total_playcount"].sum())
    largest = _read(artists.order_by(artists["plays"].desc(), "artist_name").limit(BARS))
    first = rows.filter((rows["rank"] == 1) & rows["artist_name"].isin([artist["artist_name"] for artist in largest]))
    return {
        "preview: top country of the most played artists": markdown_table(
            _read(first.order_by(first["total_playcount"].desc(), "artist_name").limit(PREVIEW_ROWS))
        ),
        "most played artists": bars(largest, "plays"),
    }


def _read(rows: ir.Table) -> list[dict[str, Any]]:
    return rows.to_pyarrow().to_pylist()


DESCRIPTIONS: Mapping[Table, Callable[[ir.Table], dict[str, Any]]] = {
    ARTIST_RANK_IN_COUNTRY: _describe_artists,
    COUNTRY_RANK_PER_ARTIST: _describe_countries,
}
"""Functions from the rows of a table to metadata that only this table has."""


def bars(rows: Sequence[Mapping[str, Any]], measure: str) -> dg.MarkdownMetadataValue:
    """Return the rows, sorted by the measure, largest first, as a table with a horizontal bar for it.

    The bars are text because every refresh draws them: importing matplotlib takes longer than ranking a small drop.
    """
    unit = max(rows[0][measure], 1) / BAR_LENGTH if rows else 1
    return markdown_table(
        [{**row, measure: f"{row[measure]:,.0f}", "": "█" * round(row[measure] / unit)} for row in rows]
    )


def picture(figure: "Figure", title: str) -> dg.MarkdownMetadataValue:
    """Return the figure as an image embedded in Markdown."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    encoded = base64.b64encode(content.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
