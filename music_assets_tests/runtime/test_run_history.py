"""The run history as the process of a run writes it: others see each event at once, and find all of them in the end."""

import subprocess
import sys
from pathlib import Path

import dagster as dg

RUN = """
import sys
from pathlib import Path
from threading import Event

import dagster as dg
from music_assets.runtime.run_history import keep_open

home, seen = sys.argv[1], Event()
keep_open()

@dg.op
def wait_until_seen(context):
    with dg.DagsterInstance.from_config(home) as viewer:
        viewer.watch_event_logs(context.run_id, None, lambda entry, _: seen.set() if "look" in entry.message else None)
        context.log.info("look")
        assert seen.wait(60), "nobody saw the event"

@dg.job
def job():
    wait_until_seen()

with dg.DagsterInstance.from_config(home) as instance:
    assert job.execute_in_process(instance=instance).success
print(*(path.name for path in Path(home).rglob("*.db-wal")))
"""


def test_events_are_seen_at_once_and_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert "look" in [entry.message for entry in instance.all_logs(run.run_id)]
    # The logs stayed open during the run, and were written back at its end.
    assert set(done.stdout.split()) >= {"index.db-wal", "runs.db-wal", f"{run.run_id}.db-wal"}
    assert not [path for path in tmp_path.rglob("*.db-wal") if path.stat().st_size]
