"""Values in every format, as documented."""

import csv
import io
import json
from datetime import date, datetime

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.service.formats import negotiate, unique_names
from music_assets_tests.service.conftest import Service

VALUES = [
    ("9007199254740991", 9007199254740991, "9007199254740991"),
    ("9007199254740992", "9007199254740992", "9007199254740992"),
    ("-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
    ("18446744073709551615::UBIGINT", "18446744073709551615", "18446744073709551615"),
    ("170141183460469231731687303715884105727::HUGEINT", *["170141183460469231731687303715884105727"] * 2),
    ("sum(5::BIGINT)", 5, "5"),
    ("0.1::DECIMAL(20, 10)", "0.1000000000", "0.1000000000"),
    ("0.0000001::DECIMAL(18, 8)", "0.00000010", "0.00000010"),
    ("-0.0000001::DECIMAL(18, 8)", "-0.00000010", "-0.00000010"),
    ("0.1::DOUBLE", 0.1, "0.1"),
    ("1e300", 1e300, "1e+300"),
    ("'NaN'::DOUBLE", "NaN", "NaN"),
    ("'-Infinity'::FLOAT", "-Infinity", "-Infinity"),
    ("TIMESTAMP '2026-01-02 03:04:05.678901'", *["2026-01-02T03:04:05.678901"] * 2),
    ("'2026-01-02 03:04:05.123456789'::TIMESTAMP_NS", *["2026-01-02T03:04:05.123456789"] * 2),
    ("TIMESTAMPTZ '2026-01-02 03:04:05+02'", *["2026-01-02T01:04:05.000000Z"] * 2),
    ("'infinity'::TIMESTAMP", "infinity", "infinity"),
    ("'-infinity'::DATE", "-infinity", "-infinity"),
    ("DATE '2026-01-02'", "2026-01-02", "2026-01-02"),
    ("'20260-01-02'::DATE", "20260-01-02", "20260-01-02"),
    ("'infinity'::TIMESTAMP_S", "infinity", "infinity"),
    ("'24:00:00'::TIME", "24:00:00.000000", "24:00:00.000000"),
    ("['24:00:00'::TIME]", ["24:00:00.000000"], '["24:00:00.000000"]'),
    ("to_microseconds(9000000000000001)", *["PT9000000000.000001S"] * 2),
    ("TIME '03:04:05'", "03:04:05.000000", "03:04:05.000000"),
    ("INTERVAL '1 year 2 days 90.5 seconds'", "P12M2DT90.5S", "P12M2DT90.5S"),
    ("true", True, "true"),
    ("NULL", None, ""),
    ("''", "", ""),
    ("'a \"b\", ' || chr(10) || 'ü🦆'", 'a "b", \nü🦆', 'a "b", \nü🦆'),
    ("'\\x00\\xFF'::BLOB", "AP8=", "AP8="),
    ("'123e4567-e89b-12d3-a456-426614174000'::UUID", *["123e4567-e89b-12d3-a456-426614174000"] * 2),
    ("'a'::ENUM ('a', 'b')", "a", "a"),
    ("[1, NULL, 9007199254740993]", [1, None, "9007199254740993"], '[1,null,"9007199254740993"]'),
    ("[[1], [], NULL]", [[1], [], None], "[[1],[],null]"),
    ("{'a': 'NaN'::DOUBLE, 'b': [DATE '2026-01-02']}", {"a": "NaN", "b": ["2026-01-02"]}, None),
    ("MAP {'k': 1}", [{"key": "k", "value": 1}], '[{"key":"k","value":1}]'),
    ("{'a': 1}::JSON", '{"a":1}', '{"a":1}'),
]


@pytest.mark.parametrize(("sql", "in_json", "in_csv"), VALUES)
def test_value_in_text_formats(service: Service, sql: str, in_json: object, in_csv: str | None) -> None:
    sql = f"SELECT {sql} AS v, 1 AS n"
    assert service.rows(sql) == [[in_json, 1]]
    assert json.loads(service.query(sql, "ndjson").text) == {"v": in_json, "n": 1}
    assert service.http.post("/ApiQueryHandler", json={"query": sql}).json() == [{"v": in_json, "n": 1}]
    header, row = csv.reader(io.StringIO(service.query(sql, "csv").text, newline=""))
    assert header == ["v", "n"]
    assert row == [in_csv if in_csv is not None else json.dumps(in_json, separators=(",", ":")), "1"]


def test_csv_distinguishes_null_and_empty_text(service: Service) -> None:
    assert service.query("SELECT NULL::VARCHAR AS a, '' AS b", "csv").text.splitlines()[1] == ',""'


TYPED = """
SELECT 9007199254740993 AS i, 'NaN'::DOUBLE AS f, 1.50::DECIMAL(5, 2) AS d, TIMESTAMP '2026-01-02 03:04:05.678901' AS t,
    DATE '2026-01-02' AS day, [1, 2] AS l, {'a': 'x'} AS s, NULL AS n, 'ü' AS text, true AS b
"""


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_typed_formats_keep_the_types(service: Service, form: str) -> None:
    response = service.query(TYPED, form)
    table = read(form, response)
    assert table.column_names[:2] == ["i", "f"]
    row = {name: column[0].as_py() for name, column in zip(table.column_names, table.columns, strict=True)}
    assert row["i"] == 9007199254740993
    assert row["f"] != row["f"]
    assert str(row["d"]) == "1.50"
    assert row["t"] == datetime(2026, 1, 2, 3, 4, 5, 678901)
    assert (row["day"], row["l"], row["s"]) == (date(2026, 1, 2), [1, 2], {"a": "x"})
    assert (row["n"], row["text"], row["b"]) == (None, "ü", True)
    assert table.schema.metadata[b"truncated"] == b"false"
    assert table.schema.metadata[b"data_version"].decode() == response.headers["x-data-version"]


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("rows", [0, 1, 25_000])
def test_typed_formats_of_any_length(service: Service, form: str, rows: int) -> None:
    table = read(form, service.query(f"SELECT i, 'x' || i AS t FROM range({rows}) r(i)", form))
    assert table.column("i").to_pylist() == list(range(rows))
    assert table.column_names == ["i", "t"]


def read(form: str, response: httpx.Response) -> pa.Table:
    assert response.status_code == 200, response.text
    return (
        pa.ipc.open_stream(response.content).read_all()
        if form == "arrow"
        else pq.read_table(pa.py_buffer(response.content))
    )


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_no_rows(service: Service, form: str) -> None:
    text = service.query("SELECT 1 AS a WHERE false", form).text
    assert {"json": '"rows":[]', "ndjson": "", "csv": '"a"\n'}[form] in text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '101'::BIT",
        "SELECT 1::UHUGEINT",
        "SELECT [TIMETZ '10:00:00+02']",
        "SELECT 1::VARIANT",
        "SELECT union_value(a := 1)",
    ],
)
def test_types_without_an_exact_format_need_a_cast(service: Service, sql: str) -> None:
    response = service.query(sql, "arrow")
    assert response.status_code in (400, 403)
    if response.status_code == 400:
        assert "cast it to VARCHAR" in response.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("application/json;q=0.5, text/csv;q=0.9", "csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("APPLICATION/VND.APACHE.ARROW.STREAM", "arrow"),
        ("application/vnd.apache.parquet, */*;q=0.1", "parquet"),
        ("application/x-ndjson", "ndjson"),
        ("image/png", None),
        ("text/csv;q=0", None),
    ],
)
def test_format_by_accept_header(accept: str, form: str | None) -> None:
    assert negotiate(accept) == form


