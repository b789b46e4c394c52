"""The countries of an artist from memory, compared with what a worker answers to the same query."""

import io
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.data_root import DataRoot
from music_assets.service.ready_made_queries import COUNTRIES_OF_ARTIST
from music_assets.storage.delta import DeltaStore
from music_assets_tests.service.conftest import Service, make_dataset, publish_tables, serving, write_rankings

CASES = [
    ("Drake", 1, 2, 1), ("Drake", 2, 3, 0), ("drakes", 1, 100, 0), ('"Weird Al" Yankovic', 3, 10, 0),
    ("相対性理論", 1, 1, 0), ("Artist 00", 1, 100, 0), ("Drake", 1, 10, 10**9), ("Drake", 2**31, 10, 0),
    ("Drak", 1, 10, 0), ("Drake\0", 1, 10, 0), ("", 1, 10, 0), ("\U0010ffff", 1, 10, 0),
]  # fmt: skip
"""Artist, least listeners, limit, offset."""
OWN_HEADERS = {"x-query-id", "x-request-id", "etag", "link", "date", "content-length"}
FORMATS: list[dict[str, Any]] = [{"format": name} for name in ("json", "ndjson", "csv", "arrow", "parquet")]


def ask(service: Service, artist: str, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
    return service.http.get("/artists/countries", params={"artist": artist, **params}, headers=headers)


def wait_until_loaded(service: Service) -> None:
    """Wait until answers come from memory: each has its own query id, which a repeated query has not."""
    deadline = time.monotonic() + 60
    while len({ask(service, "Drake").headers["x-query-id"] for _ in range(2)}) == 1:
        assert time.monotonic() < deadline


def content(response: httpx.Response) -> Any:
    """Return the result without what differs in each answer."""
    assert response.status_code == 200, response.text
    if response.headers["content-type"].endswith("parquet"):
        return pq.read_table(io.BytesIO(response.content))
    if response.headers["content-type"].endswith("stream"):
        return pa.ipc.open_stream(response.content).read_all()
    return re.sub(r'"query_id":"\w+","elapsed_ms":[\d.]+', "", response.text)


@pytest.mark.parametrize("form", [*FORMATS, {"csv": "spreadsheet"}], ids=lambda form: "-".join(form.values()))
def test_the_same_as_in_sql(service: Service, form: dict[str, str]) -> None:
    wait_until_loaded(service)
    for artist, min_listeners, limit, offset in CASES:
        bounds = {"min_listeners": min_listeners, "offset": offset}
        found = ask(service, artist, **bounds, limit=limit, **form)
        params = {"artist": artist, **bounds, "limit": limit + 1}
        query = {"query": COUNTRIES_OF_ARTIST, "params": params, "limit": limit}
        asked = service.http.post("/query", params=form, json=query)
        assert content(found) == content(asked)
        for name in asked.headers.keys() - OWN_HEADERS:
            assert found.headers[name] == asked.headers[name]
        assert ("next" in found.links) == (asked.headers["x-truncated"] == "true")


def test_pages_and_copies_of_the_client(service: Service) -> None:
    wait_until_loaded(service)
    first = ask(service, "Drake", limit=2)
    second = service.http.get(first.links["next"]["url"])
    rows = ask(service, "Drake").json()["rows"]
    assert first.json()["rows"] + second.json()["rows"] == rows[:4]
    copy = {"If-None-Match": f'"x", {first.headers["etag"]}'}
    assert ask(service, "Drake", copy, limit=2).status_code == 304
    for other in ({"limit": 3}, {"limit": 2, "offset": 1}, {"limit": 2, "format": "csv"}):
        assert ask(service, "Drake", copy, **other).status_code == 200
    assert ask(service, "Drake", {**copy, "Accept": "text/csv"}, limit=2).status_code == 200
    assert ask(service, "Drake", {"Accept": "image/png"}).status_code == 406


def test_each_answer_is_from_the_newest_snapshot(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with serving(tmp_path, query_workers=1, row_limit=1) as service:
        wait_until_loaded(service)
        old = ask(service, "Drake")
        assert (old.json()["row_count"], old.headers["x-truncated"]) == (1, "true")
        assert "offset=1&limit=100" in old.links["next"]["url"]
        write_rankings(DeltaStore(DataRoot(tmp_path)), dataset.rankings[dataset.rankings.artist_name != "Drake"])
        published = publish_tables(tmp_path)
        for _ in range(2):  # by a worker, then from memory
            new = ask(service, "Drake", {"If-None-Match": old.headers["etag"]}).json()
            assert (new["rows"], new["data_version"]) == ([], published.data_version)
            wait_until_loaded(service)
        write_rankings(DeltaStore(DataRoot(tmp_path)), dataset.rankings[:0])
        publish_tables(tmp_path)
        assert [ask(service, "AC/DC").json()["rows"] for _ in range(9)] == [[]] * 9
