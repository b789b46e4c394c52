"""The commands of the README, in a plain shell."""

import re
import sys

from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect
from music_assets.tables import REFRESH_RANKINGS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.end_to_end.conftest import Shell
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS


def test_dagster_runs_the_job_and_materializes_single_assets(shell: Shell, root: DataRoot) -> None:
    root.prepare()
    root.drop_folder(USER_DATA).joinpath("users.csv").write_text(USERS)
    root.drop_folder(USER_TOP_ARTISTS).joinpath("top.csv").write_text(TOP_ARTISTS)
    ended = shell(
        "dagster", "job", "execute", "-m", "music_assets.definitions", "-j", REFRESH_RANKINGS,
        MUSIC_ASSETS_SETTLE_SECONDS="0",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ranking(root) == RANKED_ARTISTS

    later = root.drop_folder(USER_DATA) / "later.csv"
    later.write_text("user_id,country,total_scrobbles\n2,Germany,50\n")
    ended = shell(
        "dagster", "asset", "materialize", "-m", "music_assets.definitions",
        "--select", "raw_parquet/user_data,artist_rank_in_country",
        MUSIC_ASSETS_SETTLE_SECONDS="0",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert not later.exists()
    assert ranking(root) == RANKED_ARTISTS, "music_db was not selected"


def ranking(root: DataRoot) -> list[tuple]:
    with connect(root) as connection:
        return connection.execute("FROM processed_parquet_artist_rank_in_country ORDER BY country, rank").fetchall()


def test_dg_validates_the_definitions(shell: Shell) -> None:
    """`dagster definitions validate` is part of `make lint`."""
    ended = shell("dg", "check", "defs")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "All definitions loaded successfully" in ended.stdout


def test_loading_the_definitions_does_not_import_spark(shell: Shell) -> None:
    """Nor other libraries that few runs need."""
    code = "import sys, music_assets.definitions; print({name.split('.')[0] for name in sys.modules} & %r)"
    ended = shell(sys.executable, "-c", code % {"pyspark", "dagster_pyspark", "py4j", "matplotlib", "gensim"})
    assert (ended.returncode, ended.stdout.strip()) == (0, "set()"), ended.stderr[-3000:]


def test_demo_prints_the_tables(shell: Shell, root: DataRoot) -> None:
    ended = shell("music-assets", "demo", "--users", 400, "--data", root)
    assert ended.returncode == 0, ended.stderr[-3000:]
    with connect(root) as connection:
        first = connection.execute(
            "SELECT artist_name FROM processed_parquet_artist_rank_in_country WHERE country = 'Germany' AND rank = 1"
        ).fetchone()
        reasons = connection.execute("SELECT DISTINCT reason FROM rejected_rows").fetchall()
    for words in (
        "Top 10 artists in Germany",
        first[0],
        "Top 10 countries of Drake",
        "raw_parquet_user_top_artists",
        "Rejected rows by reason",
        *(reason for (reason,) in reasons),
        "music-assets query",
    ):
        assert words in ended.stdout
    assert len(reasons) >= 5
    variable, *commands = ended.stdout.splitlines()[-4:]
    assert variable == f"  export MUSIC_ASSETS_DATA={root}"
    for command, rest in zip(commands, ("query .*", "drop .*", "up  # then open http://127.0.0.1:8000"), strict=True):
        assert re.fullmatch(rf"  \S+/bin/music-assets {rest}", command), "they run though .venv is not active"

    root.demo_mark.unlink()
    refused = shell("music-assets", "demo", "--data", root)
    assert refused.returncode == 1
    assert "was not created by the demo" in refused.stderr
    assert root.snapshots.is_dir(), "a folder that the demo did not create was emptied"
