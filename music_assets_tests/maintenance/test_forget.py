"""`music-assets forget` leaves no trace of a user below the data root, whenever it is killed."""

import gzip
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner, Result

from music_assets.cli import app
from music_assets.data_root import DataRoot, exclusive_lock
from music_assets.maintenance.doctor import Level, examine
from music_assets.maintenance.redaction import UnsearchableError, redact
from music_assets.settings import settings
from music_assets.storage.lineage import INPUTS
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.tables import (
    ARTIST_EMBEDDING,
    RAW_TABLES,
    REJECTED_ROWS,
    TRAIN_EMBEDDINGS,
    USER_DATA,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
)
from music_assets_tests.faults.deployment import Deployment
from music_assets_tests.faults.kill_points import Fault, KillPoint
from music_assets_tests.support.corruption import copy_root
from music_assets_tests.support.project import Project
from music_assets_tests.support.training import drop

USER = 987654321
ARTIST = "Zzyzx Unheard-of Quartet"
USERS = "user_id,country,total_scrobbles\n"
ARTISTS = "user_id,rank,artist_name,playcount,mbid\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root in which the user is in every place where a user can be."""
    path = tmp_path_factory.mktemp("forget") / "data"
    project = Project(path, reject_fail_share=1.0)
    drop(path, 60, 0)
    project.drop(USER_DATA, USERS + f"{USER},Germany,5\n", "alone.csv")
    project.drop(USER_TOP_ARTISTS, ARTISTS + f"{USER},1,{ARTIST},7,\n{USER},2,Can,3,\n1,50,Can,1,\n", "mixed.csv")
    project.drop(USER_DATA, USERS + f"{USER},Germany,-5\n61,Mali,-1\nx,Mali,1\n", "dirty.csv")
    bad = f"user_id,rank,artist_name\n{USER},1,{ARTIST}\n61,1,Can\n"
    project.drop(USER_TOP_ARTISTS, bad, "bad.csv")
    (project.root.drop_folder(USER_TOP_ARTISTS) / "bad.csv.gz").write_bytes(gzip.compress(bad.encode()))
    assert project.refresh().success
    training = project.defs.resolve_job_def(TRAIN_EMBEDDINGS)
    assert training.execute_in_process(instance=project.instance).success
    for number in range(3):
        project.drop(USER_DATA, USERS + f"{USER},France,{number}\n", f"again {number}.csv")
        assert project.refresh().success
    DeltaTable(str(project.store.folder(USER_DATA))).create_checkpoint()
    (project.root.damaged / "2026").mkdir(parents=True)
    (project.root.damaged / "2026" / "rows.txt").write_text(f"{USER} {ARTIST}")
    project.root.training.mkdir(parents=True, exist_ok=True)
    (project.root.training / "rows.txt").write_text(f"{USER} {ARTIST}")
    return path


@pytest.fixture
def project(published: Path, data_root: DataRoot, settings_in_environment: None) -> Project:
    """Return a copy of that data root."""
    return Project(copy_root(published, data_root), reject_fail_share=1.0)


def forget(*users: int, answer: str | None = None) -> Result:
    arguments = ["forget", *map(str, users), *([] if answer else ["--yes"])]
    return CliRunner().invoke(app, arguments, input=answer)


def traces(root: DataRoot) -> list[str]:
    """Return the files that contain the user's id or artist, in their bytes or, for parquet and DuckDB, in a value.

    Of a root on S3 these are the objects, and the files of the work folder.
    """
    found = [str(path.relative_to(root.path)) for path in sorted(root.path.rglob("*")) if _has_trace(path)]
    if root.store:
        with TemporaryDirectory() as folder:
            for number, path in enumerate(root.files_below(root.path)):
                copy = Path(folder) / f"{number}{path.suffix}"
                root.copy_out(path, copy)
                found += [root.address(path)] if _has_trace(copy) else []
    return found


def _has_trace(path: Path) -> bool:
    if not path.is_file():
        return False
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if any(text.encode() in content for text in (ARTIST, str(USER))):
        return True
    if path.suffix == ".parquet":
        return _is_in(str(pq.read_table(path).to_pylist()))
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            names = connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
            return any(_is_in(str(connection.table(".".join(name)).fetchall())) for name in names)
    return False


def _is_in(text: str) -> bool:
    return str(USER) in text or ARTIST in text


