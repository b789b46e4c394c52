"""The sensors: the decision as a pure function, then ticks over real runs and alerts."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Timer
from typing import Any

import dagster as dg
import pytest

from music_assets.defs import sensors
from music_assets.defs.sensors import AlertError, Arrivals, EndedRun, RetryPolicy, Work, decide
from music_assets.ingest.landing import DroppedFile
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, RAW_TABLES, REFRESH_RANKINGS, USER_DATA, USER_TOP_ARTISTS
from music_assets_tests.support.project import TOP_ARTISTS, USERS, Project

NOW = 1_000_000.0
POLICY = RetryPolicy(max_attempts=3, first_pause=30)
FILE = DroppedFile(Path("user_data/user_data/users.csv"), size=100, modified_ns=5, inode=7)
TOP_FILE = DroppedFile(Path("user_data/user_top_artists/top.csv"), size=100, modified_ns=5, inode=8)
BOTH = Work({USER_DATA: [FILE], USER_TOP_ARTISTS: [TOP_FILE]}, {})
NOTHING_WAITS = Work({}, {USER_DATA: 3})
NOTHING = Work({USER_DATA: [], USER_TOP_ARTISTS: []}, {})


def decided(work: Work = BOTH, data: Any = RAW_TABLES, unfinished: str | None = None, earlier: Any = ()) -> Any:
    empty = {table: Path("/data/user_data", table.name) for table in RAW_TABLES if table not in data}
    return decide(work, empty, unfinished, earlier, POLICY, NOW)


def failures(*seconds_ago: float) -> list[EndedRun]:
    return [EndedRun(f"run{number}", NOW - ago) for number, ago in enumerate(seconds_ago)]


class TestDecide:
    def test_one_run_for_all_waiting_files(self) -> None:
        assert isinstance(decided(), dg.RunRequest)

    @pytest.mark.parametrize(
        ("waiting", "data", "named"),
        [
            ({}, (), "in /data/user_data/user_data and /data/user_data/user_top_artists."),
            ({USER_DATA: [FILE]}, (), "in /data/user_data/user_top_artists."),
            ({USER_TOP_ARTISTS: [TOP_FILE]}, (), "in /data/user_data/user_data."),
            ({USER_DATA: [FILE]}, (USER_DATA,), "in /data/user_data/user_top_artists."),
        ],
    )
    def test_waits_until_both_tables_have_rows_or_a_file(self, waiting: Any, data: Any, named: str) -> None:
        skip = decided(Work(waiting, {}), data)
        assert isinstance(skip, dg.SkipReason)
        assert skip.skip_message.startswith("Waiting for the first complete CSV file")
        assert named in skip.skip_message

    @pytest.mark.parametrize("waiting", [{USER_DATA: [FILE]}, {USER_TOP_ARTISTS: [TOP_FILE]}])
    def test_file_for_one_table_is_enough_if_the_other_has_rows(self, waiting: Any) -> None:
        other = USER_TOP_ARTISTS if USER_DATA in waiting else USER_DATA
        assert isinstance(decided(Work(waiting, {}), [other]), dg.RunRequest)

    def test_no_run_without_work(self) -> None:
        assert decided(NOTHING).skip_message == "No CSV file is waiting."

    @pytest.mark.parametrize("empty", [{}, {USER_DATA: Path("/data/user_data/user_data")}])
    def test_a_skip_names_ignored_files(self, empty: Any) -> None:
        """A first file `users.txt` was waited for forever, and no message said why."""
        skip = decide(
            NOTHING, empty, None, (), POLICY, NOW, [f"user_data/{number}.txt: rename it" for number in "123456"]
        )
        assert isinstance(skip, dg.SkipReason)
        assert skip.skip_message.endswith(
            ". Ignored: user_data/1.txt: rename it; user_data/2.txt: rename it; user_data/3.txt: rename it; "
            "user_data/4.txt: rename it; user_data/5.txt: rename it; and 1 more."
        )

    def test_files_that_a_run_could_not_delete_are_retried_after_growing_pauses(self) -> None:
        """Regression: a file that could not be deleted started a run every five seconds."""
        skips = [decided(earlier=[EndedRun("left", NOW - 1, succeeded=True)] * runs) for runs in (1, 2, 3, 9)]
        waits = [skip.skip_message.split("starts in ")[1].split(" ")[0] for skip in skips]
        assert waits == ["29", "59", "119", "119"]
        assert "Run left succeeded, but users.csv, top.csv is still waiting, or waiting again" in skips[0].skip_message
        assert isinstance(decided(earlier=[EndedRun("left", NOW - 30, succeeded=True)]), dg.RunRequest)

    def test_unpublished_rows_are_work(self) -> None:
        assert isinstance(decided(replace(NOTHING, unpublished={USER_DATA: 3})), dg.RunRequest)

    def test_no_second_run_while_one_is_unfinished(self) -> None:
        skip = decided(unfinished="abc")
        assert "Run abc of refresh_rankings has not ended yet" in skip.skip_message

    @pytest.mark.parametrize(("ago", "starts"), [(0.0, False), (29.0, False), (30.0, True), (500.0, True)])
    def test_second_attempt_after_the_first_pause(self, ago: float, starts: bool) -> None:
        assert isinstance(decided(earlier=failures(ago)), dg.RunRequest) == starts

    @pytest.mark.parametrize(("ago", "starts"), [(30.0, False), (59.0, False), (60.0, True)])
    def test_next_pause_is_twice_as_long(self, ago: float, starts: bool) -> None:
        assert isinstance(decided(earlier=failures(ago, 999.0)), dg.RunRequest) == starts

    def test_skip_gives_the_remaining_pause(self) -> None:
        skip = decided(earlier=failures(20.0, 999.0))
        assert skip.skip_message == "Run run0 failed for users.csv, top.csv. Attempt 3 of 3 starts in 40 s."

    def test_skip_after_the_last_attempt_gives_advice(self) -> None:
        skip = decided(earlier=failures(9_000.0, 9_500.0, 9_900.0))
        assert isinstance(skip, dg.SkipReason)
        assert "failed 3 times for users.csv, top.csv" in skip.skip_message
        assert "See run run0" in skip.skip_message
        assert "launch refresh_rankings by hand, or drop a corrected file" in skip.skip_message

    def test_each_attempt_has_its_own_run_key(self) -> None:
        """Dagster never runs a used run key again, even if that run failed."""
        keys = {decided(earlier=failures(*[900.0] * attempts)).run_key for attempts in range(3)}
        assert len(keys) == 3

    def test_unchanged_file_that_returns_is_loaded_again(self) -> None:
        """A file copied again with its time preserved may get the same inode, and so the same digest."""
        loaded = [EndedRun("good", NOW - 9_000, succeeded=True)]
        again = decided(earlier=loaded)
        assert isinstance(again, dg.RunRequest)
        assert again.run_key != decided().run_key
        assert again.run_key is not None
        three_failures_before = [*loaded, *failures(9_100, 9_200, 9_300)]
        assert isinstance(decided(earlier=three_failures_before), dg.RunRequest)
        failed_since = [*failures(10), *loaded]
        assert "Attempt 2 of 3" in decided(earlier=failed_since).skip_message

    def test_message_names_only_some_of_many_files(self) -> None:
        many = [replace(FILE, path=Path(f"{number}.csv")) for number in range(9)]
        skip = decided(Work({USER_DATA: many}, {}), earlier=failures(1.0))
        assert "0.csv, 1.csv, 2.csv, 3.csv, 4.csv and 4 more" in skip.skip_message

    def test_a_failed_check_is_final(self) -> None:
        failed = [replace(failures(9_000.0)[0], failed_checks=(("user_data", "reject_share"),))]
        skip = decided(NOTHING_WAITS, earlier=failed)
        assert skip.skip_message == (
            "The check reject_share of user_data failed in run run0, so nothing was published of rows that are loaded "
            "but not published. It is not retried. Drop a corrected file, or run `music-assets accept` to publish the "
            "good rows as they are."
        )

    def test_a_failed_check_that_nobody_can_accept_names_another_way(self) -> None:
        failed = [replace(failures(9_000.0)[0], failed_checks=(("user_data", "row_count"),))]
        skip = decided(NOTHING_WAITS, earlier=failed)
        assert "accept" not in skip.skip_message
        assert "launch refresh_rankings by hand" in skip.skip_message


class TestArrivals:
    def test_only_another_file_is_an_arrival(self) -> None:
        first = Arrivals().updated(frozenset("ab"), 5.0)
        assert first.newest == 5.0
        assert first.updated(frozenset("a"), 6.0) == Arrivals(frozenset("a"), 5.0), "b was loaded"
        assert first.updated(frozenset("ac"), 6.0).newest == 6.0
        assert first.updated(frozenset(), 6.0).updated(frozenset("a"), 7.0).newest == 7.0, "dropped again"

    @pytest.mark.parametrize("cursor", [None, "", "not JSON", "[]", '{"files": []}'])
    def test_a_cursor_of_another_release_is_ignored(self, cursor: str | None) -> None:
        assert Arrivals.parse(cursor) == Arrivals()

    def test_the_cursor_is_read_as_it_was_written(self) -> None:
        arrivals = Arrivals(frozenset(["a", "b"]), 123.456)
        assert Arrivals.parse(str(arrivals)) == arrivals


class TestDigest:
    def test_order_of_files_does_not_matter(self) -> None:
        other = replace(FILE, path=Path("b.csv"))
        assert Work({USER_DATA: [FILE, other]}, {}).digest == Work({USER_DATA: [other, FILE]}, {}).digest

    @pytest.mark.parametrize(
        "work",
        [
            NOTHING,
            Work({USER_DATA: [FILE]}, {}),
            Work({USER_DATA: [TOP_FILE], USER_TOP_ARTISTS: [FILE]}, {}),
            Work({USER_DATA: [replace(FILE, size=101)], USER_TOP_ARTISTS: [TOP_FILE]}, {}),
            Work({USER_DATA: [replace(FILE, modified_ns=6)], USER_TOP_ARTISTS: [TOP_FILE]}, {}),
            Work({USER_DATA: [replace(FILE, inode=9)], USER_TOP_ARTISTS: [TOP_FILE]}, {}),
            Work({USER_DATA: [replace(FILE, path=Path("b.csv"))], USER_TOP_ARTISTS: [TOP_FILE]}, {}),
            replace(BOTH, unpublished={USER_DATA: 1}),
        ],
    )
    def test_other_work_has_another_digest(self, work: Work) -> None:
        assert work.digest != BOTH.digest


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, max_attempts=2, retry_pause=0, sensor_interval=17)


def record(project: Project, request: dg.RunRequest, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    """Record a run for the request with this status in the instance."""
    job = project.defs.resolve_job_def(REFRESH_RANKINGS)
    run = project.instance.create_run_for_job(job, tags=request.tags, status=dg.DagsterRunStatus.STARTED)
    if status is dg.DagsterRunStatus.FAILURE:
        project.instance.report_run_failed(run)
    elif status is dg.DagsterRunStatus.CANCELED:
        project.instance.report_run_canceled(run)
    return run


class TestSensor:
    def test_sensors_are_on_by_default_with_the_interval_of_the_settings(self, project: Project) -> None:
        sensor = project.defs.resolve_sensor_def("csv_drop_sensor")
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert sensor.minimum_interval_seconds == 17 - 1, "the daemon comes by a little early as often as late"
        assert sensor.job_name == REFRESH_RANKINGS
        assert project.defs.resolve_sensor_def("run_failure_alert").default_status is dg.DefaultSensorStatus.RUNNING

    def test_creates_drop_folders_and_waits_for_both_files(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "new")
        folders = " and ".join(str(project.root.drop_folder(table)) for table in RAW_TABLES)
        assert project.tick().skip_message == f"Waiting for the first complete CSV file in {folders}."
        assert project.landing.root.drop_folder(USER_DATA).is_dir()
        project.drop(USER_DATA, USERS)
        assert f"in {project.root.drop_folder(USER_TOP_ARTISTS)}." in project.tick().skip_message
        project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
        assert isinstance(project.tick(), dg.RunRequest)

    def test_unsettled_file_is_not_loaded(self, tmp_path: Path) -> None:
        project = Project(tmp_path, settle_seconds=3600)
        project.drop_both()
        assert project.tick().skip_message.startswith("Waiting for the first complete CSV file")

    def test_what_waits_is_observed_when_it_changes(self, tmp_path: Path) -> None:
        """An event at every tick would fill the database."""
        project = Project(tmp_path)

        def observed() -> dict[str, list[int]]:
            events = {
                table.name: project.instance.fetch_observations(dg.AssetKey(["user_data", table.name]), 10).records
                for table in RAW_TABLES
            }
            return {
                name: [record.asset_observation.metadata["waiting files"].value for record in reversed(records)]
                for name, records in events.items()
            }

        project.tick()
        project.tick()
        assert observed() == {"user_data": [], "user_top_artists": []}
        project.drop_both()
        project.drop(USER_DATA, USERS, "more.csv")
        project.tick()
        project.tick()
        assert observed() == {"user_data": [2], "user_top_artists": [1]}
        project.refresh()
        project.tick()
        project.tick()
        assert observed() == {"user_data": [2, 0], "user_top_artists": [1, 0]}

    def test_tick_waits_for_a_new_file_to_settle(self, tmp_path: Path) -> None:
        """Otherwise the file waits for the next tick, five seconds later."""
        project = Project(tmp_path, settle_seconds=0.5)
        project.drop_both()
        assert isinstance(project.tick(), dg.RunRequest)

    @pytest.mark.timeout(60)
    def test_tick_of_the_daemon_watches_for_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sensors, "WATCH_SECONDS", 3_600)
        project = Project(tmp_path)
        Timer(0.1, project.drop_both).start()
        assert isinstance(project.tick(last_sensor_start_time=time.time()), dg.RunRequest)

    @pytest.mark.parametrize(
        "name", [".users.csv", "_users.csv", "users.csv.tmp", "users.csv.part", "users.crdownload"]
    )
    def test_unfinished_files_are_ignored(self, project: Project, name: str) -> None:
        project.drop(USER_DATA, USERS, name)
        project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
        assert f"in {project.root.drop_folder(USER_DATA)}." in project.tick().skip_message

    def test_files_that_are_not_loaded_are_named(self, project: Project) -> None:
        project.drop(USER_DATA, USERS, "users.txt")
        (project.root.drop_folder(USER_TOP_ARTISTS) / "folder").mkdir()
        assert project.tick().skip_message.endswith(
            "Ignored: user_data/users.txt: its name ends neither in .csv nor in .csv.gz: rename it if it is CSV with "
            "commas; user_top_artists/folder: a folder: move the files in it here."
        )

    @pytest.mark.parametrize("year", [1980, 2099])
    def test_a_file_starts_a_run_whatever_its_modification_time(self, tmp_path: Path, year: int) -> None:
        """A time in the future used to block the file until then."""
        project = Project(tmp_path, settle_seconds=0.2)
        for table, text in ((USER_DATA, USERS), (USER_TOP_ARTISTS, TOP_ARTISTS)):
            os.utime(project.drop(table, text), (datetime(year, 1, 1).timestamp(),) * 2)
        assert isinstance(project.tick(), dg.RunRequest)

    def test_a_tick_remembers_the_first_look(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A settle time that is longer than a tick may wait spans several ticks."""
        monkeypatch.setattr(sensors, "MAX_SETTLE_WAIT", 0)
        project = Project(tmp_path, settle_seconds=0.3)
        project.drop_both()
        assert isinstance(project.tick(), dg.SkipReason)
        time.sleep(0.3)
        assert isinstance(project.tick(), dg.RunRequest)

    def test_unreadable_folder_is_an_error(self, project: Project) -> None:
        """It must not be taken for an empty folder."""
        folder = project.landing.root.drop_folder(USER_DATA)
        folder.rmdir()
        folder.symlink_to(project.root.path / "unmounted")
        with pytest.raises(OSError, match="user_data"):
            project.tick()

    def test_waits_for_an_unfinished_run(self, project: Project) -> None:
        project.drop_both()
        run = record(project, project.tick(), dg.DagsterRunStatus.STARTED)
        project.drop(USER_DATA, USERS + "9,Malta,1\n", "more.csv")
        assert project.tick().skip_message == f"Run {run.run_id} of refresh_rankings has not ended yet."

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
    def test_number_of_attempts_is_limited(self, project: Project, status: dg.DagsterRunStatus) -> None:
        project.drop_both()
        first = project.tick()
        record(project, first, status)
        second = project.tick()
        assert second.run_key != first.run_key
        record(project, second, status)
        assert "failed 2 times" in project.tick().skip_message

    def test_loading_the_files_does_not_start_the_count_of_attempts_again(self, tmp_path: Path) -> None:
        """The pauses were those of a first attempt, since the rows that are left were other work than the files."""
        project = Project(tmp_path, max_attempts=2, retry_pause=3600)
        project.drop_both()
        project.root.table_folder(ARTIST_RANK_IN_COUNTRY).parent.write_text("in the way of the rankings")
        assert isinstance(project.tick(), dg.RunRequest)
        run = project.refresh()
        assert not run.success
        assert not list(project.root.drop_folder(USER_DATA).iterdir()), "the files are loaded"
        expected = (
            rf"Run {run.run_id} failed for rows that are loaded but not published\. Attempt 2 of 2 starts in (\d+) s\."
        )
        wait = re.fullmatch(expected, project.tick().skip_message)
        assert wait and 3_000 < int(wait[1]) <= 3_600
        assert not project.refresh().success
        assert "failed 2 times" in project.tick().skip_message

    def test_a_commit_after_the_failed_run_is_new_work(self, project: Project) -> None:
        """So is a retraction, which removes the rows that failed the check."""
        project.drop(USER_DATA, "user_id,country,total_scrobbles\n1,Malta,x\n2,Malta,1\n")
        project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
        assert not project.refresh().success
        assert "It is not retried" in project.tick().skip_message
        time.sleep(0.01)
        project.put(USER_DATA, [])
        assert isinstance(project.tick(), dg.RunRequest)

    def test_new_file_after_the_last_attempt_starts_a_run(self, project: Project) -> None:
        project.drop_both()
        for _ in range(2):
            record(project, project.tick(), dg.DagsterRunStatus.FAILURE)
        project.drop(USER_DATA, USERS + "9,Malta,1\n", "corrected.csv")
        assert isinstance(project.tick(), dg.RunRequest)

    def test_no_run_after_everything_is_loaded(self, project: Project) -> None:
        project.drop_both()
        assert project.refresh(project.tick().tags).success
        assert project.tick().skip_message == "No CSV file is waiting."
        project.drop(USER_TOP_ARTISTS, TOP_ARTISTS, "again.csv")
        assert isinstance(project.tick(), dg.RunRequest)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Start an HTTP server; yield its address and the list of posted bodies."""
    posted: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(body)})
            self.send_response(204 if self.path == "/alerts" else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Suppress the server's log."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alerts", posted
    server.shutdown()
    thread.join()
    server.server_close()


def fail(project: Project) -> dg.ExecuteInProcessResult:
    """Run a refresh that fails because the folder of a table is a file."""
    project.drop_both()
    project.root.path.joinpath("raw_parquet").write_text("in the way")
    run = project.refresh()
    assert not run.success
    return run


def alert(project: Project, run: dg.ExecuteInProcessResult) -> None:
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_event=run.get_run_failure_event(),
        dagster_instance=project.instance,
        dagster_run=run.dagster_run,
    ).for_run_failure()
    project.defs.resolve_sensor_def("run_failure_alert")(context)


class TestAlert:
    def test_alert_in_log_and_webhook(
        self, tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]], capfd: pytest.CaptureFixture[str]
    ) -> None:
        address, posted = webhook
        project = Project(tmp_path, alert_webhook=address)
        run = fail(project)
        alert(project, run)
        assert len(posted) == 1
        line = posted[0]["text"]
        assert line.startswith(f"ALERT: job refresh_rankings failed, run {run.run_id}: ")
        assert "\n" not in line
        assert "raw_parquet" in line and "Error" in line
        assert (posted[0]["job"], posted[0]["run_id"]) == ("refresh_rankings", run.run_id)
        assert posted[0]["type"] == "application/json"
        assert line in capfd.readouterr().err

    def test_the_alert_of_a_failed_check_says_what_to_do(
        self, project: Project, capfd: pytest.CaptureFixture[str]
    ) -> None:
        project.drop(USER_DATA, "user_id,country,total_scrobbles\n1,Malta,x\n2,Malta,1\n")
        project.drop(USER_TOP_ARTISTS, TOP_ARTISTS)
        alert(project, project.refresh())
        line = capfd.readouterr().err
        assert "reject_share of user_data: Expected at most 1.0% of the rows rejected" in line
        assert "run `music-assets accept`" in line

    def test_alert_without_a_webhook(self, project: Project, capfd: pytest.CaptureFixture[str]) -> None:
        run = fail(project)
        alert(project, run)
        assert f"ALERT: job refresh_rankings failed, run {run.run_id}" in capfd.readouterr().err

    def test_tick_fails_if_the_webhook_refuses(
        self, tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The web UI then shows that the webhook does not work. The alert is still logged."""
        project = Project(tmp_path, alert_webhook=webhook[0].replace("alerts", "wrong"))
        run = fail(project)
        with pytest.raises(AlertError, match="500"):
            alert(project, run)
        assert "ALERT: job refresh_rankings failed" in capfd.readouterr().err

    @pytest.mark.parametrize("path", ["wrong", "nowhere"])
    def test_error_does_not_reveal_the_webhook(
        self, tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]], path: str
    ) -> None:
        """The error appears in the web UI, but the address is a secret."""
        address = webhook[0].replace("alerts", "wrong") if path == "wrong" else "http://127.0.0.1:9/secret"
        project = Project(tmp_path, alert_webhook=address)
        with pytest.raises(AlertError) as raised:
            alert(project, fail(project))
        assert path not in str(raised.value) and "secret" not in str(raised.value)
        assert raised.value.__suppress_context__
