"""Settings: read from the environment, validated, and documented."""

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from music_assets.settings import PREFIX, Settings, SettingsError, documentation, settings

CONFIGURATION = Path(__file__).parents[1] / "docs/configuration.md"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_the_documentation_is_in_step() -> None:
    assert CONFIGURATION.read_text(encoding="utf-8") == documentation(), "run `make docs`"


def test_every_setting_has_a_default() -> None:
    assert all(field.default is not PydanticUndefined for field in Settings.model_fields.values())
    assert settings().data == Path("data").absolute()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_limit", "lots"),
        ("memory_limit", "80%"),
        ("memory_limit", "1GB; DROP TABLE a"),
        ("threads", "0"),
        ("threads", "two"),
        ("engine", "dask"),
        ("spark_master", "yarn-cluster,7"),
        ("spark_master", "http://localhost"),
        ("spark_driver_memory", "lots"),
        ("spark_executor_memory", "1.5g"),
        ("spark_shuffle_partitions", "0"),
        ("sensor_interval", "4"),
        ("sensor_interval", "1.5"),
        ("settle_seconds", "-1"),
        ("settle_seconds", "nan"),
        ("settle_seconds", "inf"),
        ("max_attempts", "0"),
        ("retry_pause", "-0.1"),
        ("retry_pause", "inf"),
        ("reject_warn_share", "1.1"),
        ("reject_fail_share", "20%"),
        ("retention_hours", "-1"),
        ("retention_hours", "inf"),
        ("data", "what?"),
        ("data", "100%41"),
        ("data", "a\\b"),
        ("data", "two\nlines"),
    ],
)
def test_an_invalid_value_is_reported(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        settings()
    assert f"{PREFIX}{name.upper()}={value!r}" in str(caught.value)


@pytest.mark.parametrize("value", ["hooks.example.org/token", "ftp://example.org/token"])
def test_an_invalid_webhook_is_not_printed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The URL itself is the secret."""
    monkeypatch.setenv("MUSIC_ASSETS_ALERT_WEBHOOK", value)
    with pytest.raises(SettingsError, match="MUSIC_ASSETS_ALERT_WEBHOOK: ") as caught:
        settings()
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is None])
def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", "")
    assert getattr(settings(), name) is None


def test_all_invalid_values_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_THREADS", "x")
    monkeypatch.setenv("MUSIC_ASSETS_MAX_ATTEMPTS", "y")
    with pytest.raises(SettingsError, match=r"(?s)MUSIC_ASSETS_THREADS='x'.*MUSIC_ASSETS_MAX_ATTEMPTS='y'"):
        settings()


def test_values_are_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"data": str(tmp_path), "threads": "3", "memory_limit": "2 GiB", "retry_pause": "0.5"}.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    found = settings()
    assert (found.data, found.threads, found.memory_limit, found.retry_pause) == (tmp_path, 3, "2 GiB", 0.5)


def test_invalid_spark_configuration_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may contain credentials."""
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", "spark.executor.cores=2")
    with pytest.raises(SettingsError, match="MUSIC_ASSETS_SPARK_CONF: ") as caught:
        settings()
    assert "cores" not in str(caught.value)


def test_spark_configuration_is_a_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", '{"spark.executor.cores": "2"}')
    assert settings().spark_conf == {"spark.executor.cores": "2"}
    settings.cache_clear()
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", '{"executor.cores": "2"}')
    with pytest.raises(SettingsError, match=r"MUSIC_ASSETS_SPARK_CONF: String should match"):
        settings()


@pytest.mark.parametrize(
    "address", ["s3://", "s3://b", "s3://UPPER/x", "s3:/bucket/x", "s3://bucket/a//b", "s3://bucket/%41"]
)
def test_an_invalid_address_is_reported(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", address)
    with pytest.raises(SettingsError, match=r"expected s3://BUCKET/PREFIX"):
        settings()


def test_an_address_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", "s3://my-bucket/music/")
    assert settings().data == "s3://my-bucket/music"
    settings.cache_clear()
    monkeypatch.setenv("MUSIC_ASSETS_ENGINE", "spark")
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_MASTER", "spark://host:7077")
    alternatives = (
        r"MUSIC_ASSETS_SPARK_MASTER=local\[\*\], MUSIC_ASSETS_ENGINE=duckdb, or MUSIC_ASSETS_DATA to a folder"
    )
    with pytest.raises(SettingsError, match=rf"MUSIC_ASSETS_SPARK_MASTER='spark://host:7077': .*Set {alternatives}"):
        settings()


def test_a_tilde_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", "~/music")
    assert settings().data == Path.home() / "music"
