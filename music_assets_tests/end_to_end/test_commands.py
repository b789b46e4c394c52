"""The commands that the README tells to type, from a plain shell."""

import sys
from pathlib import Path

from music_assets.data_root import DataRoot
from music_assets.ingest.landing import Landing
from music_assets.storage.published_snapshot import connect
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.end_to_end.conftest import Shell
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS

LATER = "user_id,country,total_scrobbles\n2,Germany,50\n"


def test_dagster_runs_the_job_and_materializes_single_assets(shell: Shell, tmp_path: Path) -> None:
    landing = Landing(DataRoot(tmp_path / "data"))
    landing.root.prepare()
    landing.root.drop_folder(USER_DATA).joinpath("users.csv").write_text(USERS)
    landing.root.drop_folder(USER_TOP_ARTISTS).joinpath("top.csv").write_text(TOP_ARTISTS)
    ended = shell(
        "dagster", "job", "execute", "-m", "music_assets.definitions", "-j", "refresh_rankings",
        MUSIC_ASSETS_SETTLE_SECONDS="0",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    with connect(landing.root) as connection:
        found = connection.execute("FROM processed_parquet_artist_rank_in_country ORDER BY country, rank").fetchall()
    assert found == RANKED_ARTISTS

    landing.root.drop_folder(USER_DATA).joinpath("later.csv").write_text(LATER)
    ended = shell(
        "dagster", "asset", "materialize", "-m", "music_assets.definitions",
        "--select", "raw_parquet/user_data,artist_rank_in_country",
        MUSIC_ASSETS_SETTLE_SECONDS="0",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert not landing.root.drop_folder(USER_DATA).joinpath("later.csv").exists()
    with connect(landing.root) as connection:
        unchanged = connection.execute("FROM processed_parquet_artist_rank_in_country ORDER BY ALL").fetchall()
    assert unchanged == sorted(RANKED_ARTISTS), "music_db was not asked for"


def test_dg_finds_the_definitions_valid(shell: Shell) -> None:
    """`dagster definitions validate` is part of `make lint`."""
    ended = shell("dg", "check", "defs")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "All definitions loaded successfully" in ended.stdout


def test_with_the_defaults_nothing_of_spark_is_imported(shell: Shell) -> None:
    """A JVM costs seconds and hundreds of megabytes, which whoever does not use it should not pay."""
    code = "import sys, music_assets.definitions; print({name.split('.')[0] for name in sys.modules} & %r)"
    ended = shell(sys.executable, "-c", code % {"pyspark", "dagster_pyspark", "py4j", "matplotlib", "gensim"})
    assert (ended.returncode, ended.stdout.strip()) == (0, "set()"), ended.stderr[-3000:]


def test_a_bad_setting_is_named_without_a_traceback(shell: Shell) -> None:
    ended = shell("music-assets", "tables", MUSIC_ASSETS_THREADS="many")
    assert ended.returncode == 1
    assert "MUSIC_ASSETS_THREADS='many'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_demo_shows_the_tables(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    ended = shell("music-assets", "demo", "--users", 400, "--data", folder)
    assert ended.returncode == 0, ended.stderr[-3000:]
    with connect(DataRoot(folder)) as connection:
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

    (folder / ".music-assets-demo").unlink()
    refused = shell("music-assets", "demo", "--data", folder)
    assert refused.returncode == 1
    assert "was not created by the demo" in refused.stderr
    assert (folder / "music_db").is_dir(), "what a person keeps there must not be emptied"
