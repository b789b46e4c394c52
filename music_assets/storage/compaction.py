"""Compaction: rewrites the small parquet files of a Delta table as few large ones."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from music_assets.storage.delta import DeltaStore
from music_assets.storage.parquet import COMPRESSION, COMPRESSION_LEVEL, ROW_GROUP_ROWS
from music_assets.tables import Table

MAX_SMALL_FILES = 16
FULL_ROWS = 4_000_000
"""Files of at least this many rows, about 100 MB of user_top_artists, are never rewritten."""


def compact(store: DeltaStore, table: Table, full_rows: int = FULL_ROWS) -> bool:
    """Merge the small files of the table in one transaction if there are too many; return whether it did.

    Rows stay in the order of arrival. The old files remain readable until they are vacuumed. Raises
    ConcurrentCommitError if another process removed one of them meanwhile.
    """
    delta = store.open(table)
    if delta is None:
        return False
    adds = pa.table(delta.get_add_actions(flatten=True)).sort_by("modification_time").to_pylist()
    small = [add for add in adds if add["num_records"] < full_rows]
    if len(small) <= MAX_SMALL_FILES:
        return False
    sources = store.local_paths(table, small)
    store.rewrite(table, delta, write_merged(sources, table, store.new_folder(table), full_rows), small)
    return True


def write_merged(
    sources: Sequence[Path],
    table: Table,
    folder: Path,
    full_rows: int = FULL_ROWS,
    keep: "pc.Expression | None" = None,
) -> list[Path]:
    """Write the rows of the files, in order, into as few files as possible, with a few row groups in memory.

    `keep` selects the rows to write, by default all.
    """
    import pyarrow.dataset as ds  # loads pandas, and few runs compact

    schema = pa.schema([field.with_nullable(True) for field in table.schema.to_pyarrow()])
    row_group = min(ROW_GROUP_ROWS, full_rows)
    scanner = ds.dataset([str(file) for file in sources], schema=schema, format="parquet").scanner(
        filter=keep, batch_size=row_group, batch_readahead=1, fragment_readahead=1
    )
    ds.write_dataset(
        scanner,
        folder,
        format="parquet",
        file_options=ds.ParquetFileFormat().make_write_options(
            compression=COMPRESSION, compression_level=COMPRESSION_LEVEL
        ),
        basename_template="rows-{i}.parquet",
        min_rows_per_group=row_group,
        max_rows_per_group=row_group,
        max_rows_per_file=full_rows,
        preserve_order=True,
        existing_data_behavior="error",
    )
    return sorted(folder.iterdir())
