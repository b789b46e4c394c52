"""The endpoints, compared with results that pandas computes from the same rows."""

import re
from pathlib import Path
from urllib.parse import quote

import httpx
import pandas as pd
import pyarrow as pa
import pytest

from music_assets.data_root import DataRoot
from music_assets.storage.delta import DeltaStore
from music_assets.tables import PUBLISHED_TABLES
from music_assets_tests.service.conftest import (
    ARTISTS,
    Dataset,
    Service,
    make_dataset,
    publish_tables,
    serving,
    write_rankings,
)

OLD_QUERIES = [
    "SELECT * FROM raw_parquet_user_top_artists WHERE artist_name = 'Drake' LIMIT 5",
    "SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = 'Drake' ORDER BY rank LIMIT 10",
    "SELECT artist_name FROM processed_parquet_artist_rank_in_country WHERE country = 'Germany' ORDER BY rank LIMIT 10",
]


@pytest.mark.parametrize("end", ["", ";"])
@pytest.mark.parametrize("catalog", ["", "music_db."])
@pytest.mark.parametrize("old", OLD_QUERIES)
def test_queries_of_the_old_system(service: Service, dataset: Dataset, old: str, catalog: str, end: str) -> None:
    sql = old.replace("FROM ", f"FROM {catalog}") + end
    rows = service.rows(sql)
    objects = service.http.post("/ApiQueryHandler", json={"query": sql}).json()
    assert [list(one.values()) for one in objects] == rows
    if "country_rank" in sql:
        drake = dataset.rankings[dataset.rankings.artist_name == "Drake"].sort_values("rank_for_artist")
        assert [row[0] for row in rows] == list(drake.country)
    elif "artist_rank" in sql:
        germany = dataset.rankings[dataset.rankings.country == "Germany"].sort_values("rank_in_country")
        assert [row[0] for row in rows] == list(germany.artist_name[:10])
    else:
        assert len(rows) == 5
        assert {row[2] for row in rows} == {"Drake"}


def test_json_result_describes_itself(service: Service, dataset: Dataset) -> None:
    response = service.query("SELECT user_id, country FROM raw_parquet_user_data ORDER BY ALL", limit=7)
    answer = response.json()
    assert answer["columns"] == [{"name": "user_id", "type": "INTEGER"}, {"name": "country", "type": "VARCHAR"}]
    assert len(answer["rows"]) == answer["row_count"] == 7
    assert answer["truncated"] is True
    assert answer["data_version"] == dataset.published.data_version
    assert answer["query_id"] == response.headers["x-query-id"]
    assert answer["elapsed_ms"] > 0
    assert response.headers["x-truncated"] == "true"


def test_service_row_limit_caps_the_request_limit(dataset: Dataset) -> None:
    with serving(dataset.root, row_limit=3, query_workers=1) as service:
        for limit in (None, 2**53):
            answer = service.query("SELECT * FROM range(10)", limit=limit).json()
            assert (answer["rows"], answer["truncated"]) == ([[0], [1], [2]], True)
        assert service.query("SELECT * FROM range(3)").json()["truncated"] is False


@pytest.mark.parametrize(
    ("sql", "params", "rows"),
    [
        ("SELECT ? + 1, $2", [1, "a"], [[2, "a"]]),
        ("SELECT $name, $flag", {"name": "o'Hara", "flag": True}, [["o'Hara", True]]),
        ("SELECT ?::BIGINT", [2**62], [[str(2**62)]]),
        ("SELECT ?, ?", [None, 0.5], [[None, 0.5]]),
    ],
)
def test_parameters(service: Service, sql: str, params: object, rows: object) -> None:
    assert service.rows(sql, params=params) == rows


