"""What the web UI shows of a table: its schema, where its columns come from, previews and pictures."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import ibis.expr.types as ir
import pandas as pd

from music_assets.lake.delta import Snapshot
from music_assets.lake.ingest import IngestReport
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    TABLES,
    Table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW_ROWS = 10
BARS = 12
SHOWN_FILES = 200


def table_metadata(table: Table, snapshot: Snapshot, seconds: float) -> dict[str, Any]:
    """Return what every materialization of a table shows."""
    return {
        "dagster/row_count": snapshot.rows,
        "dagster/column_schema": column_schema(table),
        "dagster/column_lineage": column_lineage(table),
        "dagster/table_name": f"music_db.{table.full_name}",
        "table version": snapshot.version,
        "size (bytes)": snapshot.size_bytes,
        "parquet files": len(snapshot.files),
        "duration (s)": round(seconds, 3),
    }


def column_schema(table: Table, prefix: str = "") -> dg.TableSchema:
    """Return the declared columns as the web UI shows them, with a prefix to their names."""
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
    """Return from which columns of which assets each column comes."""
    keys = {other.name: dg.AssetKey(other.asset_key) for other in TABLES}
    origins = {
        column.name: [origin.split(".") for origin in column.made_from] for column in table.columns if column.made_from
    }
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=keys[source], column_name=column) for source, column in columns]
            for name, columns in origins.items()
        }
    )


def music_db_schema() -> dg.TableSchema:
    """Return the columns of all tables of the published snapshot, each with its table's name before it."""
    return dg.TableSchema(
        [column for table in TABLES for column in column_schema(table, prefix=f"{table.full_name}.").columns]
    )


def music_db_lineage() -> dg.TableColumnLineage:
    """Return for the columns of the published snapshot which column of which asset each is a copy of."""
    return dg.TableColumnLineage(
        {
            f"{table.full_name}.{column.name}": [dg.TableColumnDep(dg.AssetKey(table.asset_key), column.name)]
            for table in (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES)
            for column in table.columns
        }
    )


def ingest_metadata(report: IngestReport) -> dict[str, Any]:
    """Return the table of the files taken, and the table of reject reasons."""
    files = pd.DataFrame(
        [
            {
                "name": file.name,
                "outcome": file.outcome,
                "rows": file.rows,
                "rejects": file.rejects,
                "duplicates": file.duplicates,
                "bytes": file.bytes,
                "note": file.note,
            }
            for file in report.files[:SHOWN_FILES]
        ],
        columns=["name", "outcome", "rows", "rejects", "duplicates", "bytes", "note"],
    )
    reasons = pd.DataFrame(report.reasons.most_common(), columns=["reason", "rows"])
    return {
        "files taken": markdown_table(files),
        "number of files": len(report.files),
        "rows taken": sum(file.rows for file in report.files),
        "rows rejected": sum(file.rejects for file in report.files),
        "reject reasons": markdown_table(reasons),
    }


def markdown_table(rows: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """Return the rows as a Markdown table; what stands in the cells cannot break out of them."""
    if rows.empty:
        return dg.MetadataValue.md("none")
    lines: list[Iterable[Any]] = [rows.columns, ["---"] * len(rows.columns), *rows.itertuples(index=False)]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines))


def _cell(value: Any) -> str:
    text = "NULL" if pd.isna(value) else str(value)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _describe_artists(rows: ir.Table) -> dict[str, Any]:
    countries = rows.group_by("country").agg(plays=rows["total_playcount"].sum(), artists=rows.count())
    largest = countries.order_by(countries["plays"].desc(), "country").limit(BARS).to_pandas()
    first = rows.filter(rows["rank"] == 1)
    preview = first.order_by(first["total_playcount"].desc(), "country").limit(PREVIEW_ROWS).to_pandas()
    return {
        "preview: first artist of the largest countries": markdown_table(preview),
        "largest countries": bars(largest["country"], largest["plays"], "plays by the country's users"),
    }


def _describe_countries(rows: ir.Table) -> dict[str, Any]:
    artists = rows.group_by("artist_name").agg(plays=rows["total_playcount"].sum(), countries=rows.count())
    largest = artists.order_by(artists["plays"].desc(), "artist_name").limit(BARS).to_pandas()
    first = rows.filter((rows["rank"] == 1) & rows["artist_name"].isin(largest["artist_name"].tolist()))
    preview = first.order_by(first["total_playcount"].desc(), "artist_name").limit(PREVIEW_ROWS).to_pandas()
    return {
        "preview: where the largest artists are loved most": markdown_table(preview),
        "most played artists": bars(largest["artist_name"], largest["plays"], "plays over all countries"),
    }


DESCRIPTIONS: Mapping[Table, Callable[[ir.Table], dict[str, Any]]] = {
    ARTIST_RANK_IN_COUNTRY: _describe_artists,
    COUNTRY_RANK_PER_ARTIST: _describe_countries,
}
"""For each table that has something of its own to show: rows to metadata."""


def bars(labels: pd.Series, values: pd.Series, title: str) -> dg.MarkdownMetadataValue:
    """Return a picture of horizontal bars, the first on top."""
    if labels.empty:
        return dg.MetadataValue.md("no rows")
    from matplotlib.figure import Figure  # costs half a second, which only a run that draws should pay

    figure = Figure(figsize=(6.4, 0.28 * len(labels) + 0.9), layout="tight")
    axes = figure.subplots()
    axes.barh(labels.str.slice(0, 32).str.replace("$", r"\$"), values, color="#4f43dd")
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return picture(figure, title)


def picture(figure: "Figure", title: str) -> dg.MarkdownMetadataValue:
    """Return the figure as a picture that stands in the text itself."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    encoded = base64.b64encode(content.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
