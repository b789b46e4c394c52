"""Attacks: each statement or request is refused with the right status, or stopped by a limit. Afterwards the service
answers a regular query, and the files of the data root are unchanged.

The statements also run on the connection without the gate, to test the second layer alone.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from music_assets.data_root import DataRoot
from music_assets.service.sandbox.database import Database
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets_tests.service.conftest import Dataset, Service, make_dataset, serving

READS = [
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'file:///etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM '{secret}'",
    "SELECT * FROM '{root}/music_db/current.json'",
    "SELECT * FROM '{root}/**/*.parquet'",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "FROM '{secret}'",
    "TABLE '{secret}'",
    "DESCRIBE '{secret}'",
    "SUMMARIZE '{secret}'",
    "SHOW '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_json_auto('{secret}')",
    "SELECT * FROM read_json_objects('{secret}')",
    "SELECT * FROM read_json_objects_auto('{secret}')",
    "SELECT * FROM read_ndjson('{secret}')",
    "SELECT * FROM read_ndjson_auto('{secret}')",
    "SELECT * FROM read_ndjson_objects('{secret}')",
    "SELECT * FROM read_parquet('{parquet}')",
    "SELECT * FROM parquet_scan('{parquet}')",
    "SELECT * FROM parquet_metadata('{parquet}')",
    "SELECT * FROM parquet_schema('{parquet}')",
    "SELECT * FROM parquet_file_metadata('{parquet}')",
    "SELECT * FROM parquet_kv_metadata('{parquet}')",
    "SELECT * FROM parquet_full_metadata('{parquet}')",
    "SELECT * FROM parquet_bloom_probe('{parquet}', 'user_id', 1)",
    "SELECT * FROM read_duckdb('{secret}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{root}/**')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('{secret}'))",
    "WITH a AS (FROM read_text('{secret}')) FROM a",
    'WITH "{secret}" AS (SELECT 1) SELECT * FROM "{secret}"',
    "WITH RECURSIVE a AS (SELECT 1 UNION ALL FROM read_text('{secret}')) FROM a",
    "SELECT 1 UNION ALL SELECT content FROM read_text('{secret}')",
    "SELECT * FROM raw_parquet_user_data JOIN read_text('{secret}') ON true",
    "SELECT * FROM raw_parquet_user_data, LATERAL (FROM read_text('{secret}'))",
    "PIVOT (FROM read_text('{secret}')) ON filename IN ('a') USING count(*)",
    "SELECT list_transform([1], x -> (SELECT content FROM read_text('{secret}')))",
    "SELECT 1 ORDER BY (SELECT content FROM read_text('{secret}'))",
    "SELECT 1 LIMIT (SELECT count(*) FROM read_text('{secret}'))",
    "SELECT count(*) FILTER (WHERE (SELECT true FROM read_text('{secret}')))",
    "SELECT sum(1) OVER (ORDER BY (SELECT content FROM read_text('{secret}')))",
    "VALUES ((SELECT content FROM read_text('{secret}')))",
    "EXPLAIN SELECT * FROM read_text('{secret}')",
    "DESCRIBE SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM query('FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM query_table(['raw_parquet_user_data'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT json_deserialize_sql(json_serialize_sql('SELECT 1'))",
    "SELECT * FROM seq_scan('raw_parquet_user_data')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM connection",
    "SELECT * FROM self",
]
WRITES = [
    "COPY (SELECT 1) TO '{scratch}/x.csv'",
    "COPY raw_parquet_user_data TO '{scratch}/x.parquet' (FORMAT parquet)",
    "COPY (SELECT 1) TO '{database}'",
    "COPY (SELECT 1) TO '{database}.wal'",
    "COPY (SELECT 1) TO '{parquet}'",
    "COPY raw_parquet_user_data FROM '{secret}'",
    "COPY FROM DATABASE music_db TO memory",
    "EXPORT DATABASE '{scratch}'",
    "IMPORT DATABASE '{scratch}'",
    "CREATE TABLE x (i INTEGER)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW raw_parquet_user_data AS SELECT 1",
    "CREATE MACRO lower(x) AS 'x'",
    "CREATE FUNCTION f(x) AS x",
    "CREATE SEQUENCE s",
    "CREATE TYPE t AS ENUM ('a')",
    "CREATE SCHEMA s",
    "CREATE INDEX i ON processed_parquet_artist_rank_in_country (rank)",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "DROP TABLE processed_parquet_artist_rank_in_country",
    "DROP VIEW raw_parquet_user_data",
    "DROP SCHEMA main CASCADE",
    "ALTER TABLE processed_parquet_artist_rank_in_country ADD COLUMN x INTEGER",
    "ALTER TABLE processed_parquet_artist_rank_in_country RENAME TO x",
    "INSERT INTO processed_parquet_artist_rank_in_country VALUES ('a', 'b', 1, 1)",
    "UPDATE processed_parquet_artist_rank_in_country SET rank = 1",
    "DELETE FROM processed_parquet_artist_rank_in_country",
    "TRUNCATE processed_parquet_artist_rank_in_country",
    "MERGE INTO processed_parquet_artist_rank_in_country USING (SELECT 1 AS x) ON true WHEN MATCHED THEN DELETE",
    "WITH d AS (DELETE FROM processed_parquet_artist_rank_in_country RETURNING *) SELECT * FROM d",
    "WITH i AS (INSERT INTO processed_parquet_artist_rank_in_country VALUES ('a', 'b', 1, 1) RETURNING *) FROM i",
    "WITH u AS (UPDATE processed_parquet_artist_rank_in_country SET rank = 1 RETURNING *) SELECT * FROM u",
    "SELECT * FROM (DELETE FROM processed_parquet_artist_rank_in_country RETURNING *)",
    "COMMENT ON TABLE processed_parquet_artist_rank_in_country IS 'x'",
    "VACUUM",
    "VACUUM processed_parquet_artist_rank_in_country",
    "ANALYZE",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "SELECT nextval('s')",
    "SELECT setseed(0.5)",
    "SELECT * FROM truncate_duckdb_logs()",
    "SELECT write_log('x')",
    "SELECT 1 INTO x",
]
ENGINE = [
    "ATTACH '{scratch}/x.duckdb'",
    "ATTACH '{database}' AS other (READ_ONLY)",
    "ATTACH ':memory:' AS other",
    "DETACH music_db",
    "USE memory",
    "CONNECT music_db",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{scratch}/x.duckdb_extension'",
    "FORCE INSTALL httpfs FROM community",
    "UPDATE EXTENSIONS",
    "SET memory_limit = '100GB'",
    "SET threads = 64",
    "SET max_execution_time = 0",
    "SET lock_configuration = false",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET temp_directory = '/tmp'",
    "SET GLOBAL allowed_configs = ['threads']",
    "SET SESSION search_path = 'x'",
    "SET VARIABLE x = 1",
    "SET VARIABLE data_root = '/etc'",
    "RESET max_execution_time",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "PRAGMA table_info('raw_parquet_user_data')",
    "PRAGMA memory_limit = '100GB'",
    "CALL pragma_version()",
    "CALL duckdb_settings()",
    "CALL enable_logging()",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN ANALYZE CREATE TABLE x (i INTEGER)",
    "EXPLAIN (ANALYZE) SELECT 1",
    "EXPLAIN (FORMAT json) SELECT 1",
    "EXPLAIN CREATE TABLE x (i INTEGER)",
    "EXPLAIN EXPLAIN SELECT 1",
    "SELECT sleep_ms(100000)",
    "SELECT pg_sleep(100)",
]
LEAKS = [
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_views",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_functions()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_columns",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM duckdb_external_file_cache()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM music_db.information_schema.columns",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_class",
    "SELECT * FROM pg_views",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM system.main.duckdb_settings",
    "SELECT * FROM memory.main.x",
    "SELECT * FROM internal.replaced_user_data",
    "SELECT * FROM music_db.internal.replaced_user_data",
    "SELECT * FROM temp.x",
    "SELECT * FROM other.raw_parquet_user_data",
    "SELECT * FROM pragma_database_size()",
    "SELECT * FROM pragma_storage_info('processed_parquet_artist_rank_in_country')",
    "SELECT * FROM pragma_metadata_info()",
    "SELECT * FROM pragma_user_agent()",
    "SELECT * FROM pragma_version()",
    "SELECT * FROM pragma_show('raw_parquet_user_data')",
    "SELECT current_setting('memory_limit')",
    "SELECT system.main.current_setting('allowed_paths')",
    "SELECT 'memory_limit'.current_setting()",
    "SELECT getenv('PATH')",
    "SELECT getvariable('x')",
    "SELECT getvariable('data_root')",
    "SELECT version()",
    "SELECT current_database()",
    "SELECT current_schemas(true)",
    "SELECT current_query()",
    "SELECT current_user",
    "SELECT session_user",
    "SELECT user()",
    "SELECT current_catalog",
    "SELECT txid_current()",
    "SELECT pg_get_viewdef('raw_parquet_user_data')",
    "SELECT pg_typeof(1)",
    "SELECT has_table_privilege('x', 'select')",
    "SELECT inet_server_addr()",
    "SELECT stats(rank) FROM processed_parquet_artist_rank_in_country",
    "SELECT vector_type(1)",
    "SELECT json_serialize_plan('SELECT 1')",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM test_all_types()",
    "SHOW ALL TABLES",
    "SHOW DATABASES",
    "SHOW memory_limit",
    "SHOW threads",
    "SELECT * FROM raw_parquet_user_data AT (VERSION => 1)",
]
SMUGGLED = [
    "",
    ";",
    "-- nothing",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE processed_parquet_artist_rank_in_country",
    "SELECT 1;;COPY (SELECT 1) TO '{scratch}/x.csv';",
    "SELECT 1 /* ; */ ; /* */ DELETE FROM processed_parquet_artist_rank_in_country --",
    "/* SELECT 1 */ DROP VIEW raw_parquet_user_data",
    "--\nSET threads = 1",
    "SELECT $$;$$; SET threads = 1",
    "SELECT 'a\\'; SET threads = 1; --'",
    "PIVOT processed_parquet_artist_rank_in_country ON country USING sum(rank)",
    "SELECT 1\0; DROP TABLE x",
    "\ufeffDROP TABLE x",
    "SELECT DEFAULT",
    "SELECT 1::nope",
    "SELECT 'a' COLLATE nope",
    "SELECT * FROM repeat('x', 10)",
    "SELECT create_sort_key('a', 'ASC')",
    "SELECT __internal_compress_string_hugeint('a')",
    "SELECT cast_to_type('1', 1)",
    "SELECT error('{secret}')",
    "SELECT apply_nothing(1)",
    "SELECT *",
    "SELECT",
    "🦆",
    "SELECT '",
    "(" * 5000,
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT " + "-" * 1 + "(" * 400 + "1" + ")" * 400 + " FROM nope",
    "SELECT " + "(SELECT " * 600 + "1" + ")" * 600,
    "SELECT " + "[" * 2000 + "1" + "]" * 2000,
    "SELECT " + "NOT " * 5000 + "true",
    "WITH " + ", ".join(f"a{i} AS (SELECT * FROM a{i - 1})" for i in range(1, 900)) + " SELECT * FROM a899",
]
EXPENSIVE = [
    "SELECT length(lpad('', 2000000000, 'x'))",
    "SELECT length(rpad('x', 2000000000, 'ab'))",
    "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))",
    "SELECT damerau_levenshtein(repeat('a', 30000), repeat('b', 30000))",
    "SELECT jaccard(repeat('ab', 100000000), repeat('b', 100000000))",
    "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1",
    "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)",
    "SELECT count(*) FROM raw_parquet_user_top_artists a, raw_parquet_user_top_artists b, "
    "raw_parquet_user_top_artists c, raw_parquet_user_top_artists d WHERE a.playcount + b.playcount = c.rank * d.rank",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "SELECT * FROM range(1000000000) t(i) ORDER BY hash(i) DESC LIMIT 100000",
]
"""Statements that would run for minutes or longer."""
LARGE = [
    "SELECT length(repeat('x', 2000000000))",
    "SELECT length(repeat(repeat('x', 1000000), 100000))",
    "WITH RECURSIVE n(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM n) SELECT max(length(s)) FROM n",
    "SELECT list(i) FROM range(1000000000) t(i)",
    "SELECT range(10000000000)",
    "SELECT len(list_transform(range(1000000000), x -> x::VARCHAR))",
    "SELECT string_agg(repeat('x', 1000), '') FROM range(10000000)",
    "SELECT i, repeat('x', 100000) FROM range(100000) t(i)",
    "SELECT md5(i::VARCHAR), count(*) FROM range(1000000000) t(i) GROUP BY 1",
    "SELECT regexp_matches(repeat('a', 50000000), '(a*)*b')",
    "SELECT regexp_matches('a', repeat('(a{{1000}})', 1000))",
    "SELECT histogram(i) FROM range(1000000000) t(i)",
    "SELECT row_number() OVER (ORDER BY hash(i)) FROM range(1000000000) t(i)",
    "SELECT from_json(repeat('[', 1000000), '\"JSON\"')",
    "SELECT json_valid(repeat('[', 100000000))",
    "SELECT bitstring('1', 2000000000)",
    "SELECT printf('%2000000000d', 1)",
    "SELECT format('{{:2000000000d}}', 1)",
    "SELECT list_resize([1], 10000000000)",
    "SELECT 10::DECIMAL(38, 0) ** 1000000, factorial(10000000)",
    "SELECT unnest(range(1000000000)) ORDER BY hash(1)",
]
"""Statements whose result, or an intermediate result, would need more than the memory limit, or whose arguments are
too large."""
STATEMENTS = READS + WRITES + ENGINE + LEAKS + SMUGGLED
REFUSALS = {400, 403, 422}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Dataset]]:
    """A service with little memory per query, on a data root of its own with a secret file next to the tables."""
    dataset = make_dataset(tmp_path_factory.mktemp("attacked"))
    (dataset.root / "secret.csv").write_text("password\nhunter2\n", encoding="utf-8")
    before = fingerprints(dataset.root)
    with serving(dataset.root, timeout_ms=10_000, query_memory_mb=256, row_limit=100_000) as service:
        yield service, dataset
    assert fingerprints(dataset.root) == before


def fingerprints(root: Path) -> dict[str, str]:
    """Return the digest of every file below the root."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def filled(statement: str, dataset: Dataset) -> str:
    """Insert paths into a statement."""
    places = {
        "{secret}": str(dataset.root / "secret.csv"),
        "{root}": str(dataset.root),
        "{scratch}": "/tmp",
        "{database}": str(dataset.published.path),
        "{parquet}": dataset.published.tables["raw_parquet_user_data"].files[0],
        "{{": "{",
        "}}": "}",
    }
    for name, place in places.items():
        statement = statement.replace(name, place)
    return statement