def others(root: DataRoot) -> dict[str, list[tuple]]:
    """Return the published rows of other users."""
    queries = {
        "users": "SELECT user_id, country, total_scrobbles FROM current_user_data",
        "artists": "SELECT user_id, rank, artist_name, playcount FROM current_user_top_artists",
        "user vectors": "SELECT user_id, dim_0 FROM processed_parquet_user_embedding",
        "artist vectors": "SELECT artist_name, dim_0 FROM processed_parquet_artist_embedding",
        "rejects": "SELECT source_file, raw_line FROM rejected_rows",
    }
    with connect(root) as connection:
        rows = {
            name: connection.execute(f"SELECT * FROM ({sql}) ORDER BY ALL").fetchall() for name, sql in queries.items()
        }
    return {name: [row for row in found if not _is_in(str(row))] for name, found in rows.items()}


def test_no_byte_below_the_data_root_has_the_user(project: Project) -> None:
    before = others(project.root)
    assert len(traces(project.root)) > 10
    result = forget(USER)
    assert result.exit_code == 0, result.output
    assert traces(project.root) == []
    assert others(project.root) == before
    left = project.root.files_below(project.root.snapshots)
    assert len([path for path in left if path.suffix == ".duckdb"]) == 1
    for line in (
        "raw_parquet_user_data: 4 rows deleted",
        "raw_parquet_user_top_artists: 2 rows deleted",
        "rejected_rows: 1 rows deleted",
        "processed_parquet_user_embedding: 1 rows deleted",
        "processed_parquet_artist_embedding: 1 rows deleted",
        f"{project.root.address(project.root.rejected)}/bad.csv: 1 lines removed",
        f"{project.root.address(project.root.rejected)}/bad.csv.gz: 1 lines removed",
        f"{project.root.address(project.root.damaged)}: deleted",
    ):
        assert line in result.stdout
    assert str(USER) not in result.stdout
    assert project.root.read(project.root.rejected / "bad.csv") == b"user_id,rank,artist_name\n61,1,Can\n"
    assert [each for each in examine(project.settings) if each.level is Level.PROBLEM] == []


def test_vectors_of_release_0_1_are_erased_too(project: Project) -> None:
    """Their table has no column `listeners`."""
    store = project.store
    inputs = store.latest_commit_metadata(ARTIST_EMBEDDING, INPUTS)
    (file,) = store.table_version(ARTIST_EMBEDDING).files
    old = store.new_folder(ARTIST_EMBEDDING) / "rows.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["listeners", "trained"]), old)
    store.replace(ARTIST_EMBEDDING, [old], {INPUTS: inputs})
    result = forget(USER)
    assert result.exit_code == 0, result.output
    assert "processed_parquet_artist_embedding: 1 rows deleted" in result.stdout


def test_everything_works_afterwards(project: Project) -> None:
    """A refresh, a training, a lookup of tables that plain deltalake reads, and the user may come back."""
    assert forget(USER).exit_code == 0
    for table in (*RAW_TABLES, REJECTED_ROWS, USER_EMBEDDING, ARTIST_EMBEDDING):
        delta = DeltaTable(str(project.store.folder(table)))
        assert delta.to_pyarrow_table().num_rows == project.store.table_version(table).rows
        assert delta.history()
    project.drop(USER_DATA, USERS + f"{USER},Peru,5\n", "back.csv")
    assert project.refresh().success
    training = project.defs.resolve_job_def(TRAIN_EMBEDDINGS)
    assert training.execute_in_process(instance=project.instance).success
    with connect(project.root) as connection:
        assert connection.execute(f"SELECT country FROM current_user_data WHERE user_id = {USER}").fetchall() == [
            ("Peru",)
        ]
    assert forget(USER).exit_code == 0
    assert traces(project.root) == []


def test_user_whom_nobody_knows(project: Project) -> None:
    before = others(project.root)
    result = forget(USER - 1)
    assert result.exit_code == 0, result.output
    assert "raw_parquet_user_data: 0 rows deleted" in result.stdout
    assert others(project.root) == before


def test_question_is_asked_first(project: Project) -> None:
    before = newest_snapshot(project.root).data_version
    assert forget(USER, answer="n\n").exit_code == 1
    assert newest_snapshot(project.root).data_version == before


@pytest.mark.parametrize("lock", ["ingest_lock", "training_lock"])
def test_erasure_is_refused_while_something_runs(project: Project, lock: str) -> None:
    with exclusive_lock(getattr(project.root, lock)):
        result = forget(USER)
    assert result.exit_code == 1
    assert "Another process is loading files, removing rows or training" in result.output
    assert project.store.table_version(USER_DATA).rows == 64


