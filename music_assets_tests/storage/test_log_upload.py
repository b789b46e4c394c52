"""Logs of Delta tables on S3, on a real server, with machines that have a work folder each."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from music_assets.data_root import one_look
from music_assets.storage import delta
from music_assets.storage.delta import ConcurrentCommitError, DeltaStore
from music_assets.tables import USER_DATA
from music_assets_tests.support.processes import TIMEOUT, clean_environment
from music_assets_tests.support.s3_proxy import s3_proxy
from music_assets_tests.support.s3_server import S3Server


@pytest.fixture
def machines(s3: S3Server, tmp_path: Path) -> list[DeltaStore]:
    return [DeltaStore(s3.root(tmp_path / name, tmp_path.name)) for name in ("one", "two")]


def rows_of(store: DeltaStore, user: int) -> Path:
    schema = pa.schema([field.with_nullable(True) for field in USER_DATA.schema.to_pyarrow()])
    path = store.new_folder(USER_DATA) / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"user_id": user}], schema), path)
    return path


def users(store: DeltaStore) -> list[int]:
    files = store.table_version(USER_DATA).files
    return sorted(row["user_id"] for file in files for row in pq.read_table(file).to_pylist())


COMMITS = """
from music_assets.data_root import DataRoot
from music_assets.settings import settings
from music_assets.storage.delta import DeltaStore
from music_assets.tables import USER_DATA

store = DeltaStore(DataRoot.of(settings()))
for number in range(25):
    store.append(USER_DATA, [], {f"file {number}": 1}, {})
"""


def test_requests_of_a_commit_do_not_grow_with_the_log(s3: S3Server, tmp_path: Path) -> None:
    requests: list[str] = []
    root = s3.root(tmp_path, tmp_path.name)
    with s3_proxy(s3.url, lambda method, path: requests.append(path)) as url:
        environment = clean_environment(root, **{**root.environment, "AWS_ENDPOINT_URL": url})
        subprocess.run([sys.executable, "-c", COMMITS], env=environment, check=True, timeout=TIMEOUT)
    assert len(requests) < 25 * 8


def test_commit_goes_on_from_what_another_machine_committed(machines: list[DeltaStore]) -> None:
    one, two = machines
    one.append(USER_DATA, [rows_of(one, 1)], {"1.csv": 1}, {})
    with one_look():
        assert users(two) == [1]
        one.append(USER_DATA, [rows_of(one, 2)], {"2.csv": 1}, {})
        assert users(two) == [1], "one look"
        two.append(USER_DATA, [rows_of(two, 3)], {"3.csv": 1}, {})
        assert users(two) == [1, 2, 3], "what was there when this machine committed"
    with one_look():
        assert users(one) == [1, 2, 3]
        two.append(USER_DATA, [rows_of(two, 4)], {"4.csv": 1}, {})
        with pytest.raises(ConcurrentCommitError):
            one.append(USER_DATA, [rows_of(one, 4)], {"4.csv": 1}, {})
    assert users(one) == users(two) == [1, 2, 3, 4]


def test_checkpoint_is_used_by_other_machines(machines: list[DeltaStore]) -> None:
    one, two = machines
    for user in range(1, 4):
        one.append(USER_DATA, [rows_of(one, user)], {f"{user}.csv": 1}, {})
    version = one.create_checkpoint(USER_DATA)
    names = [path.name for path in two.root.files_below(two.log_folder(USER_DATA))]
    assert f"{version:020}.checkpoint.parquet" in names
    assert "_last_checkpoint" in names
    one.root.remove([path for path in one.log_folder(USER_DATA).iterdir() if re.fullmatch(r"\d+[01]\.json", path.name)])
    assert users(two) == [1, 2, 3]
    assert two.transactions(USER_DATA) == {"1.csv": 1, "2.csv": 1, "3.csv": 1}


def test_vacuum_deletes_what_was_uploaded_and_never_committed(
    machines: list[DeltaStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    one.append(USER_DATA, [rows_of(one, 1)], {"1.csv": 1}, {})
    uncommitted = rows_of(one, 2)
    one.root.upload([uncommitted])
    assert two.vacuum(USER_DATA, 0) == []
    monkeypatch.setattr(delta, "UPLOAD_HOURS", 0)
    assert two.vacuum(USER_DATA, 0) == [str(two.root.path / one.root.relative(uncommitted))]
    assert users(two) == [1]
