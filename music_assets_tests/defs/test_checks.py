"""Each check passes on a good table and fails on a broken one; a failed blocking check stops the run."""

import hashlib
import shutil
import time
from datetime import datetime
from typing import Any

import dagster as dg
import pytest

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.defs.checks import CHECKS, Check, CheckContext, Thresholds, reject_share
from music_assets.maintenance.drops import list_drops
from music_assets.maintenance.retract import retract
from music_assets.storage.lineage import FILES
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets.tables import (
    ARTIST_EMBEDDING,
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    USER_DATA,
    USER_EMBEDDING,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets.transforms.current_rows import CurrentRows
from music_assets.transforms.unranked_plays import unranked_plays
from music_assets_tests.support.project import RANKED_ARTISTS, TOP_ARTISTS, USERS, Project

STAMP = {"source_file": "a.csv", "ingested_at": datetime(2024, 1, 1)}


def user(user_id: int | None, country: str | None = "Germany", **values: Any) -> dict[str, Any]:
    return {"user_id": user_id, "country": country, "total_scrobbles": 5, **STAMP, **values}


def top(user_id: int | None, rank: int | None, artist: str | None = "Can", **values: Any) -> dict[str, Any]:
    return {"user_id": user_id, "rank": rank, "artist_name": artist, "playcount": 5, **STAMP, **values}


def ranked(country: str | None, artist: str | None, plays: float | None, rank: int | None) -> dict[str, Any]:
    return {"country": country, "artist_name": artist, "total_playcount": plays, "rank": rank, "listeners": 1}


def share(country: str | None, artist: str | None, popularity: float | None, rank: int | None) -> dict[str, Any]:
    plays = None if popularity is None else popularity * 100
    return {**ranked(country, artist, plays, rank), "normalized_popularity": popularity}


GOOD = {
    USER_DATA: [user(1), user(2, None), user(3, "France", total_scrobbles=None)],
    USER_TOP_ARTISTS: [top(1, 1), top(1, 2, "Neu!"), top(2, 50, playcount=None)],
    ARTIST_RANK_IN_COUNTRY: [
        ranked("France", "Air", 4.0, 1),
        ranked("Germany", "Can", 5.0, 1),
        ranked("Germany", "Neu!", 5.0, 2),
        ranked("Germany", "Zweiraum", 0.0, 3),
    ],
    COUNTRY_RANK_PER_ARTIST: [
        share("France", "Air", 1.0, 1),
        share("Germany", "Air", 0.25, 2),
        share("Germany", "Can", 0.75, 1),
        share("Malta", "Can", 0.0, 2),
    ],
}
NOT_NULL = {
    USER_DATA: ("user_id", "source_file", "ingested_at"),
    USER_TOP_ARTISTS: ("user_id", "rank", "artist_name", "source_file", "ingested_at"),
    ARTIST_RANK_IN_COUNTRY: ("country", "artist_name", "total_playcount", "rank", "listeners"),
    COUNTRY_RANK_PER_ARTIST: (
        "country",
        "artist_name",
        "total_playcount",
        "normalized_popularity",
        "rank",
        "listeners",
    ),
}
BROKEN = [
    *(
        pytest.param(table, "no_nulls", [*GOOD[table], {**GOOD[table][0], column: None}], id=f"{table.name}-{column}")
        for table, columns in NOT_NULL.items()
        for column in columns
    ),
    pytest.param(
        ARTIST_RANK_IN_COUNTRY,
        "keys_unique",
        [*GOOD[ARTIST_RANK_IN_COUNTRY], ranked("Germany", "Can", 1.0, 4)],
        id="artist twice in a country",
    ),
    pytest.param(
        COUNTRY_RANK_PER_ARTIST,
        "keys_unique",
        [*GOOD[COUNTRY_RANK_PER_ARTIST], share("Germany", "Can", 0.0, 3)],
        id="country twice for an artist",
    ),
    *(
        pytest.param(ARTIST_RANK_IN_COUNTRY, "ranks_in_order", rows, id=f"artists: {what}")
        for what, rows in {
            "begins at 2": [ranked("Malta", "Can", 5.0, 2)],
            "gap": [ranked("Malta", "Can", 5.0, 1), ranked("Malta", "Air", 4.0, 3)],
            "rank twice": [ranked("Malta", "Can", 5.0, 1), ranked("Malta", "Air", 4.0, 1)],
            "more plays behind": [ranked("Malta", "Can", 5.0, 1), ranked("Malta", "Air", 6.0, 2)],
            "tie against the alphabet": [ranked("Malta", "Can", 5.0, 1), ranked("Malta", "Air", 5.0, 2)],
            "tie against the bytes": [ranked("Malta", "a", 5.0, 1), ranked("Malta", "B", 5.0, 2)],
        }.items()
    ),
    *(
        pytest.param(COUNTRY_RANK_PER_ARTIST, "ranks_in_order", rows, id=f"countries: {what}")
        for what, rows in {
            "begins at 2": [share("Malta", "Can", 1.0, 2)],
            "more loved behind": [share("Malta", "Can", 0.5, 1), share("Cuba", "Can", 0.6, 2)],
            "tie against the alphabet": [share("Malta", "Can", 0.5, 1), share("Cuba", "Can", 0.5, 2)],
        }.items()
    ),
    pytest.param(
        COUNTRY_RANK_PER_ARTIST,
        "popularity_sums_to_one",
        [share("Malta", "Can", 0.5, 1), share("Malta", "Air", 0.499, 1)],
        id="shares sum to less",
    ),
    pytest.param(
        COUNTRY_RANK_PER_ARTIST,
        "popularity_sums_to_one",
        [share("Malta", "Can", 0.7, 1), share("Malta", "Air", 0.7, 1)],
        id="shares sum to more",
    ),
    pytest.param(USER_DATA, "country_names", [user(1), user(2, "germany"), user(3, None)], id="country of no ISO name"),
    pytest.param(USER_DATA, "known_country_share", [user(1), *(user(n, None) for n in range(2, 6))], id="no countries"),
]


@pytest.fixture
def project(data_root: DataRoot) -> Project:
    return Project(data_root)


def context(project: Project, table: Table, thresholds: Thresholds | None = None) -> CheckContext:
    reader = project.defs.resources["reader"]  # type: ignore[index]
    history = (reader.read(raw, project.store.table_version(raw).files) for raw in RAW_TABLES)
    limits = thresholds or Thresholds(0.01, 0.20, 0.01, 0.5)
    return CheckContext(table, project.store, reader, limits, unranked=unranked_plays(CurrentRows.of(*history)))


def evaluate(project: Project, table: Table, name: str) -> dg.AssetCheckResult:
    check = next(check for check in CHECKS if check.name == name and table in check.tables)
    return check.evaluate(context(project, table))


def evaluate_all(project: Project, table: Table) -> dict[str, bool]:
    return {check.name: evaluate(project, table, check.name).passed for check in CHECKS if table in check.tables}


def results(run: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {(found.asset_key.path[-1], found.check_name): found.passed for found in run.get_asset_check_evaluations()}


@pytest.mark.parametrize("table", [*RAW_TABLES, *RANKING_TABLES], ids=lambda table: table.name)
def test_checks_pass_on_a_good_table(project: Project, table: Table) -> None:
    project.put(table, GOOD[table])
    found = evaluate_all(project, table)
    assert len(found) >= 4
    assert all(found.values()), found


@pytest.mark.parametrize(("table", "name", "rows"), BROKEN)
def test_check_fails_on_a_broken_table(project: Project, table: Table, name: str, rows: list[dict[str, Any]]) -> None:
    project.put(table, rows)
    result = evaluate(project, table, name)
    assert not result.passed
    assert "Expected " in result.description and "; found " in result.description


def vector(key: str, value: Any, number: float | None = 0.5) -> dict[str, Any]:
    dimensions = {**{f"dim_{place}": 0.5 for place in range(50)}, "dim_7": number}
    return {key: value, **dimensions, **({"listeners": 3, "trained": True} if key == "artist_name" else {})}


KEYED = {ARTIST_EMBEDDING: ("artist_name", ["Can", "Neu!"]), USER_EMBEDDING: ("user_id", [1, 2])}
"""The key of each embedding, and its values in `GOOD[USER_TOP_ARTISTS]`."""


@pytest.mark.parametrize("table", EMBEDDING_TABLES, ids=lambda table: table.name)
def test_checks_of_embeddings(project: Project, table: Table) -> None:
    """Rows delivered after the training need no vector."""
    key, values = KEYED[table]
    project.put(USER_TOP_ARTISTS, GOOD[USER_TOP_ARTISTS])
    trained_on = {"inputs": {USER_TOP_ARTISTS.name: project.store.table_version(USER_TOP_ARTISTS).version}}
    project.put(USER_TOP_ARTISTS, [top(9, 1, "Faust")])
    good = [vector(key, value) for value in values]
    for broken, rows in {
        "": good,
        "no_nulls": [*good, vector(key, None)],
        "keys_unique": [*good, vector(key, values[0], 0.1)],
        "every_key_has_a_vector": good[:1],
    }.items():
        project.put(table, rows, trained_on)
        found = evaluate_all(project, table)
        assert {name for name, passed in found.items() if not passed} == {broken} - {""}, found
    for number in (float("nan"), float("inf"), float("-inf")):
        project.put(table, [*good[1:], vector(key, values[0], number)], trained_on)
        assert not evaluate(project, table, "dimensions_finite").passed


def test_failed_check_shows_the_invalid_rows(project: Project) -> None:
    project.put(ARTIST_RANK_IN_COUNTRY, [ranked("Malta", "Can", 5.0, 1), ranked("Malta", "Air|s", 6.0, 2)])
    result = evaluate(project, ARTIST_RANK_IN_COUNTRY, "ranks_in_order")
    assert "Air\\|s" in result.metadata["examples"].value
    assert "1 violations" in result.metadata["found"].value


@pytest.mark.parametrize("table", [*RAW_TABLES, *RANKING_TABLES], ids=lambda table: table.name)
def test_checks_pass_on_an_empty_table(project: Project, table: Table) -> None:
    project.put(table, [])
    found = evaluate_all(project, table)
    assert all(found.values()), found


@pytest.mark.parametrize(
    ("rows", "rejects", "passes", "severity"),
    [
        (100, 0, True, dg.AssetCheckSeverity.WARN),
        (99, 1, True, dg.AssetCheckSeverity.WARN),
        (989, 11, False, dg.AssetCheckSeverity.WARN),
        (80, 20, False, dg.AssetCheckSeverity.WARN),
        (799, 201, False, dg.AssetCheckSeverity.ERROR),
        (0, 5, False, dg.AssetCheckSeverity.ERROR),
        (0, 0, True, dg.AssetCheckSeverity.WARN),
    ],
)
def test_reject_share(
    project: Project,
    rows: int,
    rejects: int,
    passes: bool,
    severity: dg.AssetCheckSeverity,
) -> None:
    loaded = [{"name": "a.csv", "rows": rows, "rejects": rejects, "duplicates": 0}]
    project.put(USER_DATA, GOOD[USER_DATA], {FILES: loaded})
    result = reject_share(context(project, USER_DATA))
    assert result.passed == passes
    if not passes:
        assert result.severity == severity
        assert f"{rejects} of {rows + rejects} rows" in result.description


def test_reject_share_uses_the_thresholds(project: Project) -> None:
    project.put(USER_DATA, [], {FILES: [{"name": "a.csv", "rows": 90, "rejects": 10, "duplicates": 0}]})
    assert reject_share(context(project, USER_DATA, Thresholds(0.1, 0.2, 0.01, 0.5))).passed
    strict = reject_share(context(project, USER_DATA, Thresholds(0.01, 0.09, 0.01, 0.5)))
    assert (strict.passed, strict.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_warnings_do_not_stop_a_run(project: Project) -> None:
    """A key twice in a file, few countries and 1 bad row of 16 only cause warnings."""
    users = "user_id,country,total_scrobbles\n1,Malta,1\n1,Malta,2\n" + "".join(f"{n},,1\n" for n in range(2, 15))
    project.drop(USER_DATA, users + "x,,1\n")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
    run = project.refresh()
    assert run.success
    failed = {name for name, passed in results(run).items() if not passed}
    assert failed == {
        ("user_data", "keys_delivered_once"),
        ("user_data", "known_country_share"),
        ("user_data", "reject_share"),
        ("artist_rank_in_country", "unknown_share"),
    }


def test_shrunk_ranking_is_a_warning_and_shrunk_raw_table_an_error(project: Project) -> None:
    project.drop_both()
    assert project.refresh().success
    project.put(ARTIST_RANK_IN_COUNTRY, [ranked("France", "Air", 40.0, 1)])
    shrunk = evaluate(project, ARTIST_RANK_IN_COUNTRY, "row_count")
    assert (shrunk.passed, shrunk.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "5 were published" in shrunk.description and "found 1 rows" in shrunk.description

    shutil.rmtree(project.root.table_folder(USER_DATA) / "_delta_log")
    project.put(USER_DATA, [user(1)])
    lost = evaluate(project, USER_DATA, "row_count")
    assert (lost.passed, lost.severity) == (False, dg.AssetCheckSeverity.ERROR)


def fingerprint(root: DataRoot) -> dict[str, str]:
    """Return hashes of all published files."""
    return {path.name: hashlib.sha256(root.read(path)).hexdigest() for path in root.files_below(root.snapshots)}


def test_failed_blocking_check_prevents_publication(project: Project) -> None:
    """A file with a third of bad rows is not published until someone materializes the rankings by hand."""
    project.drop_both()
    assert project.refresh().success
    before = fingerprint(project.root)
    ranked_before = project.store.table_version(ARTIST_RANK_IN_COUNTRY).version

    good = "".join(f"{number},Malta,3\n" for number in range(10, 17))
    dropped = project.drop(USER_DATA, "user_id,country,total_scrobbles\n" + good + "a,Malta,1\nb,Malta,1\nc,Malta,1\n")
    project.drop(USER_TOP_ARTISTS, "user_id,rank,artist_name,playcount,mbid\n10,1,Air,9,\n", "more.csv")
    request = project.tick()
    run = project.refresh(request.tags)
    assert not run.success
    assert results(run)["user_data", "reject_share"] is False
    assert fingerprint(project.root) == before
    assert project.store.table_version(ARTIST_RANK_IN_COUNTRY).version == ranked_before
    assert not {"artist_rank_in_country", "country_rank_per_artist", "music_db"} & {
        event.asset_key.path[-1] for event in run.get_asset_materialization_events()
    }

    assert not project.root.exists(dropped), "the good rows are in, and the bad ones in rejected_rows"
    skip = project.tick().skip_message
    assert f"The check reject_share of user_data failed in run {run.run_id}, so nothing was published" in skip
    assert "It is not retried" in skip and "music-assets accept" in skip
    assert not project.refresh().success, "a run started by hand judges the same files again"
    assert fingerprint(project.root) == before

    way_on = project.materialize("artist_rank_in_country", "country_rank_per_artist", "music_db")
    assert way_on.success
    with connect(project.root) as connection:
        rows = connection.execute(
            "SELECT artist_name, total_playcount, rank FROM processed_parquet_artist_rank_in_country "
            "WHERE country = 'Malta'"
        ).fetchall()
    assert rows == [("Air", 9.0, 1)]
    assert project.tick().skip_message == "No CSV file is waiting."


def test_a_ranking_that_fails_a_blocking_check_is_not_committed(project: Project) -> None:
    """Examples of wrong rows show names, although the ranking is computed on numbers."""
    empty = Check("empty", "", RANKING_TABLES[:1], lambda context: context.no_violations(context.rows, "no rows"))
    project.defs = build_definitions(project.settings, checks=[empty])
    project.drop_both()
    run = project.refresh()
    assert not run.success
    (found,) = run.get_asset_check_evaluations()
    assert "5 violations" in found.description
    assert "| Germany |" in found.metadata["examples"].value or "| France |" in found.metadata["examples"].value
    assert all(project.store.table_version(table).version < 0 for table in RANKING_TABLES)
    assert not list(project.root.snapshots.glob("*"))


@pytest.mark.parametrize(
    ("users", "expected", "severity"),
    [
        pytest.param([user(1), user(2), user(3), user(4)], (0.0, 0.0), None, id="all known"),
        pytest.param([user(1), user(2), user(3)], (0.25, 0.5), "WARN", id="user 4 unknown"),
        pytest.param([user(1), user(2), user(3), user(4, None)], (0.25, 0.5), "WARN", id="user 4 without country"),
        pytest.param([user(1), user(2), user(3, None)], (0.5, 0.7), "ERROR", id="most plays"),
        pytest.param([user(9)], (1.0, 1.0), "ERROR", id="nobody known"),
    ],
)
def test_unknown_share_counts_users_and_plays_that_are_in_no_ranking(
    project: Project, users: list[dict[str, Any]], expected: tuple[float, float], severity: str | None
) -> None:
    """Users 1 to 4 have 10, 20, 20 and 50 plays. The first list of user 4, with 900 plays, was replaced."""
    project.put(USER_DATA, users)
    project.put(USER_TOP_ARTISTS, [top(4, 1, playcount=900)])
    later = {"ingested_at": datetime(2024, 1, 2)}
    lists = [top(1, 1, playcount=10), top(2, 1, playcount=20), top(3, 1, playcount=20), top(3, 2, playcount=None)]
    project.put(USER_TOP_ARTISTS, [*lists, top(4, 1, playcount=50, **later)])
    result = evaluate(project, ARTIST_RANK_IN_COUNTRY, "unknown_share")
    assert result.passed == (severity is None)
    assert severity is None or result.severity.value == severity
    shown = f"found {expected[0]:.1%} of the users and {expected[1]:.1%} of the plays in no ranking"
    assert shown in str(result.description)


def test_a_refresh_without_a_known_user_is_not_green(project: Project) -> None:
    """All checks passed, and the rankings were empty."""
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n100,Malta,1\n")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
    run = project.refresh()
    assert run.success
    assert results(run)["artist_rank_in_country", "unknown_share"] is False


def test_country_names_counts_the_current_users_of_each_other_name(project: Project) -> None:
    """User 5 has corrected the name since. Last.fm's older names are fine."""
    project.put(USER_DATA, [user(1, "germany"), user(2, "Deutschland"), user(3, "germany"), user(5, "USA")])
    fine = ["Korea, Republic of", "Macedonia", "Czech Republic", "Czechia", "Türkiye", "Côte d'Ivoire", None]
    project.put(USER_DATA, [user(10 + place, country) for place, country in enumerate(fine)])
    project.put(USER_DATA, [user(5, "United States", ingested_at=datetime(2024, 1, 2))])
    result = evaluate(project, USER_DATA, "country_names")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "2 other names (users): 'germany' (2), 'Deutschland' (1)" in str(result.description)


BAD_USERS = "user_id,country,total_scrobbles\n1,Malta,5\n2,Malta,x\n3,Malta,1\nfour,Malta,1\n"
"""Two of four rows are rejected: the share is 50 %. The key of the first can be read, that of the second cannot."""


def test_a_corrected_file_lifts_the_block_of_the_check(project: Project) -> None:
    """The check judges the files of this refresh, not every file since the last publication (2 of 7 rows, 29 %)."""
    project.drop(USER_DATA, BAD_USERS)
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
    assert not project.refresh().success
    project.drop(USER_TOP_ARTISTS, "user_id,rank,artist_name,playcount,mbid\n4,2,Air,9,\n", "more.csv")
    other = project.refresh()
    assert not other.success, "a drop into another table is no correction"
    assert results(other)["user_data", "reject_share"] is False
    project.drop(USER_DATA, "user_id,country,total_scrobbles\n2,Malta,5\n4,Malta,1\n5,Malta,1\n", "corrected.csv")
    corrected = project.refresh()
    assert corrected.success
    assert results(corrected)["user_data", "reject_share"] is True
    with connect(project.root) as connection:
        found = connection.execute("FROM processed_parquet_artist_rank_in_country ORDER BY rank").fetchall()
    assert found == [
        ("Malta", "Can", 77.0, 1, 3),
        ("Malta", "Air", 49.0, 2, 2),
        ("Malta", "Earth, Wind & Fire", 30.0, 3, 1),
        ("Malta", "Neu!", 10.0, 4, 1),
    ]


def test_a_retraction_lifts_the_block_of_the_check(project: Project) -> None:
    project.drop_both()
    assert project.refresh().success
    project.drop(USER_DATA, BAD_USERS)
    assert not project.refresh().success
    time.sleep(0.01)
    (bad,) = [drop for drop in list_drops(project.store, project.defs.resources["reader"]) if drop.rejects]  # type: ignore[index]
    retract(project.store, project.defs.resources["reader"], [bad.content_hash])  # type: ignore[index]
    assert isinstance(project.tick(), dg.RunRequest), "the retraction is work"
    run = project.refresh()
    assert run.success
    assert results(run)["user_data", "reject_share"] is True


def test_rejected_rows_do_not_count_once_a_later_file_of_the_refresh_delivers_their_keys(project: Project) -> None:
    """Column order as in the file: the key is the last field. Of 3 rejects user 7 stays open: 1 of 9 rows."""
    for name, text in {
        "a.csv": "country,total_scrobbles,user_id\nMalta,x,5\nMalta,3.7,6\nMalta,-1,7\nMalta,1,8\n",
        "b.csv": "user_id,country,total_scrobbles\n5,Malta,1\n6,Malta,1\n9,Malta,1\n10,Malta,1\n11,Malta,1\n",
    }.items():
        project.drop(USER_DATA, text, name)
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS.replace("\n1,", "\n5,").replace("\n2,", "\n6,"))
    run = project.refresh()
    assert run.success
    (found,) = [
        each
        for each in run.get_asset_check_evaluations()
        if (each.asset_key.path[-1], each.check_name) == ("user_data", "reject_share")
    ]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "1 of 9 rows (11.1%) in 2 files, and 2 whose keys were delivered again" in str(found.description)


def test_run_publishes_the_expected_rankings(project: Project) -> None:
    project.drop(USER_DATA, USERS)
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
    run = project.refresh()
    assert run.success
    found = results(run)
    assert not found.pop(("artist_rank_in_country", "unknown_share")), "user 4 has no country"
    assert all(found.values())
    assert len(results(run)) == sum(table not in EMBEDDING_TABLES for check in CHECKS for table in check.tables)
    with connect(project.root) as connection:
        found = connection.execute("FROM processed_parquet_artist_rank_in_country ORDER BY country, rank").fetchall()
    assert found == RANKED_ARTISTS
    assert newest_snapshot(project.root).tables["raw_parquet_user_data"].rows == 4
