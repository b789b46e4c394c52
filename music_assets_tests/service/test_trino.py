"""The Trino protocol, through Trino's Python client and SQLAlchemy, as BI tools use it."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from urllib.parse import urlsplit

import pandas as pd
import pytest
import sqlalchemy as sa
import trino
from trino.auth import JWTAuthentication
from trino.exceptions import TrinoQueryError, TrinoUserError

from music_assets_tests.service.conftest import Dataset, Service, serving
from music_assets_tests.service.test_attacks import ENGINE, LEAKS, READS, WRITES

CATALOGUE = ("SELECT * FROM information_schema.tables", "SELECT * FROM music_db.information_schema.columns")
"""Attacks on DuckDB's catalog that the catalogue of the protocol answers."""
RANKING = "music_db.main.processed_parquet_artist_rank_in_country"


def connect(service: Service, **options: object) -> trino.dbapi.Connection:
    address = urlsplit(service.url)
    return trino.dbapi.connect(
        host=address.hostname, port=address.port, user="bi", catalog="music_db", schema="main", **options
    )


@pytest.fixture
def cursor(service: Service) -> Iterator[trino.dbapi.Cursor]:
    with connect(service) as connection:
        yield connection.cursor()


@pytest.fixture(scope="module")
def engine(service: Service) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"trino://bi@{urlsplit(service.url).netloc}/music_db/main")
    yield engine
    engine.dispose()


def test_rows_and_parameters(cursor: trino.dbapi.Cursor, dataset: Dataset) -> None:
    cursor.execute(
        f"SELECT artist_name, total_playcount FROM {RANKING} WHERE country = ? AND rank <= ? ORDER BY rank",
        ["Côte d'Ivoire", 3],
    )
    best = dataset.rankings.query('country == "Côte d\'Ivoire"').sort_values("rank_in_country")[:3]
    assert cursor.fetchall() == best[["artist_name", "total_playcount"]].to_numpy().tolist()
    assert [(column.name, column.type_code) for column in cursor.description] == [
        ("artist_name", "varchar"),
        ("total_playcount", "double"),
    ]


def test_functions_of_trino(cursor: trino.dbapi.Cursor) -> None:
    cursor.execute(
        "SELECT max_by(x, y), regexp_like('abc', 'b'), date_trunc('month', DATE '2026-05-06'), "
        "element_at(ARRAY[7, 8], 2), try_cast('x' AS bigint), count_if(y > 1), version() "
        "FROM (VALUES ('a', 1), ('b', 2)) AS t (x, y)"
    )
    ((best, matches, month, second, nothing, count, version),) = cursor.fetchall()
    assert (best, matches, second, nothing, count) == ("b", True, 8, None, 1)
    assert str(month)[:10] == "2026-05-01"
    assert version.isdecimal()


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("CAST(1.5 AS decimal(20, 10))", Decimal("1.5")),
        ("CAST('0.0000001' AS decimal(18, 8))", Decimal("0.0000001")),
        ("CAST('-Infinity' AS double)", float("-inf")),
        ("DATE '2026-01-02'", date(2026, 1, 2)),
        ("TIMESTAMP '2026-01-02 03:04:05.678901'", datetime(2026, 1, 2, 3, 4, 5, 678901)),
        ("ARRAY[ARRAY[1], ARRAY[], NULL]", [[1], [], None]),
        ("CAST(NULL AS varchar)", None),
        ("''", ""),
        ("true", True),
    ],
)
def test_types(cursor: trino.dbapi.Cursor, sql: str, value: object) -> None:
    cursor.execute(f"SELECT {sql} AS v")
    assert cursor.fetchall() == [[value]]


def test_catalogue(cursor: trino.dbapi.Cursor, engine: sa.Engine, service: Service) -> None:
    tables = {table["name"]: table for table in service.http.get("/tables").json()["tables"]}
    cursor.execute("SHOW CATALOGS")
    assert cursor.fetchall() == [["music_db"]]
    cursor.execute("SHOW SCHEMAS FROM music_db")
    assert cursor.fetchall() == [["main"]]
    cursor.execute("SHOW TABLES")
    assert [name for (name,) in cursor.fetchall()] == sorted(tables)
    cursor.execute("DESCRIBE music_db.main.country_totals")
    declared = [[column["name"], column["type"].lower()] for column in tables["country_totals"]["columns"]]
    assert [row[:2] for row in cursor.fetchall()] == declared
    inspector = sa.inspect(engine)
    assert inspector.get_schema_names() == ["main"]
    assert sorted(inspector.get_table_names()) == sorted(tables)
    assert inspector.get_view_names() == []
    assert inspector.has_table("country_totals")
    assert not inspector.has_table("duckdb_settings")
    for name in ("country_totals", "raw_parquet_user_data"):
        declared = [(column["name"], column["description"]) for column in tables[name]["columns"]]
        assert [(column["name"], column["comment"]) for column in inspector.get_columns(name)] == declared
        assert inspector.get_table_comment(name) == {"text": tables[name]["description"]}


