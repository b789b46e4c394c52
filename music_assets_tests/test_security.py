"""Security rules: forbidden calls, file permissions, secrets in output, default addresses."""

import ast
import inspect
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import music_assets
from music_assets import cli
from music_assets.maintenance.doctor import examine
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.settings import Settings, settings
from music_assets.tables import USER_DATA
from music_assets_tests.support.project import Project

PACKAGE = Path(music_assets.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
SECRET = "s3cret-t0ken"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_shell_no_pickle_no_eval(path: Path) -> None:
    """File names and SQL are untrusted input, which must not become a command or an object.

    By default `np.load` refuses pickled objects. gensim's `load` accepts them.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([*node.names, ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert imported.isdisjoint({"pickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"})
    for call in calls(tree):
        assert name_of(call) not in {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput"}, call.lineno
        assert not name_of(call).endswith(".load") or name_of(call) in {"np.load", "ingest.load"}, call.lineno
        for keyword in call.keywords:
            assert not (keyword.arg in {"shell", "allow_pickle"} and ast.unparse(keyword.value) != "False"), call.lineno


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "x.npy")


@pytest.mark.parametrize(("umask", "forbidden"), [(0o022, 0o022), (0o077, 0o077)])
def test_file_permissions_respect_the_umask(tmp_path: Path, umask: int, forbidden: int) -> None:
    before = os.umask(umask)
    try:
        project = Project(tmp_path / "data")
        project.drop_both()
        project.drop(USER_DATA, "nonsense\n", "bad.csv")
        assert project.refresh().success
        prepare_dagster_home(project.root)
    finally:
        os.umask(before)
    wrong = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "data").rglob("*")
        if path.stat().st_mode & forbidden
    }
    assert wrong == {}


class TestSecrets:
    @pytest.fixture(autouse=True)
    def secrets(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        monkeypatch.setenv("MUSIC_ASSETS_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("MUSIC_ASSETS_API_KEYS", f"ann:{SECRET}")
        monkeypatch.setenv("MUSIC_ASSETS_ALERT_WEBHOOK", f"http://127.0.0.1:9/{SECRET}")
        monkeypatch.setenv("MUSIC_ASSETS_POSTGRES_URL", f"postgresql+psycopg2://ann:{SECRET}@127.0.0.1:9/dagster")
        settings.cache_clear()
        yield
        settings.cache_clear()

    def test_doctor_does_not_print_them(self) -> None:
        assert SECRET not in str(examine(Settings()))

    @pytest.mark.parametrize("command", [["doctor"], ["tables"], ["serve"], ["home"], ["up", "--port", "1"]])
    def test_no_command_prints_them(self, command: list[str]) -> None:
        """`serve` reports the invalid API key without its value."""
        result = CliRunner().invoke(cli.app, command)
        assert SECRET not in result.output

    def test_a_run_does_not_record_them(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "run", **Settings().model_dump(include={"api_keys", "alert_webhook"}))
        project.drop_both()
        run = project.refresh()
        assert run.success
        assert SECRET not in str(
            [event.to_string() if hasattr(event, "to_string") else event for event in run.all_events]
        )
        assert SECRET not in str(run.dagster_run)


def test_default_addresses_are_loopback() -> None:
    assert Settings().host == "127.0.0.1"
    assert inspect.signature(cli.up).parameters["host"].default == "127.0.0.1"
