"""The command line: output and exit codes of the commands."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer.main
from typer.testing import CliRunner, Result

from music_assets import cli
from music_assets.settings import Settings, settings
from music_assets.tables import PUBLISHED_TABLES
from music_assets_tests.support.disk import unprivileged
from music_assets_tests.support.processes import TIMEOUT, wait_until
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

COMMANDS = [
    "forget",
    "generate",
    "drop",
    "drops",
    "retract",
    "query",
    "mcp",
    "api-key",
    "tables",
    "snapshot",
    "doctor",
    "rebuild",
    "accept",
    "backup",
    "restore",
    "home",
    "up",
    "serve",
    "demo",
]


class Shell:
    """Runs commands on a data root."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.monkeypatch = monkeypatch
        self.set("data", str(root))
        monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def set(self, name: str, value: str) -> None:
        self.monkeypatch.setenv(f"MUSIC_ASSETS_{name.upper()}", value)
        settings.cache_clear()

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    def fails(self, *arguments: object) -> str:
        """Run a command that must fail, and return its error message."""
        result = self(*arguments)
        assert result.exit_code == 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return " ".join(result.stderr.split())

    def rows(self, sql: str, *options: object) -> list[dict[str, Any]]:
        """Return the rows of a query, parsed as strict JSON."""
        result = self("query", sql, "--format", "json", *options)
        assert result.exit_code == 0, result.output

        def no_constant(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(result.stdout, parse_constant=no_constant)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    return Shell(monkeypatch, tmp_path / "data")


@pytest.fixture(scope="module")
def published_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(tmp_path_factory.mktemp("published"))
    project.drop_both()
    assert project.refresh().success
    return project.root


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, published_root: Path) -> Shell:
    return Shell(monkeypatch, published_root)


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)], ids=str)
def test_help_is_printed(shell: Shell, command: list[str]) -> None:
    result = shell(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    if not command:
        assert all(name in result.stdout for name in COMMANDS)


def test_every_parameter_of_every_command_has_a_help_text() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert sorted(commands) == sorted(COMMANDS)
    for name, command in commands.items():
        assert command.help, name
        assert all(parameter.help for parameter in command.params if parameter.name != "help"), name


class TestGenerate:
    def test_it_writes_both_files_and_prints_their_paths(self, shell: Shell, tmp_path: Path) -> None:
        result = shell("generate", tmp_path / "out", "--users", 30, "--seed", 3, "--dirty", 0.1)
        assert result.exit_code == 0, result.output
        for name in ("users.csv", "user_top_artists.csv"):
            assert str(tmp_path / "out" / name) in result.stdout
        shell("generate", tmp_path / "same", "--users", 30, "--seed", 3, "--dirty", 0.1)
        assert (tmp_path / "same/users.csv").read_bytes() == (tmp_path / "out/users.csv").read_bytes()

    @pytest.mark.parametrize("options", [("--users", 0), ("--users", 5, "--dirty", 0.9), ()])
    def test_options_out_of_range_are_refused(self, shell: Shell, tmp_path: Path, options: Any) -> None:
        assert shell("generate", tmp_path, *options).exit_code == 2

    def test_files_are_put_into_the_drop_folders_of_a_data_root(self, shell: Shell, tmp_path: Path) -> None:
        for _ in range(2):
            result = shell("generate", "--users", 30, "--seed", 3, "--to", tmp_path / "root")
            assert result.exit_code == 0, result.output
        folder = tmp_path / "root" / "user_data"
        placed = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.csv"))
        assert placed == [
            "user_data/users-2.csv",
            "user_data/users.csv",
            "user_top_artists/user_top_artists-2.csv",
            "user_top_artists/user_top_artists.csv",
        ], "nothing that waits is overwritten"
        assert f"{folder}/user_data/users-2.csv  " in result.stdout
        shell("generate", tmp_path / "out", "--users", 30, "--seed", 3)
        assert (tmp_path / "out/users.csv").read_bytes() == (folder / "user_data/users.csv").read_bytes()
        assert "expected s3://BUCKET/PREFIX" in shell.fails("generate", "--users", 30, "--to", "s3://")

    @pytest.mark.parametrize("target", [(), ("out", "--to", "root")])
    def test_one_target_is_required(self, shell: Shell, target: Any) -> None:
        result = shell("generate", "--users", 5, *target)
        assert result.exit_code == 2
        assert "Give either an output folder or --to" in " ".join(result.output.replace("│", " ").split())

    def test_a_folder_that_cannot_be_created_is_reported(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert str(tmp_path / "file") in shell.fails("generate", tmp_path / "file", "--users", 5)

    def test_too_many_users_are_refused(self, shell: Shell, tmp_path: Path) -> None:
        assert "users" in shell.fails("generate", tmp_path, "--users", 3_000_000_000)


class TestDrop:
    def test_files_are_copied_by_header_and_bad_files_are_reported(self, shell: Shell, tmp_path: Path) -> None:
        files = {
            "a.csv": TOP_ARTISTS.encode(),
            "wrong.csv": b"name,age\nx,1\n",
            "b [1].csv": USERS.encode(),
            "c.csv.gz": gzip.compress(USERS.replace("Germany", "Malta").encode()),
            "empty.csv": b"",
            "notes.txt": USERS.encode(),
            os.fsdecode(b"caf\xe9.csv"): USERS.replace("Germany", "Mali").encode(),
            os.fsdecode(b"caf\xea.csv"): b"",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        said = shell.fails("drop", *(tmp_path / name for name in files), tmp_path / "missing.csv", tmp_path)
        dropped = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.csv*")}
        assert dropped == {
            "user_data/user_top_artists/a.csv",
            "user_data/user_data/b [1].csv",
            "user_data/user_data/c.csv.gz",
            "user_data/user_data/caf\ufffd.csv",
        }
        assert (tmp_path / "data/user_data/user_top_artists/a.csv").read_text() == TOP_ARTISTS
        assert "wrong.csv: not dropped: the header, which is: name,age, fits no table. Expected" in said
        assert "empty.csv: not dropped: empty" in said
        assert "caf\ufffd.csv: not dropped: empty" in said
        assert "notes.txt: not dropped: its name ends neither in .csv nor in .csv.gz" in said
        assert "missing.csv: not dropped: No such file" in said
        assert f"{tmp_path}: not dropped" in said

    def test_a_waiting_file_is_not_overwritten(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "u.csv").write_text(USERS)
        result = shell("drop", tmp_path / "u.csv", tmp_path / "u.csv")
        assert result.exit_code == 0, result.output
        folder = tmp_path / "data/user_data/user_data"
        assert sorted(path.name for path in folder.iterdir()) == ["u-2.csv", "u.csv"]
        assert str(folder / "u-2.csv") in result.stdout


class TestQuery:
    def test_without_a_snapshot_the_message_says_what_to_do(self, shell: Shell) -> None:
        for command in (["query", "SELECT 1"], ["tables"]):
            said = shell.fails(*command)
            assert "Nothing is published" in said and "refresh_rankings" in said

    def test_a_table_is_printed(self, asking: Shell) -> None:
        result = asking("query", "SELECT artist_name, rank FROM processed_parquet_artist_rank_in_country ORDER BY ALL")
        assert result.exit_code == 0
        assert "Earth, Wind & Fire" in result.stdout
        assert "5 rows" in result.stderr

    def test_every_row_is_printed_unless_limited(self, asking: Shell) -> None:
        assert len(asking.rows("FROM range(25000)")) == 25_000
        assert asking.rows("FROM range(25000)", "--limit", 2) == [{"range": 0}, {"range": 1}]
        assert len(asking("query", "FROM range(25000)", "--format", "csv").stdout.splitlines()) == 25_001

    def test_markup_in_values_is_printed_literally(self, asking: Shell) -> None:
        result = asking("query", r"SELECT '[bold]x[/]' AS a, '\[red]y' AS b, 'z\' AS c")
        assert result.exit_code == 0, result.output
        assert all(text in result.stdout for text in ("[bold]x[/]", r"\[red]y", "z\\ "))

    @pytest.mark.parametrize("output", ["table", "json", "csv"])
    @pytest.mark.parametrize(
        ("sql", "said"),
        [
            ("SELEC 1", "syntax error"),
            ("SELECT nothing FROM raw_parquet_user_data", "nothing"),
            ("FROM missing", "missing"),
            ("SELECT error('[oops]')", "[oops]"),
            ("DROP TABLE processed_parquet_artist_rank_in_country", "read-only"),
            ("", "returns no rows"),
        ],
    )
    def test_errors_are_printed_without_a_traceback(self, asking: Shell, sql: str, said: str, output: str) -> None:
        assert said in asking.fails("query", sql, "--format", output)

    def test_an_interrupt_ends_a_running_statement(self, asking: Shell) -> None:
        """DuckDB waited forever for its tasks, or there was a traceback."""
        sql = "SELECT count(*) FROM range(100_000_000) a, range(100_000) b"
        command = [sys.executable, "-m", "music_assets", "query", sql]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            files = psutil.Process(process.pid).open_files
            wait_until(lambda: any(file.path.endswith(".duckdb") for file in files()), "the query", process=process)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=TIMEOUT)[1] == b""
        assert process.returncode == -signal.SIGINT

    def test_an_unknown_format_or_limit_is_refused(self, asking: Shell) -> None:
        assert asking("query", "SELECT 1", "--format", "xml").exit_code == 2
        assert asking("query", "SELECT 1", "--limit", "-1").exit_code == 2


def test_tables_lists_every_table_with_its_rows(asking: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.out, "width", 200)
    result = asking("tables")
    assert result.exit_code == 0
    for table in PUBLISHED_TABLES:
        assert table.full_name in result.stdout


def test_home_follows_the_data_root(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DAGSTER_HOME was exported for one data root, and MUSIC_ASSETS_DATA set to another one since."""
    other = tmp_path / "other/.dagster_home"
    monkeypatch.setenv("DAGSTER_HOME", str(other))
    result = shell("home")
    assert result.stdout == f"{tmp_path / 'data/.dagster_home'}\n"
    assert f"DAGSTER_HOME is that of another data root, {other}." in result.stderr
    assert not other.exists()


def test_doctor_in_a_pipe_does_not_break_paths(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long " * 30)
    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(folder))
    settings.cache_clear()
    assert f"{folder} is not a folder" in shell("doctor").stdout


def test_home_is_created_in_the_data_root(shell: Shell, tmp_path: Path) -> None:
    result = shell("home")
    assert result.stdout == f"{tmp_path / 'data/.dagster_home'}\n"
    assert (tmp_path / "data/.dagster_home/dagster.yaml").is_file()


def test_a_dagster_yaml_in_dagster_home_is_not_overwritten(shell: Shell, tmp_path: Path) -> None:
    shell.monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert shell("home").stdout == f"{tmp_path / 'own'}\n"
    assert (tmp_path / "own/dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.parametrize("command", [["tables"], ["query", "SELECT 1"], ["drop", "a.csv"], ["home"], ["up"]])
def test_an_invalid_setting_is_reported(shell: Shell, command: list[str]) -> None:
    shell.set("threads", "many")
    assert "MUSIC_ASSETS_THREADS='many'" in shell.fails(*command)


def test_serve_listens_where_its_options_say(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Settings] = []
    monkeypatch.setattr("music_assets.service.app.serve", served.append)
    shell.set("port", "8001")
    for options in ((), ("--host", "::1"), ("--port", 0)):
        assert shell("serve", *options).exit_code == 0
    assert [(each.host, each.port) for each in served] == [("127.0.0.1", 8001), ("::1", 8001), ("127.0.0.1", 0)]


@pytest.mark.parametrize(("host", "in_url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_up_reports_a_port_in_use(shell: Shell, host: str, in_url: str) -> None:
    try:
        taken = socket.create_server((host, 0), family=socket.AF_INET6 if host == "::1" else socket.AF_INET)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with taken:
        port = taken.getsockname()[1]
        said = shell.fails("up", "--host", host, "--port", port)
    assert f"Cannot listen on http://{in_url}:{port}: Address already in use" in said and "--port" in said


@pytest.mark.parametrize("command", [["tables"], ["query", "SELECT 1"], ["home"], ["up"], ["demo", "--data", "."]])
def test_a_data_root_that_is_a_file_is_reported(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("")
    (tmp_path / "other").write_text("not a file of the demo")
    assert str(tmp_path) in shell.fails(*command)


@pytest.mark.parametrize(
    "command",
    ["accept", "backup copy", "drops", "forget 1 --yes", "rebuild", "retract 1234abcd --yes"],
)
def test_a_mistyped_data_root_is_reported(shell: Shell, tmp_path: Path, command: str) -> None:
    """An erasure of a user from nowhere ended with `Done.`"""
    assert f"There is no data root at {tmp_path / 'data'}. Set MUSIC_ASSETS_DATA" in shell.fails(*command.split())
    assert not (tmp_path / "data").exists()


def test_an_unreadable_data_root_is_reported(shell: Shell) -> None:
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder) / "closed"
        closed.mkdir(mode=0)
        shell.set("data", str(closed / "data"))
        Path(folder).chmod(0o755)
        with unprivileged():
            for command in (["tables"], ["query", "SELECT 1"], ["home"], ["up"]):
                assert "Permission denied" in shell.fails(*command)
