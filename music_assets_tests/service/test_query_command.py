"""`music-assets query`, local and with --url: both print the same for the same rows."""

import csv
import io
import json
from hashlib import sha256

import pytest
from typer.testing import CliRunner, Result

from music_assets import cli
from music_assets.settings import settings
from music_assets_tests.service.conftest import Dataset, Service, serving
from music_assets_tests.service.test_formats import VALUES

EVERY_VALUE = "SELECT " + ", ".join(f"{sql} AS v{number}" for number, (sql, *_) in enumerate(VALUES))


@pytest.fixture(autouse=True)
def local(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(dataset.root))
    settings.cache_clear()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["query", *map(str, arguments)])


def printed(*arguments: object) -> bytes:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout_bytes


def failure(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("output", ["csv", "json", "table"])
@pytest.mark.parametrize(
    "sql",
    [
        EVERY_VALUE,
        "SELECT 1 AS a, 2 AS a, 3 AS b",
        "SELECT 1 AS a WHERE false",
        "SELECT 'a,\"b\"' AS \"x,y\", 'two\nlines' AS z, NULL AS n, '' AS e",
        "FROM processed_parquet_artist_rank_in_country ORDER BY ALL",
        "SELECT '2026-01-02 03:04:05'::TIMESTAMPTZ AS t",
    ],
)
def test_local_and_remote_output_are_equal(service: Service, sql: str, output: str) -> None:
    assert printed(sql, "--format", output) == printed(sql, "--format", output, "--url", service.url)


@pytest.mark.parametrize("output", ["csv", "json"])
def test_output_of_several_batches_is_equal(service: Service, output: str) -> None:
    sql = "SELECT i, 'x' || i AS t, i % 7 = 0 AS b, [i] AS l FROM range(25000) r(i)"
    assert printed(sql, "--format", output) == printed(sql, "--format", output, "--url", service.url)


@pytest.mark.parametrize("limit", [0, 1, 2, 10_001])
@pytest.mark.parametrize("remote", [False, True])
def test_limit(service: Service, limit: int, remote: bool) -> None:
    options = ["--limit", limit, *(["--url", service.url] if remote else [])]
    rows = json.loads(printed("FROM range(25000)", "--format", "json", *options))
    assert rows == [{"range": number} for number in range(limit)]
    assert len(printed("FROM range(25000)", "--format", "csv", *options).splitlines()) == limit + 1


def test_json_is_an_array_of_objects() -> None:
    def reject_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    (row,) = json.loads(printed(EVERY_VALUE, "--format", "json"), parse_constant=reject_constant)
    assert list(row.values()) == [in_json for _, in_json, _ in VALUES]
    assert json.loads(printed("SELECT 1 AS a, 2 AS a", "--format", "json")) == [{"a": 1, "a_1": 2}]
    assert json.loads(printed("SELECT 1 AS a WHERE false", "--format", "json")) == []


def test_csv_can_be_read_back() -> None:
    text = printed("""SELECT 'a,"b"' AS "x,y", 'two\nlines' AS z, NULL AS n""", "--format", "csv").decode()
    assert list(csv.reader(io.StringIO(text))) == [["x,y", "z", "n"], ['a,"b"', "two\nlines", ""]]


def test_table_without_rows_shows_the_columns(service: Service) -> None:
    assert "a_column" in printed("SELECT 1 AS a_column WHERE false", "--url", service.url).decode()


def test_types_without_an_exact_format_need_a_cast(service: Service) -> None:
    for options in ([], ["--url", service.url]):
        assert "cast it to VARCHAR" in failure("SELECT 1::UHUGEINT", *options)


def test_truncated_results_are_reported(dataset: Dataset) -> None:
    with serving(dataset.root, row_limit=3, query_workers=1) as service:
        for options, truncated in (([], True), (["--limit", 5], True), (["--limit", 3], False)):
            result = run("FROM range(9)", "--format", "csv", "--url", service.url, *options)
            assert len(result.stdout.splitlines()) == 4
            assert ("truncated" in result.stderr) == truncated


def test_error_messages(service: Service) -> None:
    assert "line 1, column 15" in failure("SELECT * FORM x", "--url", service.url)
    assert "Is the service running?" in failure("SELECT 1", "--url", "http://127.0.0.1:9")
    assert "Is the service running?" in failure("SELECT 1", "--url", "no address")
    assert "nothing" in failure("SELECT 1", "--url", f"{service.url}/x")


def test_key_is_sent(dataset: Dataset) -> None:
    with serving(dataset.root, api_keys=f"ann:{sha256(b'k').hexdigest()}", query_workers=1) as service:
        assert printed("SELECT 1 AS x", "--format", "csv", "--url", service.url, "--key", "k") == b'"x"\n1\n'
        assert "API key" in failure("SELECT 1", "--url", service.url)