def assert_answers_regular_query(service: Service) -> None:
    sql = "SELECT count(*) FROM processed_parquet_artist_rank_in_country WHERE rank = 1"
    assert service.rows(f"{sql} AND random() < 1") == [[4]]  # the result is never kept


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statement_is_refused(attacked: tuple[Service, Dataset], statement: str) -> None:
    service, dataset = attacked
    sql = filled(statement, dataset)
    response = service.query(sql)
    assert response.status_code in REFUSALS, response.text[:500]
    problem = response.json()
    message = json.dumps({name: value for name, value in problem.items() if name != "position"})
    assert "hunter2" not in response.text
    assert "Traceback" not in response.text
    assert "duckdb.duckdb" not in response.text
    assert not [name for name in ("pg_catalog", "duckdb_settings()\n", ".py") if name in message and name not in sql]
    assert str(dataset.root) not in message or str(dataset.root) in sql
    assert_answers_regular_query(service)


@pytest.mark.parametrize("statement", EXPENSIVE)
def test_expensive_statement_is_stopped(attacked: tuple[Service, Dataset], statement: str) -> None:
    service, dataset = attacked
    response = service.query(filled(statement, dataset), timeout_ms=300)
    assert response.status_code in {408, 422}, response.text[:500]
    assert response.elapsed.total_seconds() < 10
    assert_answers_regular_query(service)


