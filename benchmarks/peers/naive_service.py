"""SQL over HTTP as it is written in an afternoon: FastAPI, one DuckDB, parquet as a window function left it.

    NAIVE_FOLDER=FOLDER uvicorn naive_service:app --port N

FOLDER holds a parquet file for each table, not sorted by anything. Nobody is kept from reading any file, from writing
one, or from asking for more than fits into memory.
"""

import os
from pathlib import Path
from typing import Any

import duckdb
from fastapi import FastAPI
from pydantic import BaseModel

FOLDER = Path(os.environ["NAIVE_FOLDER"])

app = FastAPI()
connection = duckdb.connect()
for file in FOLDER.glob("*.parquet"):
    connection.execute(f"CREATE VIEW {file.stem} AS FROM '{file}'")


class Body(BaseModel):
    """A statement and the values of its parameters."""

    query: str
    params: dict[str, Any] = {}


@app.post("/query")
def query(body: Body) -> dict[str, Any]:
    """Run the statement, in a thread of FastAPI's, on a cursor of its own."""
    cursor = connection.cursor().execute(body.query, body.params)
    return {"columns": [column[0] for column in cursor.description], "rows": cursor.fetchall()}
