"""Files of named queries, and the examples of the SQL console."""

from pathlib import Path

import pytest

from music_assets.service.app import create_app
from music_assets.service.explorer.named_queries import EXAMPLES, NamedQuery, read_named_queries
from music_assets.settings import Settings, SettingsError
from music_assets_tests.service.conftest import Service


@pytest.mark.parametrize("query", read_named_queries(EXAMPLES), ids=lambda query: query.name)
def test_examples_run(service: Service, query: NamedQuery) -> None:
    service.rows(query.sql)
    assert query.title in service.http.get("/sql", params={"name": query.name}).text


def test_title_is_optional(tmp_path: Path) -> None:
    file = tmp_path / "queries.toml"
    file.write_text("[one]\nsql = '''\nSELECT 1\n'''\n", encoding="utf-8")
    assert read_named_queries(file) == [NamedQuery("one", "one", "SELECT 1")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"[one", "is not TOML"),
        (b"\xff", "is not TOML in UTF-8"),
        (b"one = 1", r"\[one\] has no sql"),
        (b"[one]\ntitle = 'x'", r"\[one\] has no sql"),
    ],
)
def test_invalid_file_is_a_settings_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "queries.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        create_app(Settings(data=tmp_path, named_queries=file))


def test_unknown_name_is_not_found(service: Service) -> None:
    response = service.http.get("/sql?name=nothing")
    assert response.status_code == 404
    assert "There is no named query" in response.text
