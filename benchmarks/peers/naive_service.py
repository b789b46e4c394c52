"""A minimal SQL service: FastAPI and one DuckDB connection over unsorted parquet files, one for each table.

NAIVE_FOLDER=FOLDER uvicorn naive_service:app --port N

Any client can read and write any file, and ask for more than fits into memory.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import duckdb
from fastapi import Body, FastAPI

app = FastAPI()
connection = duckdb.connect()
for file in Path(os.environ["NAIVE_FOLDER"]).glob("*.parquet"):
    connection.execute(f"CREATE VIEW {file.stem} AS FROM '{file}'")


@app.post("/query")
def execute(query: Annotated[str, Body()], params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
    """Execute a statement on a cursor of its own, in a thread of FastAPI's pool."""
    cursor = connection.cursor().execute(query, params)
    return {"columns": [column[0] for column in cursor.description], "rows": cursor.fetchall()}
