"""`music-assets up` for real: daemon, web server and sensor, watched over GraphQL and through the published tables."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from music_assets.data_root import DataRoot
from music_assets.runtime.ports import free_port
from music_assets.sample_data.generator import generate
from music_assets.storage.published_snapshot import connect, newest_snapshot
from music_assets_tests.end_to_end.conftest import BIN, PATIENCE, Shell, plain_environment

RUNS = """{ runsOrError(filter: {pipelineName: "refresh_rankings"}) { ... on Runs { results { runId status } } } }"""
LOG = """query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on MessageEvent { message } } } } }"""
LOADED = """{ assetNodes { assetKey { path } } workspaceOrError { ... on Workspace { locationEntries { loadStatus
  locationOrLoadError { __typename } } } } }"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass
class Station:
    """A running `music-assets up`, and the questions that the test asks of it."""

    root: Path
    process: subprocess.Popen[str]
    address: str
    log: Path
    family: list[psutil.Process] = field(default_factory=list)

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=30)
        answer.raise_for_status()
        body = answer.json()
        assert "errors" not in body, body
        return body["data"]

    def runs(self) -> list[dict[str, str]]:
        return self.graphql(RUNS)["runsOrError"]["results"]

    def wait_for(self, what: str, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended by itself:\n{self.log.read_text()[-3000:]}"
            found = condition()
            if found:
                return found
            time.sleep(0.5)
        pytest.fail(f"{what} did not happen within {PATIENCE} s; the log ends:\n{self.log.read_text()[-3000:]}")

    def wait_for_run(self, number: int) -> str:
        """Wait until that many runs have ended; return the id of the last, which must have succeeded."""
        runs = self.wait_for(f"run {number}", lambda: self._ended(number))
        assert [run["status"] for run in runs] == ["SUCCESS"] * number
        return runs[0]["runId"]

    def _ended(self, number: int) -> list[dict[str, str]] | None:
        runs = self.runs()
        return runs if len(runs) == number and all(run["status"] in ENDED for run in runs) else None

    def messages(self, run_id: str) -> str:
        """All messages of a run's log."""
        events = self.graphql(LOG, run=run_id)["logsForRun"]["events"]
        return "\n".join(event["message"] for event in events if event.get("message"))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(DataRoot(self.root)) as connection:
            return connection.execute(sql).fetchall()


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/server_info", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    root, log, port = tmp_path / "data", tmp_path / "up.log", free_port()
    with log.open("w") as sink:
        process = subprocess.Popen(
            [BIN / "music-assets", "up", "--port", str(port)],
            cwd=tmp_path,
            env=plain_environment(root, MUSIC_ASSETS_SETTLE_SECONDS="0.5"),
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
        )
    running = Station(root, process, f"http://127.0.0.1:{port}", log)
    try:
        running.wait_for("an answer of the web server", lambda: is_up(running.address))
        yield running
    finally:
        for left in [*running.family, *_family(process)]:
            if left.is_running():
                left.kill()
        process.wait()


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def waiting(root: Path) -> list[str]:
    return [path.name for path in (root / "user_data").rglob("*") if path.is_file()]


COUNTS = """
SELECT (SELECT count(*) FROM raw_parquet_user_data), (SELECT count(*) FROM raw_parquet_user_top_artists),
       (SELECT sum(total_playcount) FROM processed_parquet_artist_rank_in_country)
"""


def test_a_drop_leads_to_published_tables_with_no_further_act(station: Station, shell: Shell, tmp_path: Path) -> None:
    loaded = station.graphql(LOADED)
    assert {"/".join(node["assetKey"]["path"]) for node in loaded["assetNodes"]} >= {
        "raw_parquet/user_data",
        "raw_parquet/user_top_artists",
        "artist_rank_in_country",
        "country_rank_per_artist",
        "music_db",
    }
    made = generate(tmp_path / "made", users=300, seed=5)

    dropped = shell("music-assets", "drop", made.users_csv, made.user_top_artists_csv)
    assert dropped.returncode == 0, dropped.stderr
    station.wait_for_run(1)
    assert waiting(station.root) == []
    users, artists, plays = station.ask(COUNTS)[0]
    assert (users, artists) == (300, 15_000)
    located = {line.split(",")[0] for line in made.users_csv.read_text().splitlines()[1:] if ",," not in line}
    assert plays == sum(
        int(line.rsplit(",", 2)[1])
        for line in made.user_top_artists_csv.read_text().splitlines()[1:]
        if line.split(",", 1)[0] in located
    )

    again = tmp_path / "again.csv"
    again.write_bytes(made.users_csv.read_bytes())
    before = station.ask("FROM processed_parquet_country_rank_per_artist ORDER BY ALL")
    assert shell("music-assets", "drop", again).returncode == 0
    duplicate = station.wait_for_run(2)
    assert "again.csv: duplicate" in station.messages(duplicate)
    assert "same content as a file loaded before: counted once, deleted" in station.messages(duplicate)
    assert waiting(station.root) == []
    assert station.ask(COUNTS)[0] == (users, artists, plays)
    assert station.ask("FROM processed_parquet_country_rank_per_artist ORDER BY ALL") == before

    first_user = made.users_csv.read_text().splitlines()[1].split(",")[0]
    moved = tmp_path / "moved.csv"
    moved.write_text(f"user_id,country,total_scrobbles\n{first_user},Antarctica,1\n")
    assert shell("music-assets", "drop", moved).returncode == 0
    station.wait_for_run(3)
    of_the_user = made.user_top_artists_csv.read_text().splitlines()[1:51]
    assert {line.split(",", 1)[0] for line in of_the_user} == {first_user}
    there = station.ask(
        "SELECT sum(total_playcount), sum(normalized_popularity) "
        "FROM processed_parquet_artist_rank_in_country JOIN processed_parquet_country_rank_per_artist "
        "USING (country, artist_name, total_playcount) "
        "WHERE country = 'Antarctica'"
    )
    assert there[0][0] == sum(int(line.rsplit(",", 2)[1]) for line in of_the_user)
    assert there[0][1] == pytest.approx(1.0)
    assert station.ask(COUNTS)[0][:2] == (301, 15_000)
    assert newest_snapshot(DataRoot(station.root)).tables["raw_parquet_user_data"].rows == 301

    _stops_at_once(station)


def _stops_at_once(station: Station) -> None:
    """Ctrl-C: exit code 0 within seconds, and no process of it is left."""
    station.family = _family(station.process)
    assert len(station.family) >= 4, "the command, dagster, web server, daemon"
    station.process.send_signal(signal.SIGINT)
    assert station.process.wait(25) == 0
    _, alive = psutil.wait_procs(station.family, timeout=5)
    assert alive == []
    assert not is_up(station.address)
    assert "Traceback" not in station.log.read_text()


def test_a_second_one_is_refused_until_the_first_is_gone(station: Station, shell: Shell) -> None:
    """Two daemons on one data root start a run each for every drop."""
    station.family = _family(station.process)
    refused = shell("music-assets", "up", "--port", free_port())
    assert refused.returncode == 1
    assert f"already running on {station.root}: process {station.process.pid}, web UI {station.address}." in (
        refused.stderr
    )
    station.process.kill()
    station.process.wait()
    free_again = shell("music-assets", "up", "--port", station.address.rsplit(":", 1)[1])
    assert "Cannot listen on" in free_again.stderr, "what the first one had started still holds its port"