@pytest.mark.parametrize("statement", LARGE)
def test_large_statement_stays_within_the_memory_limit(attacked: tuple[Service, Dataset], statement: str) -> None:
    service, dataset = attacked
    response = service.query(filled(statement, dataset), timeout_ms=5000)
    assert response.status_code in {200, 400, 408, 422}, response.text[:500]
    assert response.elapsed.total_seconds() < 10
    assert_answers_regular_query(service)


BODIES: list[tuple[str, bytes, dict[str, str], set[int]]] = [
    ("nothing", b"", {}, {400}),
    ("not JSON", b"{", {}, {400}),
    ("bad UTF-8", b'{"query": "SELECT \xff"}', {}, {400}),
    ("lone surrogate", b'{"query": "SELECT \\ud800"}', {}, {400, 403, 422}),
    ("deep arrays", b"[" * 100_000, {}, {400}),
    ("deep objects", b'{"query":' * 20_000, {}, {400}),
    ("deep parameters", b'{"query": "SELECT 1", "params": ' + b"[" * 5000 + b"]" * 5000 + b"}", {}, {400, 422}),
    ("an array", b"[]", {}, {400, 422}),
    ("a number", b"1", {}, {400, 422}),
    ("no query", b"{}", {}, {422}),
    ("query no text", b'{"query": 1}', {}, {422}),
    ("query empty", b'{"query": ""}', {}, {422}),
    ("query null", b'{"query": null}', {}, {422}),
    ("unknown member", b'{"query": "SELECT 1", "database": "/etc/passwd"}', {}, {422}),
    ("limit negative", b'{"query": "SELECT 1", "limit": -1}', {}, {422}),
    ("limit zero", b'{"query": "SELECT 1", "limit": 0}', {}, {422}),
    ("limit text", b'{"query": "SELECT 1", "limit": "1"}', {}, {422}),
    ("limit fraction", b'{"query": "SELECT 1", "limit": 1.5}', {}, {422}),
    ("limit endless", b'{"query": "SELECT 1", "limit": 1e999}', {}, {400, 422}),
    ("limit huge", b'{"query": "SELECT 1", "limit": ' + b"9" * 5000 + b"}", {}, {400, 422}),
    ("timeout text", b'{"query": "SELECT 1", "timeout_ms": "x"}', {}, {422}),
    ("timeout bool", b'{"query": "SELECT 1", "timeout_ms": true}', {}, {422}),
    ("parameter nested", b'{"query": "SELECT ?", "params": [[1]]}', {}, {422}),
    ("parameter object", b'{"query": "SELECT ?", "params": [{"a": 1}]}', {}, {422}),
    ("parameter too big", b'{"query": "SELECT ?", "params": [' + b"9" * 100 + b"]}", {}, {422}),
    ("parameter endless", b'{"query": "SELECT ?", "params": [1e999]}', {}, {400, 422}),
    ("parameters no list", b'{"query": "SELECT ?", "params": "x"}', {}, {422}),
    ("too many parameters", b'{"query": "SELECT 1", "params": [' + b"1," * 5000 + b"1]}", {}, {422}),
    ("NaN", b'{"query": "SELECT ?", "params": [NaN]}', {}, {400, 422}),
    ("SQL too long", b'{"query": "SELECT ' + b"1" * 150_000 + b'"}', {}, {422}),
    ("body too large", b'{"query": "' + b"x" * 400_000 + b'"}', {}, {413}),
    ("form", b"query=SELECT+1", {"Content-Type": "application/x-www-form-urlencoded"}, {415}),
    ("text", b'{"query": "SELECT 1"}', {"Content-Type": "text/plain"}, {415}),
    ("no type", b'{"query": "SELECT 1"}', {"Content-Type": ""}, {415}),
    ("gzip that is none", b'{"query": "SELECT 1"}'[1:], {"Content-Encoding": "gzip"}, {400}),
    ("foreign host", b'{"query": "SELECT 1"}', {"Host": "evil.example"}, {403}),
    ("foreign host, port", b'{"query": "SELECT 1"}', {"Host": "evil.example:80"}, {403}),
    ("host like ours", b'{"query": "SELECT 1"}', {"Host": "localhost.evil.example"}, {403}),
    ("host with user", b'{"query": "SELECT 1"}', {"Host": "localhost@evil.example"}, {403}),
    ("format by Accept", b'{"query": "SELECT 1"}', {"Accept": "image/png"}, {406}),
    ("quality no number", b'{"query": "SELECT 1"}', {"Accept": "text/csv;q=x"}, {406}),
]


