"""Data roots of earlier releases are used and upgraded. Those of a later release are refused and not touched.

`layouts/` has a data root of each layout version, made by the code of a commit: `users.csv` and `artists.csv` dropped,
`refresh_rankings` and `train_embeddings` run, `later.csv` and `broken.csv` dropped, `refresh_rankings` run, and
`waiting.csv` dropped. Commit 81b371b made that of version 2, without the output of runs. Commit 873a108~1 (release 0.1,
which recorded no version) made that of version 1, without a Dagster home. Before the layout changes again, add an
archive of what it was.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from music_assets import cli
from music_assets.data_root import LAYOUT_VERSION, DataRoot
from music_assets.maintenance.doctor import Level, examine
from music_assets.runtime.dagster_home import prepare_dagster_home
from music_assets.settings import settings
from music_assets.storage.published_snapshot import connect
from music_assets_tests.support.project import Project

ARCHIVES = sorted((Path(__file__).parent / "layouts").glob("layout-*.tar.xz"))

# What was dropped, in this order:
#   users.csv    1 Germany, 2 Germany, 3 Japan, 4 Brazil, 5 without a country; 6 is rejected
#   artists.csv  1: Drake 60, ABBA 40. 2: ABBA 150, Björk 50. 3: Björk 250, Drake 50. 4: Gilberto Gil 10. 5: Drake 50.
#                3 has a rank of 51, which is rejected
#   later.csv    2 Japan
#   waiting.csv  1 Chile
RANKED = [
    ("Brazil", "Gilberto Gil", 10.0, 1, 1),
    ("Germany", "Drake", 60.0, 1, 1),
    ("Germany", "ABBA", 40.0, 2, 1),
    ("Japan", "Björk", 300.0, 1, 2),
    ("Japan", "ABBA", 150.0, 2, 1),
    ("Japan", "Drake", 50.0, 3, 1),
]
RANKED_AFTER_REFRESH = [
    RANKED[0],
    ("Chile", "Drake", 60.0, 1, 1),
    ("Chile", "ABBA", 40.0, 2, 1),
    *RANKED[3:],
]
REJECTED = [("artists.csv", 10, "rank outside 1 to 50"), ("users.csv", 7, "not an integer")]

COMMANDS = (
    ["drop", "FILE"],
    ["drops"],
    ["tables"],
    ["query", "SELECT 1"],
    ["retract", "0" * 12],
    ["forget", "1", "--yes"],
    ["rebuild"],
    ["accept"],
    ["backup", "FOLDER"],
    ["home"],
    ["serve", "--port", "0"],
    ["up"],
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def unpack(archive: Path, folder: Path) -> DataRoot:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return DataRoot(folder / "data")


def ranked(root: DataRoot) -> list[tuple[object, ...]]:
    with connect(root) as connection:
        return connection.execute(
            "FROM processed_parquet_artist_rank_in_country ORDER BY country, rank, artist_name"
        ).fetchall()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_root_of_an_earlier_release_is_used_and_upgraded(archive: Path, tmp_path: Path) -> None:
    root = unpack(archive, tmp_path)
    assert [row[:4] for row in ranked(root)] == [row[:4] for row in RANKED]
    project = Project(root)
    assert project.refresh().success
    assert root.has_layout(str(LAYOUT_VERSION))
    assert ranked(root) == RANKED_AFTER_REFRESH
    with connect(root) as connection:
        assert connection.execute("SELECT count(*) FROM raw_parquet_user_data").fetchall() == [(7,)]
        rejected = "SELECT source_file, line, reason FROM rejected_rows ORDER BY source_file"
        assert connection.execute(rejected).fetchall() == REJECTED
        assert connection.execute("SELECT user_id FROM processed_parquet_user_embedding ORDER BY 1").fetchall() == [
            (user,) for user in range(1, 6)
        ]
    assert [finding for finding in examine(project.settings) if finding.level is Level.PROBLEM] == []


def test_run_history_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    root = unpack(ARCHIVES[-1], tmp_path)
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(root))) as instance:
        runs = [(run.job_name, run.status) for run in instance.get_runs(ascending=True)]
    success = dg.DagsterRunStatus.SUCCESS
    assert runs == [("refresh_rankings", success), ("train_embeddings", success), ("refresh_rankings", success)]


def test_root_of_a_later_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = unpack(ARCHIVES[-1], tmp_path)
    root.record_layout(str(LAYOUT_VERSION + 1))
    (tmp_path / "users.csv").write_text("user_id,country,total_scrobbles\n9,Chile,1\n")
    monkeypatch.setenv("MUSIC_ASSETS_DATA", str(root))
    before = _contents(root)
    for command in COMMANDS:
        arguments = [{"FILE": str(tmp_path / "users.csv"), "FOLDER": str(tmp_path / "copy")}.get(a, a) for a in command]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 1, command
        message = (
            f"has layout version '{LAYOUT_VERSION + 1}', but this release supports versions up to {LAYOUT_VERSION}"
        )
        assert message in " ".join(result.stderr.split()), (command, result.stderr)
        assert _contents(root) == before, command
    assert any("layout version" in finding.found for finding in examine(settings()))


def _contents(root: DataRoot) -> dict[str, str]:
    """Return the content hash of each file of a data root."""
    files = (path for path in root.path.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
