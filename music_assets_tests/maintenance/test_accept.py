"""`music-assets accept` publishes the good rows that a failed check held back."""

import pytest
from typer.testing import CliRunner

from music_assets import cli
from music_assets.data_root import DataRoot
from music_assets.storage.published_snapshot import connect
from music_assets.tables import USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

HELD_BACK = "user_id,country,total_scrobbles\n5,Malta,3\nsix,Malta,1\nseven,Malta,1\n"
"""Two of three rows are rejected."""


@pytest.fixture
def project(data_root: DataRoot, settings_in_environment: None) -> Project:
    return Project(data_root)


def test_the_good_rows_are_published_as_they_are(project: Project) -> None:
    project.drop_both()
    assert project.refresh().success
    project.drop(USER_DATA, HELD_BACK)
    project.drop(USER_TOP_ARTISTS, "user_id,rank,artist_name,playcount,mbid\n5,1,Can,8,\n")
    assert not project.refresh().success
    assert "music-assets accept" in project.tick().skip_message

    accepted = CliRunner().invoke(cli.app, ["accept"])
    assert accepted.exit_code == 0, accepted.output
    assert "Rejected rows remain in rejected_rows." in accepted.output
    with connect(project.root) as connection:
        malta = connection.execute("FROM processed_parquet_artist_rank_in_country WHERE country = 'Malta'").fetchall()
        rejected = connection.execute("SELECT line, reason FROM rejected_rows ORDER BY line").fetchall()
    assert malta == [("Malta", "Can", 8.0, 1, 1)]
    assert rejected == [(3, "not an integer"), (4, "not an integer")]
    assert project.tick().skip_message == "No CSV file is waiting."

    again = CliRunner().invoke(cli.app, ["accept"])
    assert again.exit_code == 0
    assert "Nothing to accept" in again.output


def test_what_another_check_finds_is_not_accepted(project: Project) -> None:
    project.drop(USER_DATA, USERS)
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
    project.materialize_raw()
    project.put(USER_DATA, [{"user_id": None, "country": "Malta"}])
    refused = CliRunner().invoke(cli.app, ["accept"])
    assert refused.exit_code == 1
    assert "The check no_nulls of user_data fails" in refused.output
    assert not project.root.snapshots.exists()