@pytest.mark.parametrize(
    ("body", "headers", "statuses"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES]
)
def test_body_or_header_is_refused(
    attacked: tuple[Service, Dataset], body: bytes, headers: dict[str, str], statuses: set[int]
) -> None:
    service, _ = attacked
    response = service.http.post("/query", content=body, headers={"Content-Type": "application/json", **headers})
    assert response.status_code in statuses, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    assert_answers_regular_query(service)


RAW = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n" + b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /static-offline-docs/../../../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /static-offline-docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /countries/%00/artists HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /countries/%ff%fe/artists HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /artists?search=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\r\n b\r\n\r\n",
    b"GET //tables HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/tables HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"DELETE /tables HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", RAW, ids=range(len(RAW)))
def test_raw_bytes(attacked: tuple[Service, Dataset], sent: bytes) -> None:
    service, _ = attacked
    port = int(service.url.rpartition(":")[2])
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except OSError:  # the service may close the connection before everything is sent
            pass
    assert b"root:" not in received
    assert b" 500 " not in received.partition(b"\r\n")[0]
    assert_answers_regular_query(service)


def test_disconnected_clients_leave_no_running_query(attacked: tuple[Service, Dataset]) -> None:
    service, _ = attacked
    body = json.dumps({"query": "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))"}).encode()
    head = b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
            connection.sendall(head % len(body) + body)
    assert_answers_regular_query(service)