def test_format_parameter_wins_over_accept_header(service: Service) -> None:
    response = service.http.get("/countries?format=csv", headers={"Accept": "application/json"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"


def test_repeated_column_names_get_a_number() -> None:
    assert unique_names(["a", "a", "b", "a_1", "a"]) == ["a", "a_1", "b", "a_1_1", "a_2"]


def test_csv_for_spreadsheets_has_no_formulas(service: Service) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "a=1", "", "1-1", "'=1"]
    sql = "SELECT unnest($texts) AS \"=name\", -1 AS n, -1.5 AS d, -2.5::DOUBLE AS f, '=1'::ENUM ('=1') AS e"
    sql = sql.replace("$texts", "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]")
    answer = service.http.post("/query?csv=spreadsheet", json={"query": sql})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert header == ["'=name", "n", "d", "f", "e"]
    assert [row[0] for row in rows] == ["'" + text for text in texts[:8]] + texts[8:]
    assert {tuple(row[1:]) for row in rows} == {("-1", "-1.5", "-2.5", "'=1")}
    assert list(csv.reader(io.StringIO(service.query(sql, "csv").text, newline="")))[1][0] == "=1+1"
    assert service.http.post("/query?csv=excel", json={"query": sql}).status_code == 422


def test_thousands_of_columns_of_one_name() -> None:
    names = unique_names(["a"] * 200_000 + ["a_1", "b"])
    assert len(set(names)) == 200_002
    assert names[:3] == ["a", "a_1", "a_2"]
    assert names[-2:] == ["a_1_1", "b"]
