"""The examples of README and docs/queries.md run as they are, and the lists of that page are complete."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from music_assets.service.problems import KINDS
from music_assets.tables import PUBLISHED_TABLES
from music_assets_tests.service.conftest import Dataset, Service
from music_assets_tests.support.processes import REPOSITORY

README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "docs" / "queries.md"
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def curls() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl")]


def run(line: str, service: Service, folder: Path) -> str:
    command = ["bash", "-c", line.replace(ADDRESS, service.url)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def in_order(dataset: Dataset, column: str, value: str) -> pd.DataFrame:
    """Return the ranking of a country, or of an artist."""
    rank = {"country": "rank_in_country", "artist_name": "rank_for_artist"}[column]
    return dataset.rankings[dataset.rankings[column] == value].sort_values(rank)


def test_curl_examples(service: Service, dataset: Dataset, tmp_path: Path) -> None:
    in_json, ndjson, csv, arrow, parquet = (run(line, service, tmp_path) for line in curls())
    germany = in_order(dataset, "country", "Germany")
    assert [row[0] for row in json.loads(in_json)["rows"]] == list(in_order(dataset, "artist_name", "Drake").country)
    assert [json.loads(line)["artist_name"] for line in ndjson.splitlines()] == list(germany.artist_name[:3])
    assert csv.splitlines()[0] == '"rank","artist_name","total_playcount","listeners"'
    assert len(csv.splitlines()) == 4
    assert arrow == parquet == ""
    assert pa.ipc.open_stream(tmp_path / "artists.arrows").read_all().num_rows == len(germany)
    assert pq.read_table(tmp_path / "ranks.parquet").num_rows == len(dataset.rankings)


def test_curl_examples_of_the_readme(service: Service, dataset: Dataset, tmp_path: Path) -> None:
    commands = README.read_text(encoding="utf-8").partition("\ncurl ")[2].partition("```")[0]
    answers = run(f"curl {commands}", service, tmp_path).replace("}{", "}\n{").splitlines()
    artists, countries = (json.loads(answer)["rows"] for answer in answers)
    assert [row[1] for row in artists] == list(in_order(dataset, "country", "Germany").artist_name[:10])
    assert [row[0] for row in countries] == list(in_order(dataset, "artist_name", "Drake").country[:10])


def test_pandas_and_polars_examples(service: Service, dataset: Dataset) -> None:
    (code,) = blocks("python")
    found: dict[str, Any] = {}
    exec(compile(code.replace(ADDRESS, service.url), "docs/queries.md", "exec"), found)
    expected = sorted(dataset.rankings.total_playcount)
    for name in ("in_pandas", "in_pandas_by_arrow", "in_polars"):
        assert sorted(found[name]["total_playcount"]) == expected


def test_every_status_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("**Errors**")[2].partition("## ")[0]
    assert {str(kind.status) for kind in KINDS.values()} - {"500"} <= set(re.findall(r"\b\d{3}\b", page))


def test_every_table_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for table in PUBLISHED_TABLES:
        assert f"| `{table.full_name}` | {table.description} |" in page


def test_every_endpoint_is_described(service: Service) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in service.http.get("/openapi.json").json()["paths"]:
        assert path in page