def test_queries_of_sqlalchemy_and_pandas(engine: sa.Engine, dataset: Dataset) -> None:
    totals = sa.Table("country_totals", sa.MetaData(), autoload_with=engine)
    plays = dataset.rankings.groupby("country")["total_playcount"].sum()
    query = sa.select(totals.c.country, totals.c.total_playcount).where(totals.c.country != "Japan")
    with engine.connect() as connection:
        found = pd.read_sql(query.order_by(totals.c.country), connection).set_index("country")["total_playcount"]
    pd.testing.assert_series_equal(found, plays.drop("Japan"), check_names=False, check_dtype=False)


def test_errors(cursor: trino.dbapi.Cursor) -> None:
    for sql, name in (
        ("SELECT * FROM nothing", "TABLE_NOT_FOUND"),
        ("DESCRIBE pg_class", "TABLE_NOT_FOUND"),
        ("SELECT FROM (", "SYNTAX_ERROR"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "SYNTAX_ERROR"),
        ("SELECT " + "ARRAY[" * 40 + "1" + "]" * 40, "SYNTAX_ERROR"),
        ("SELECT " + "ROW(" * 40 + "1" + ")" * 40, "SYNTAX_ERROR"),
        ("SELECT nothing", "GENERIC_USER_ERROR"),
        ("SELECT 1" + " " * 20_000 + "+ 1", "GENERIC_USER_ERROR"),
        ("EXECUTE IMMEDIATE 'SELECT ?' USING 1, 2", "GENERIC_USER_ERROR"),
        ("EXECUTE IMMEDIATE 'SELECT ?' USING (SELECT content FROM read_text('/etc/passwd'))", "PERMISSION_DENIED"),
        ("EXECUTE IMMEDIATE 'SELECT 1; DROP TABLE country_totals'", "PERMISSION_DENIED"),
    ):
        with pytest.raises(TrinoUserError) as error:
            cursor.execute(sql).fetchall()
        assert error.value.error_name == name, error.value


def test_incomplete_results_are_errors(dataset: Dataset) -> None:
    with serving(dataset.root, query_workers=1, row_limit=3) as service, connect(service) as connection:
        cursor = connection.cursor()
        assert len(cursor.execute("SELECT country FROM country_totals LIMIT 3").fetchall()) == 3
        with pytest.raises(TrinoQueryError, match=r"more than 3 rows\. Aggregate, or add LIMIT"):
            cursor.execute("SELECT country FROM country_totals").fetchall()


def test_keys(dataset: Dataset) -> None:
    """A BI tool sends the key as access token, or as the password of any user."""
    with serving(dataset.root, api_keys=f"ann:{sha256(b'k').hexdigest()}", query_workers=1) as service:
        with connect(service, auth=JWTAuthentication("k"), allow_insecure_auth=True) as connection:
            assert connection.cursor().execute("SELECT 1 AS x").fetchall() == [[1]]
        for user, status in (("ann:k", 200), ("x:k", 200), ("ann:", 401), ("ann:no", 401), ("ann", 401)):
            headers = {"Authorization": f"Basic {b64encode(user.encode()).decode()}"}
            assert service.http.post("/v1/statement", content="SELECT 1", headers=headers).status_code == status
        assert service.http.post("/v1/statement", content="SELECT 1").status_code == 401
        assert service.http.get("/tables", headers={"Authorization": "Basic ü".encode()}).status_code == 401


def test_attacks_are_refused(service: Service) -> None:
    names = {table["name"] for table in service.http.get("/tables").json()["tables"]}
    for sql in (*READS, *WRITES, *ENGINE, *LEAKS):
        answer = service.http.post("/v1/statement", content=sql.encode())
        assert answer.status_code == 200
        body = answer.json()
        if sql in CATALOGUE:
            assert {row[2] for row in body["data"]} == names
        elif sql == "SELECT version()":
            assert body["data"] == [["476"]]
        else:
            assert "error" in body, sql
            assert "data" not in body
    assert service.rows("SELECT 1") == [[1]]