@pytest.mark.parametrize(
    ("sql", "params"), [("SELECT ?", None), ("SELECT ?", [1, 2]), ("SELECT $a", {"b": 1}), ("SELECT 1", [1])]
)
def test_mismatched_parameters_are_sql_errors(service: Service, sql: str, params: object) -> None:
    response = service.query(sql, params=params)
    assert response.status_code == 400
    assert response.json()["type"].endswith(":sql")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS x FROM a) SELECT * FROM b",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 2 ORDER BY 1",
        "PIVOT processed_parquet_artist_rank_in_country ON country IN ('Germany', 'Japan') "
        "USING sum(total_playcount) GROUP BY artist_name",
        "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
        "EXPLAIN SELECT count(*) FROM raw_parquet_user_data",
        "DESCRIBE raw_parquet_user_data",
        "SUMMARIZE raw_parquet_user_data",
        "SHOW TABLES",
        "FROM rejected_rows",
        "SELECT * FROM raw_parquet_user_data USING SAMPLE 5 ROWS",
        "SELECT rank() OVER (PARTITION BY country ORDER BY rank) FROM processed_parquet_artist_rank_in_country",
        "SELECT list_transform([1, 2], lambda x: x * 2), [x for x in [1, 2] if x > 1]",
        "SELECT u.user_id FROM raw_parquet_user_data u JOIN raw_parquet_user_top_artists t USING (user_id) LIMIT 1",
        "SELECT current_date, now(), random()",
        "VALUES (1), (2)",
        "-- a comment\nSELECT /* another */ 1",
        "SELECT CASE WHEN 1 IN (1, 2) THEN 'a' END, EXISTS (SELECT 1), try_cast('x' AS INTEGER), 'a' COLLATE nocase",
    ],
)
def test_allowed_sql(service: Service, sql: str) -> None:
    assert service.rows(sql)


def test_explain_reveals_no_paths(service: Service, dataset: Dataset) -> None:
    plan = service.query("EXPLAIN SELECT * FROM raw_parquet_user_top_artists WHERE rank = 1").text
    assert str(dataset.root) not in plan
    assert "part-" not in plan


@pytest.mark.parametrize(
    ("sql", "line", "column"),
    [
        ("SELECT * FORM raw_parquet_user_data", 1, 15),
        ("SELECT\n  nope FROM raw_parquet_user_data", 2, 3),
        ("SELECT 'é', lower(1, 2)", 1, 13),
        ("SELECT * FROM raw_parquet_user_dat", 1, 15),
        ("SELECT 1, getenv('HOME')", 1, 11),
        ("SELECT CASE WHEN i = 50000 THEN 'x' ELSE '1' END::INTEGER FROM range(100000) t(i)", 1, 49),
    ],
)
def test_sql_errors_have_a_position(service: Service, sql: str, line: int, column: int) -> None:
    problem = service.query(sql).json()
    assert (problem["position"]["line"], problem["position"]["column"]) == (line, column)
    assert problem["advice"]


def test_unknown_table_suggests_the_closest_name(service: Service) -> None:
    assert "raw_parquet_user_data" in service.query("SELECT * FROM raw_parquet_user_dat").json()["detail"]


