"""Settings come from the environment, are checked, and are all documented."""

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from music_assets.settings import PREFIX, Settings, SettingsError, settings

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def rows() -> list[str]:
    """The rows of the README's table of settings: variable, default, what it means."""
    return [
        f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


def _default(value: Any) -> str:
    return f"`{f'./{value}' if isinstance(value, Path) else value}`" if str(value) and value is not None else ""


def test_the_readme_documents_every_setting_as_it_is() -> None:
    """These rows are wanted; where the test fails, put them into the README: they stand in its message."""
    text = README.read_text(encoding="utf-8")
    missing = [row for row in rows() if row not in text]
    assert not missing, "\n" + "\n".join(missing)
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith(f"| `{PREFIX}")}
    assert documented == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


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
def test_a_value_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        settings()
    assert f"{PREFIX}{name.upper()}={value!r}" in str(caught.value)


@pytest.mark.parametrize("value", ["hooks.example.org/token", "ftp://example.org/token"])
def test_a_webhook_that_does_not_fit_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Its address is all that it takes to post to it."""
    monkeypatch.setenv("MUSIC_ASSETS_ALERT_WEBHOOK", value)
    with pytest.raises(SettingsError, match="MUSIC_ASSETS_ALERT_WEBHOOK: ") as caught:
        settings()
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.default is None])
def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", "")
    assert getattr(settings(), name) is None


def test_all_that_does_not_fit_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_THREADS", "x")
    monkeypatch.setenv("MUSIC_ASSETS_MAX_ATTEMPTS", "y")
    with pytest.raises(SettingsError, match=r"(?s)MUSIC_ASSETS_THREADS='x'.*MUSIC_ASSETS_MAX_ATTEMPTS='y'"):
        settings()


def test_values_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"data": str(tmp_path), "threads": "3", "memory_limit": "2 GiB", "retry_pause": "0.5"}.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    found = settings()
    assert (found.data, found.threads, found.memory_limit, found.retry_pause) == (tmp_path, 3, "2 GiB", 0.5)


def test_settings_of_spark_that_do_not_fit_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may hold keys of a store."""
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", "spark.executor.cores=2")
    with pytest.raises(SettingsError, match="MUSIC_ASSETS_SPARK_CONF: ") as caught:
        settings()
    assert "cores" not in str(caught.value)


def test_settings_of_spark_are_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", '{"spark.executor.cores": "2"}')
    assert settings().spark_conf == {"spark.executor.cores": "2"}
    settings.cache_clear()
    monkeypatch.setenv("MUSIC_ASSETS_SPARK_CONF", '{"executor.cores": "2"}')
    with pytest.raises(SettingsError, match=r"MUSIC_ASSETS_SPARK_CONF: String should match"):
        settings()


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", "~/music")
    assert settings().data == Path.home() / "music"
