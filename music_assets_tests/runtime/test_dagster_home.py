"""The Dagster home: its dagster.yaml, and the run history in SQLite or PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from music_assets.data_root import DataRoot
from music_assets.runtime.dagster_home import DatabaseError, prepare_dagster_home
from music_assets.settings import SettingsError, settings
from music_assets_tests.support.postgres import PASSWORD, postgres_server

UNREACHABLE = "postgresql+psycopg2://ann:s3cret@127.0.0.1:9/dagster"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("DAGSTER_HOME", "MUSIC_ASSETS_POSTGRES_URL"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


def test_the_home_of_the_data_root_follows_the_release(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the variable names it or not."""
    file = prepare_dagster_home(root) / "dagster.yaml"
    current = file.read_text()
    file.write_text("telemetry: {enabled: true}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(file.parent))
    assert prepare_dagster_home(root) / "dagster.yaml" == file
    assert file.read_text() == current
    assert [path.name for path in file.parent.iterdir()] == ["dagster.yaml"]


def test_runs_are_recorded_in_postgresql(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as url:
        monkeypatch.setenv("MUSIC_ASSETS_POSTGRES_URL", url)
        home = prepare_dagster_home(root)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            run = instance.create_run_for_job(_job)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert [each.run_id for each in instance.get_runs()] == [run.run_id]
    assert not list(root.dagster_home.rglob("*.db"))
    assert PASSWORD.partition("/")[0] not in (home / "dagster.yaml").read_text()


def test_a_database_that_does_not_answer_is_reported(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_POSTGRES_URL", UNREACHABLE)
    with pytest.raises(DatabaseError, match=r"port 9 failed: Connection refused.*MUSIC_ASSETS_POSTGRES_URL") as caught:
        prepare_dagster_home(root)
    assert "s3cret" not in str(caught.value)


def test_another_driver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster would fail later, with an error that names neither the variable nor the remedy."""
    monkeypatch.setenv("MUSIC_ASSETS_POSTGRES_URL", "postgresql://ann:s3cret@localhost/dagster")
    with pytest.raises(SettingsError, match=r"POSTGRES_URL: URL scheme should be 'postgresql\+psycopg2'") as caught:
        settings()
    assert "s3cret" not in str(caught.value)


@dg.job
def _job() -> None: ...