def test_etag(service: Service) -> None:
    ask = {"query": "SELECT count(*) FROM raw_parquet_user_data"}
    first = service.http.post("/query", json=ask)
    again = service.http.post("/query", json=ask, headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    for other in ({"limit": 1}, {"params": []}, {"query": "SELECT count(*) + 1 FROM raw_parquet_user_data"}):
        response = service.http.post("/query", json=ask | other, headers={"If-None-Match": first.headers["etag"]})
        assert response.status_code == 200
    csv = service.http.post("/query?format=csv", json=ask, headers={"If-None-Match": first.headers["etag"]})
    assert csv.status_code == 200


@pytest.mark.parametrize(
    "sql", ["SELECT random()", "SELECT now()", "SELECT current_date", "FROM range(9) USING SAMPLE 2"]
)
def test_volatile_results_have_no_etag(service: Service, sql: str) -> None:
    response = service.query(sql)
    assert "etag" not in response.headers
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_repeated_query_is_not_run_again(service: Service, form: str) -> None:
    sql = f"SELECT count(*) AS {form} FROM current_user_data"
    first, second = (service.query(sql, form) for _ in range(2))
    assert second.headers["x-query-id"] == first.headers["x-query-id"]
    assert second.content == first.content
    for large in (f"SELECT repeat('x', 40000) AS {form}", f"SELECT 1 AS {form} -- {'x' * 40000}"):
        assert len({service.query(large, form).headers["x-query-id"] for _ in range(2)}) == 2


def test_result_cache_distinguishes_parameters_and_limits(service: Service) -> None:
    for _ in range(5):
        assert service.rows("SELECT ?", params=[1]) == [[1]]
        assert service.rows("SELECT ?", params=["1"]) == [["1"]]
        assert service.rows("SELECT ?", params=[1.0]) == [[1.0]]
        assert service.rows("SELECT ?", params=[True]) == [[True]]
        assert service.rows("FROM range(3)", limit=2) == [[0], [1]]
        assert service.rows("FROM range(3)", limit=3) == [[0], [1], [2]]
    drawn = {service.rows("SELECT random()")[0][0] for _ in range(20)}
    assert len(drawn) == 20


def test_statement_with_other_parameters_than_before(service: Service) -> None:
    """A statement is read row by row once it had a small result; the second form is another statement."""
    sql = """SELECT i::INTEGER AS i, i * $a AS scaled, 'x' || i AS t, i % 2 = 0 AS even, nullif(i, 1) AS n,
        CASE i WHEN 0 THEN 'NaN' WHEN 1 THEN '-inf' ELSE '0.1' END::DOUBLE AS d, i::FLOAT / 10 AS f
        FROM range($rows) r(i)"""
    for rows, scale in ((2, 1), (3, 2**50), (3, 1.5), (0, 1), (25_000, 7), (2, 2)):
        params = {"rows": rows, "a": scale}
        repeated, first = (service.query(f"{text}{sql}", params=params).json() for text in ("", f"/* {params} */"))
        assert repeated["columns"] == first["columns"]
        assert repeated["rows"] == first["rows"]
        repeated, first = (
            pa.ipc.open_stream(service.query(f"{text}{sql}", "arrow", params=params).content).read_all()
            for text in ("/* arrow */", f"/* arrow {params} */")
        )
        assert repeated.schema == first.schema
        assert repeated.to_pandas().equals(first.to_pandas())
    assert "boom" in service.query("SELECT CASE $a WHEN 1 THEN error('boom') END", params={"a": 1}).text


@pytest.mark.parametrize(
    ("table", "column", "late"),
    [
        ("raw_parquet_user_top_artists", "playcount", True),
        ("world_artists", "listeners", False),
    ],
)
def test_first_rows_of_views_are_found_before_their_other_columns_are_read(
    service: Service, table: str, column: str, late: bool
) -> None:
    for _ in range(3):  # more often than there are workers
        plan = service.rows(f"EXPLAIN SELECT * FROM {table} ORDER BY {column} DESC LIMIT 5")
        assert ("SEMI" in str(plan)) == late


def test_countries(service: Service, dataset: Dataset) -> None:
    answer = service.http.get("/countries").json()
    groups = dataset.rankings.groupby("country")
    expected = sorted((country, len(rows), rows.total_playcount.sum()) for country, rows in groups)
    assert [tuple(row) for row in answer["rows"]] == expected


def test_artists_of_country_in_pages(service: Service, dataset: Dataset) -> None:
    for country in dataset.rankings.country.unique():
        expected = dataset.rankings[dataset.rankings.country == country].sort_values("rank_in_country")
        path: str | None = f"/countries/{quote(country)}/artists?limit=10"
        rows: list[list[object]] = []
        while path:
            response = service.http.get(path)
            rows += response.json()["rows"]
            link = re.fullmatch(r'<(.*)>; rel="next"', response.headers.get("link", ""))
            path = link[1] if link else None
        assert [row[1] for row in rows] == list(expected.artist_name)
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(("asked", "suggested"), [("germany", ["Germany"]), ("Germnay", ["Germany"]), ("Xyzzy", None)])
def test_unknown_country_is_not_found_and_similar_names_are_suggested(
    service: Service, asked: str, suggested: list[str] | None
) -> None:
    for _ in range(8):  # more often than there are workers
        response = service.http.get(f"/countries/{asked}/artists")
        assert response.status_code == 404
    problem = response.json()
    assert problem["type"].endswith("not-found")
    assert problem.get("suggestions") == suggested
    assert repr(asked) in problem["detail"]
    assert "Did you mean 'Germany'?" in problem["detail"] or suggested is None


def test_page_after_the_last_artist_of_a_country_is_empty(service: Service) -> None:
    response = service.http.get("/countries/Germany/artists?offset=1000000")
    assert (response.status_code, response.json()["rows"]) == (200, [])


@pytest.mark.parametrize("artist", ARTISTS[:8])
@pytest.mark.parametrize("min_listeners", [None, 1, 2, 4])
def test_countries_of_artist(service: Service, dataset: Dataset, artist: str, min_listeners: int | None) -> None:
    params = {} if min_listeners is None else {"min_listeners": min_listeners}
    answer = service.http.get(f"/artists/{quote(artist, safe='')}/countries", params=params).json()
    expected = dataset.rankings[dataset.rankings.artist_name == artist].sort_values("rank_for_artist")
    if min_listeners is not None:
        expected = expected[expected.listeners >= min_listeners]
    columns = ["rank_for_artist", "country", "total_playcount", "normalized_popularity", "listeners"]
    got = pd.DataFrame(answer["rows"], columns=columns)
    pd.testing.assert_frame_equal(got, expected[columns].reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize("search", [None, "drake", "RÓS", "'", "%", "artist 0", '"', "nobody"])
def test_artists_of_the_world(service: Service, dataset: Dataset, search: str | None) -> None:
    params = {"search": search} if search else {}
    totals = dataset.rankings.groupby("artist_name").agg({"total_playcount": "sum", "listeners": "sum"}).reset_index()
    ranked = totals.sort_values(["total_playcount", "artist_name"], ascending=[False, True])
    ranked.insert(0, "rank", range(1, len(ranked) + 1))
    expected = [row for row in ranked.itertuples(index=False) if (search or "").lower() in row.artist_name.lower()]
    rows = service.http.get("/artists", params=params).json()["rows"]
    assert [tuple(row[:4]) for row in rows] == [tuple(row) for row in expected]
    page = service.http.get("/artists", params={**params, "limit": 2, "offset": 3}).json()["rows"]
    assert page == rows[3:5]


@pytest.mark.parametrize("artist", ["Drake", "AC/DC", "..", "nobody"])
@pytest.mark.parametrize("part", ["countries", "similar"])
def test_artist_names_as_query_parameter(service: Service, artist: str, part: str) -> None:
    by_path = service.http.get(f"/artists/{quote(artist, safe='')}/{part}")
    by_name = service.http.get(f"/artists/{part}", params={"artist": artist})
    assert by_name.status_code == by_path.status_code or artist == ".."
    if part == "countries":
        found = service.rows(
            "SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = ? ORDER BY rank",
            params=[artist],
        )
        assert [row[1:2] for row in by_name.json()["rows"]] == found


@pytest.mark.parametrize("part", ["distinctive", "similar", "changes"])
def test_lookups_of_a_country_in_pages(service: Service, part: str) -> None:
    table = {"distinctive": "distinctive_artists", "similar": "similar_countries", "changes": "rank_changes"}[part]
    expected = service.rows(f"SELECT * FROM {table} WHERE country = 'Germany'", limit=100)
    path, rows = f"/countries/Germany/{part}?limit=2", []
    while path:
        response = service.http.get(path)
        rows += response.json()["rows"]
        path = response.links.get("next", {}).get("url")
    assert len(rows) == len(expected)
    assert (len(rows) > 0) == (part != "changes")
    problem = service.http.get(f"/countries/Germnay/{part}")
    assert (problem.status_code, problem.json()["suggestions"]) == (404, ["Germany"])


def test_changes_since_the_previous_ranking(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    write_rankings(DeltaStore(DataRoot(tmp_path)), dataset.rankings[dataset.rankings.artist_name != "Drake"])
    publish_tables(tmp_path)
    with serving(tmp_path, query_workers=1) as service:
        for address in ("/changes", "/countries/Japan/changes"):
            gone = service.http.get(address, params={"change": "gone"}).json()["rows"]
            assert [(row[0], row[1], row[3]) for row in gone] == [("Drake", None, "gone")]
            every = service.http.get(address).json()["rows"]
            assert gone[0] in every
            assert len(every) > 20
        assert service.http.get("/changes?change=better").status_code == 422


def test_tables_are_listed_as_declared(service: Service, dataset: Dataset) -> None:
    listed = service.http.get("/tables").json()["tables"]
    assert [table["name"] for table in listed] == [table.full_name for table in PUBLISHED_TABLES]
    for declared, table in zip(PUBLISHED_TABLES, listed, strict=True):
        engine = service.query(f"DESCRIBE {declared.full_name}").json()["rows"]
        assert [(column["name"], column["type"]) for column in table["columns"]] == [(row[0], row[1]) for row in engine]
        assert [column["description"] for column in table["columns"]] == [
            column.description for column in declared.columns
        ]
        (count,) = service.rows(f"SELECT count(*) FROM {declared.full_name}")[0]
        assert table["row_count"] == count


def test_table_description_includes_sample_rows(service: Service) -> None:
    table = service.http.get("/tables/processed_parquet_artist_rank_in_country").json()
    assert len(table["sample"]) == 5
    assert len(table["sample"][0]) == len(table["columns"]) == 5


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("GET", "/tables/nope", 404),
        ("GET", "/tables/raw_parquet_user_data; DROP TABLE x", 404),
        ("GET", "/nope", 404),
        ("PUT", "/query", 405),
        ("GET", "/query", 422),
        ("GET", "/countries?limit=0", 422),
        ("GET", "/countries?format=xml", 422),
        ("GET", "/artists?search=", 422),
        ("GET", "/artists/countries", 422),
        ("GET", "/start_embedding_job", 503),
    ],
)
def test_error_responses_have_the_same_members(service: Service, method: str, address: str, status: int) -> None:
    response = service.http.request(method, address)
    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail", "advice", "request_id"} <= set(problem)
    assert problem["request_id"] == response.headers["x-request-id"]


def test_legacy_endpoint_reports_errors_in_a_member_error(service: Service) -> None:
    for body in (b"", b"{}", b"null", b"[]", b'{"query": null}', b'{"query": ""}', b'{"query": 1}'):
        response = service.http.post("/ApiQueryHandler", content=body)
        assert response.status_code == 400
        assert response.json()["error"]
    assert service.http.post("/ApiQueryHandler", content=b'{"query": "SELECT 1 AS x"}').json() == [{"x": 1}]
    assert service.http.post("/ApiQueryHandler", json={"query": "DROP TABLE x"}).json()["error"]


def test_valid_request_ids_are_kept(service: Service) -> None:
    assert service.http.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 200, "<script>"):
        replaced = service.http.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", replaced)


def test_metrics_count_requests(service: Service) -> None:
    service.rows("SELECT 1")
    text = service.http.get("/metrics").text
    assert re.search(r'music_assets_requests_total\{method="POST",route="/query",status="200"\} [1-9]', text)
    assert "music_assets_snapshot_info" in text


def test_docs_load_only_local_assets(service: Service) -> None:
    page = service.http.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) >= 3
    for asset in assets:
        assert asset.startswith("/")
        assert service.http.get(asset).status_code == 200


def test_cors_is_off(service: Service) -> None:
    origin = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    for response in (service.http.options("/query", headers=origin), service.http.get("/countries", headers=origin)):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_before_the_first_snapshot(tmp_path: object) -> None:
    with serving(tmp_path, query_workers=1) as service:  # type: ignore[arg-type]
        assert service.http.get("/healthz").status_code == 200
        responses: list[httpx.Response] = [service.http.get("/readyz"), service.http.get("/tables")]
        responses += [service.query("SELECT 1"), service.http.get("/countries")]
        for response in responses:
            assert response.status_code == 503
            assert response.json()["type"].endswith(":nothing-published")
            assert str(tmp_path) not in response.text