def test_waiting_file_and_archive_are_named(project: Project) -> None:
    waiting = project.drop(USER_DATA, USERS + f"{USER},Peru,5\n", "waits.csv")
    archive = project.root.rejected / "a.csv"
    archive.write_bytes(b"PK\x03\x04 anything")
    result = forget(USER)
    assert result.exit_code == 1
    assert f"{waiting}: waits" in result.output
    assert f"{archive} is an archive" in result.output
    assert traces(project.root) == [str(waiting.relative_to(project.root.path))]


def test_nothing_is_published_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(tmp_path))
    settings.cache_clear()
    project = Project(tmp_path)
    project.drop(USER_DATA, USERS + f"{USER},Peru,5\n1,Peru,5\n")
    project.materialize_raw()
    assert forget(USER).exit_code == 0
    assert traces(project.root) == []
    assert project.store.table_version(USER_DATA).rows == 1


@pytest.mark.parametrize("occurrence", [1, 5])
def test_killed_erasure_is_repeated(project: Project, tmp_path: Path, occurrence: int) -> None:
    """The first commit is that of user_data, the fifth that of the users' vectors."""
    check_killed_erasure(project, tmp_path, occurrence)


def test_erasure_killed_before_the_vectors_is_repeated(project: Project, tmp_path: Path) -> None:
    """The fourth commit is that of the artists' vectors, which the users' vectors name."""
    check_killed_erasure(project, tmp_path, 4)


def check_killed_erasure(project: Project, tmp_path: Path, occurrence: int) -> None:
    """The refresh between both erasures places all users again, among one artist less."""
    before = others(project.root)
    before["user vectors"] = [(user, pytest.approx(value, abs=0.01)) for user, value in before["user vectors"]]
    deployment = Deployment(project.root, tmp_path / "home")
    command = ("forget", str(USER), "--yes")
    assert deployment.run(command, Fault(KillPoint.AFTER_REMOVAL_OF_ROWS, occurrence)) == -signal.SIGKILL
    assert project.refresh().success
    assert others(project.root) == before
    assert deployment.run(command) == 0, deployment.log_end
    assert traces(project.root) == []
    assert others(project.root) == before


@pytest.mark.parametrize(
    ("content", "left", "removed"),
    [
        pytest.param(b"a,b\n12,x\n112,y\n", b"a,b\n112,y\n", 1, id="first field"),
        pytest.param(b'a\r\n"12",x\r\n13\r\n', b"a\r\n13\r\n", 1, id="quoted, CRLF"),
        pytest.param(b'a\n12,"x\ny"\n13\n', b"a\n13\n", 1, id="over two lines"),
        pytest.param(b"a\n012,x\n12.0,y\n", b"a\n", 2, id="zeros"),
        pytest.param(b"-12\nx12\n1-12-3\n", b"-12\nx12\n1-12-3\n", 0, id="part of something else"),
        pytest.param(b"\x1f\x8b not gzip\n12,x\n", b"\x1f\x8b not gzip\n", 1, id="not gzip"),
        pytest.param(b"a\n12,\xff\n\xff,13\n", b"a\n\xff,13\n", 1, id="not UTF-8"),
        pytest.param(b'a\n1,"\n12,x\n' + b"13\n" * 200, b'a\n1,"\n' + b"13\n" * 200, 1, id="stray quote"),
        pytest.param("a\n12,ä\n13\n".encode("utf-16"), "a\n13\n".encode("utf-16"), 1, id="UTF-16"),
        pytest.param("a\n12\n13\n".encode("utf-16-be"), "a\n13\n".encode("utf-16-be"), 1, id="UTF-16 big-endian"),
    ],
)
def test_rows_with_the_number_are_removed(tmp_path: Path, content: bytes, left: bytes, removed: int) -> None:
    path = tmp_path / "rejected.csv"
    path.write_bytes(content)
    assert redact(path, [12, 99]) == removed
    assert path.read_bytes() == left


@pytest.mark.parametrize("content", [b"PK\x03\x04", gzip.compress(b"12,x\n" * 100)[:-12]], ids=["zip", "damaged gzip"])
def test_file_that_cannot_be_searched_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rejected.csv"
    path.write_bytes(content)
    with pytest.raises(UnsearchableError, match=r"rejected\.csv is"):
        redact(path, [12])
    assert path.read_bytes() == content
