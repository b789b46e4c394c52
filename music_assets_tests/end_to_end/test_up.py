"""`music-assets up`: web UI, daemon, sensor and service, checked over GraphQL and in the published tables."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.sample_data.generator import generate
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import RANKING_TABLES, RAW_TABLES
from music_assets_tests.end_to_end.conftest import Shell
from music_assets_tests.support.ingest_harness import waiting_files
from music_assets_tests.support.processes import process_tree
from music_assets_tests.support.running_up import RunningUp, answers, running_up

ASSETS = "{ assetNodes { assetKey { path } } }"
COUNTS = """
SELECT (SELECT count(*) FROM raw_parquet_user_data), (SELECT count(*) FROM raw_parquet_user_top_artists),
       (SELECT sum(total_playcount) FROM processed_parquet_artist_rank_in_country)
"""


@pytest.fixture
def up(root: DataRoot, tmp_path: Path) -> Iterator[RunningUp]:
    with running_up(root, tmp_path) as up:
        yield up


def test_drops_are_loaded_and_published_until_it_is_stopped(up: RunningUp, shell: Shell, tmp_path: Path) -> None:
    assets = {tuple(node["assetKey"]["path"]) for node in up.graphql(ASSETS)["assetNodes"]}
    assert assets >= {*(tuple(table.asset_key) for table in (*RAW_TABLES, *RANKING_TABLES)), ("music_db",)}
    sample = generate(tmp_path / "sample", users=300, seed=5)

    dropped = shell("music-assets", "drop", sample.users_csv, sample.user_top_artists_csv)
    assert dropped.returncode == 0, dropped.stderr
    up.wait_for_run(1)
    assert waiting_files(up.root) == []
    users, artists, plays = up.query(COUNTS)[0]
    assert (users, artists) == (300, 15_000)
    located = {line.split(",")[0] for line in sample.users_csv.read_text().splitlines()[1:] if ",," not in line}
    assert plays == sum(
        int(line.rsplit(",", 2)[1])
        for line in sample.user_top_artists_csv.read_text().splitlines()[1:]
        if line.split(",", 1)[0] in located
    )

    again = tmp_path / "again.csv"
    again.write_bytes(sample.users_csv.read_bytes())
    before = up.query("FROM processed_parquet_country_rank_per_artist ORDER BY ALL")
    assert shell("music-assets", "drop", again).returncode == 0
    log = up.run_log(up.wait_for_run(2))
    assert "again.csv: duplicate" in log
    assert "same content as a file loaded before: counted once, deleted" in log
    assert waiting_files(up.root) == []
    assert up.query(COUNTS)[0] == (users, artists, plays)
    assert up.query("FROM processed_parquet_country_rank_per_artist ORDER BY ALL") == before

    first_user = sample.users_csv.read_text().splitlines()[1].split(",")[0]
    moved = tmp_path / "moved.csv"
    moved.write_text(f"user_id,country,total_scrobbles\n{first_user},Antarctica,1\n")
    assert shell("music-assets", "drop", moved).returncode == 0
    up.wait_for_run(3)
    of_the_user = sample.user_top_artists_csv.read_text().splitlines()[1:51]
    assert {line.split(",", 1)[0] for line in of_the_user} == {first_user}
    ((plays_there, popularity),) = up.query(
        "SELECT sum(total_playcount), sum(normalized_popularity) "
        "FROM processed_parquet_artist_rank_in_country JOIN processed_parquet_country_rank_per_artist "
        "USING (country, artist_name, total_playcount) "
        "WHERE country = 'Antarctica'"
    )
    assert plays_there == sum(int(line.rsplit(",", 2)[1]) for line in of_the_user)
    assert popularity == pytest.approx(1.0)
    assert up.query(COUNTS)[0][:2] == (301, 15_000)
    assert newest_snapshot(up.root).tables["raw_parquet_user_data"].rows == 301
    assert answers(f"{up.service}/readyz")

    _stops_within_seconds(up)


def _stops_within_seconds(up: RunningUp) -> None:
    tree = process_tree(up.process.pid)
    assert len(tree) >= 5, "the command, dagster, web server, daemon, service"
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(25) == 0
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert alive == []
    assert not up.is_ready()
    # Dagster logs a traceback of its own if the sensor is evaluated at this moment.
    assert not re.search(r'File ".*/music_assets/', up.log.read_text()), "a traceback"


def test_second_up_is_refused_until_the_first_has_ended(up: RunningUp, shell: Shell) -> None:
    """Two daemons would start two runs for each drop."""
    refused = shell("music-assets", "up", "--port", free_port())
    assert refused.returncode == 1
    assert f"already running on {up.root}: process {up.process.pid}, web UI {up.web_ui}." in refused.stderr
    up.process.kill()
    up.process.wait()
    accepted = shell("music-assets", "up", "--port", up.web_ui.rsplit(":", 1)[1])
    assert "Cannot listen on" in accepted.stderr, "the web server of the first one still has its port"