@pytest.mark.parametrize(
    "statement",
    [one for one in READS + WRITES + ENGINE if "{scratch}" in one or "{secret}" in one or "{database}" in one],
)
def test_connection_is_locked_without_the_gate(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Without the gate, the connection reads no other file and writes none, except a `.wal`, which layer 3 prevents."""
    secret = dataset.root / "other.csv"
    secret.write_text("hunter2\n", encoding="utf-8")
    snapshot = newest_snapshot(DataRoot(dataset.root))
    monkeypatch.chdir(dataset.root)
    database = Database(256, 1)
    files = [os.path.relpath(file) for table in snapshot.tables.values() for file in table.files]
    database.use(os.path.relpath(snapshot.path), files, list(snapshot.tables))
    sql = filled(statement, dataset).replace("secret.csv", "other.csv").replace("'/tmp/", f"'{tmp_path}/")
    before = fingerprints(dataset.root)
    try:
        rows = database._connection.execute(sql).fetchall()  # type: ignore[union-attr]
    except duckdb.Error:
        rows = []
    finally:
        database._connection.close()  # type: ignore[union-attr]
    assert "hunter2" not in str(rows)
    assert list(tmp_path.iterdir()) == []
    wal = Path(f"{snapshot.path}.wal")
    if ".wal'" in sql:
        wal.unlink(missing_ok=True)
    assert fingerprints(dataset.root) == before


def test_number_of_attacks() -> None:
    assert len(STATEMENTS) + len(EXPENSIVE) + len(LARGE) + len(BODIES) + len(RAW) >= 150
