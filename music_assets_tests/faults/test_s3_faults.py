"""A store on S3 that fails: errors say what happened and what to do, nothing is lost, and nothing is counted twice."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from music_assets import object_store
from music_assets.data_root import DataRoot
from music_assets.engines.duckdb import DuckDBEngine
from music_assets.ingest.object_landing import open_landing
from music_assets.maintenance.doctor import Level, examine
from music_assets.object_store import ObjectStoreError
from music_assets.settings import Settings
from music_assets.storage.integrity import damaged_files
from music_assets.storage.published_snapshot import connect
from music_assets.tables import REJECTED_ROWS, TABLES, USER_DATA
from music_assets_tests.support.disk import fill_disk, small_disk
from music_assets_tests.support.ingest_harness import IngestHarness
from music_assets_tests.support.project import RANKED_ARTISTS, Project, settings_of
from music_assets_tests.support.s3_proxy import Answer, Refusal, Silence, s3_proxy
from music_assets_tests.support.s3_server import BUCKET, S3Server, new_clients

HEADER = "user_id,country,total_scrobbles\n"
DIRTY = HEADER + "1,Germany,5\nx,Germany,6\n"
CLEAN = HEADER + "2,Chad,1\n"
ROWS = [(1, "Germany", 5), (2, "Chad", 1)]
REJECTED = [(3, "user_id", "not an integer", "x,Germany,6")]
MEGABYTE = 1 << 20

SLOW_DOWN = Refusal(503, "SlowDown")
EXPIRED = Refusal(400, "ExpiredToken")
DENIED = Refusal(403, "AccessDenied")
NO_BUCKET = Refusal(404, "NoSuchBucket")
NOT_DELETED = (
    "<?xml version='1.0'?><DeleteResult><Error><Key>{}/a</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    "</DeleteResult>"
)


@dataclass
class FaultyStore:
    """The rule of a proxy: from the first request on that `begins`, each that `affects` is answered with the fault."""

    fault: Refusal | Answer | Silence | None = None
    begins: Callable[[str, str], bool] = lambda method, path: True
    affects: Callable[[str, str], bool] = lambda method, path: True
    has_begun: bool = False
    affected: list[str] = field(default_factory=list)

    def rule(self, method: str, path: str) -> Refusal | Answer | Silence | None:
        self.has_begun |= self.fault is not None and self.begins(method, path)
        if not self.has_begun or not self.affects(method, path):
            return None
        self.affected.append(f"{method} {path}")
        return self.fault


@pytest.fixture
def store(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """Return the rule of the proxy through which this process reaches the store. Requests are repeated once."""
    monkeypatch.setattr(object_store, "MAXIMUM_RETRIES", 1)
    faulty = FaultyStore()
    with s3_proxy(s3.url, faulty.rule) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with new_clients():
            yield faulty


@pytest.fixture
def root(s3: S3Server, tmp_path: Path) -> DataRoot:
    return s3.root(tmp_path, tmp_path.name)


def starts_with(method: str, *parts: str) -> Callable[[str, str], bool]:
    return lambda found, path: found == method and all(part in path for part in parts)


def check_all_is_loaded_once(s3: S3Server, root: DataRoot, folder: Path, engine: DuckDBEngine) -> None:
    """Check, after a further load on a machine with an empty work folder, that each row is there once."""
    assert root.store
    other = IngestHarness(s3.root(folder, root.store.prefix), engine)
    other.load(USER_DATA)
    assert other.delivered(USER_DATA) == ROWS
    assert other.rejected() == REJECTED
    assert other.waiting() == []
    assert [damage for table in TABLES for damage in damaged_files(other.store, table)] == []


LISTING = starts_with("GET", "list-type=2")
READING = starts_with("GET", ".csv")
UPLOAD = starts_with("PUT", "/part-")
COMMIT = starts_with("PUT", f"{USER_DATA.folder}/_delta_log/{1:020}.json")
DELETION = starts_with("DELETE", ".csv")


@pytest.mark.parametrize(
    ("begins", "fault", "message"),
    [
        pytest.param(LISTING, NO_BUCKET, rf"The bucket {BUCKET} does not exist at .*Create it", id="bucket-listing"),
        pytest.param(READING, Silence.CUT, r"a\.csv: the request failed \(request or response body", id="cut-reading"),
        pytest.param(UPLOAD, EXPIRED, r"access denied \(ExpiredToken\)\. Set or renew AWS_ACC", id="expired-upload"),
        pytest.param(UPLOAD, Silence.HANG, r"the request failed 2 times \(error sending request\)", id="hangs-upload"),
        pytest.param(COMMIT, SLOW_DOWN, "SlowDown", id="busy-commit"),
        pytest.param(COMMIT, DENIED, "AccessDenied", id="denied-commit"),
        pytest.param(COMMIT, Silence.CUT, "error sending request", id="cut-commit"),
        pytest.param(DELETION, SLOW_DOWN, r"SlowDown", id="busy-deletion"),
    ],
)
def test_failing_store_loses_and_doubles_nothing(
    s3: S3Server,
    store: FaultyStore,
    root: DataRoot,
    tmp_path: Path,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    begins: Callable[[str, str], bool],
    fault: Refusal | Silence,
    message: str,
) -> None:
    """The store fails for good from some request of a load on. The next load, after its recovery, completes it."""
    if fault is Silence.HANG:
        monkeypatch.setattr(object_store, "READ_TIMEOUT_SECONDS", 5)
    harness = IngestHarness(root, duckdb_engine)
    harness.drop(USER_DATA, "a.csv", DIRTY)
    harness.drop(USER_DATA, "b.csv", CLEAN)
    store.begins, store.fault = begins, fault
    with pytest.raises(Exception, match=message) as raised:
        harness.load(USER_DATA)
    assert "Debug source" not in str(raised.value)
    assert store.affected
    store.fault = None
    check_all_is_loaded_once(s3, root, tmp_path / "elsewhere", duckdb_engine)


def test_denied_deletion_names_the_permission(
    s3: S3Server,
    store: FaultyStore,
    root: DataRoot,
    tmp_path: Path,
    duckdb_engine: DuckDBEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Regression: the message said that the request had failed seven times, and to check the network."""
    harness = IngestHarness(root, duckdb_engine)
    harness.drop(USER_DATA, "a.csv", DIRTY)
    harness.drop(USER_DATA, "b.csv", CLEAN)
    store.fault, store.affects = DENIED, lambda method, path: method == "DELETE" or path.endswith("?delete")
    with caplog.at_level(logging.ERROR):
        assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded", "loaded"]
        assert [file.outcome for file in harness.load(USER_DATA).files] == ["duplicate", "duplicate"]
    denied = f"access denied (AccessDenied). Allow these credentials s3:DeleteObject on {root}"
    assert (
        sum(denied in line and "rows loaded, but the object could not be deleted" in line for line in caplog.messages)
        == 4
    )
    assert len(store.affected) == 4, "a refusal is final"
    with pytest.raises(
        ObjectStoreError, match=r"access denied \(AccessDenied\)\. Allow these credentials s3:DeleteObj"
    ):
        root.remove(root.files_below(root.drop_folder(USER_DATA)))
    assert len(store.affected) == 5
    store.fault = None
    check_all_is_loaded_once(s3, root, tmp_path / "elsewhere", duckdb_engine)


def test_each_request_names_the_permission_it_needs(store: FaultyStore, root: DataRoot, tmp_path: Path) -> None:
    """AWS answers 403, or 200 with an error for each key of a deletion."""
    bucket = root.store
    assert bucket
    etag = bucket.write("a", b"1")
    (tmp_path / "file").write_bytes(b"1")
    requests: dict[str, list[Callable[[], object]]] = {
        "s3:GetObject": [lambda: bucket.find("a"), lambda: bucket.read("a")],
        "s3:ListBucket": [lambda: list(bucket.list(""))],
        "s3:PutObject": [lambda: bucket.write("a", b"2", create=True), lambda: bucket.upload(tmp_path / "file", "a")],
        "s3:DeleteObject": [lambda: bucket.delete(["a", "b"]), lambda: bucket.delete_unchanged("a", etag)],
    }
    store.fault = DENIED
    for permission, sent in requests.items():
        for request in sent:
            with pytest.raises(
                ObjectStoreError, match=rf"access denied \(.*\)\. Allow these credentials {permission} on"
            ):
                request()
    store.fault = Answer(NOT_DELETED.format(bucket.prefix).encode())
    with pytest.raises(
        ObjectStoreError, match=r"access denied \(AccessDenied\)\. Allow these credentials s3:DeleteObj"
    ):
        bucket.delete(["a", "b"])
    assert len(store.affected) == 8


def test_unanswered_requests_are_repeated_and_named(
    store: FaultyStore, root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = root.store
    assert bucket
    etag = bucket.write("a", b"1")
    (tmp_path / "file").write_bytes(b"1")
    monkeypatch.setattr(object_store, "READ_TIMEOUT_SECONDS", 1)
    requests: list[Callable[[], object]] = [
        lambda: bucket.find("a"),
        lambda: bucket.read("a"),
        lambda: list(bucket.list("")),
        lambda: bucket.upload(tmp_path / "file", "a"),
        lambda: bucket.delete(["a"]),
        lambda: bucket.delete_unchanged("a", etag),
    ]
    with new_clients():
        for store.fault in (Silence.HANG, Silence.CUT):
            for request in requests:
                store.affected.clear()
                with pytest.raises(
                    ObjectStoreError, match=rf"{root}/a?: the request failed.*Check the network, the endp"
                ):
                    request()
                assert len(store.affected) == 2, store.affected
    store.fault = None
    assert bucket.read("a") == b"1"


def test_store_that_fails_for_a_while(
    store: FaultyStore, root: DataRoot, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fourth request is refused, and every second answer with a drop is cut off."""
    monkeypatch.setattr(object_store, "MAXIMUM_RETRIES", 6)
    requests: list[str] = []
    cut: list[str] = []

    def sometimes(method: str, path: str) -> bool:
        requests.append(path)
        return len(requests) % 4 == 0

    harness = IngestHarness(root, duckdb_engine)
    harness.drop(USER_DATA, "a.csv", DIRTY)
    harness.drop(USER_DATA, "b.csv", CLEAN)
    store.fault, store.affects = SLOW_DOWN, sometimes
    assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded", "loaded"]
    assert len(store.affected) > 5

    def every_other(method: str, path: str) -> bool:
        if method == "GET" and not any(table in path for table in ("parquet", "rejected_rows")):
            cut.append(path)
        return bool(cut) and path is cut[-1] and len(cut) % 2 == 1

    harness.drop(USER_DATA, "c.csv", HEADER + "x,Germany,6\n")
    store.affected.clear()
    store.fault, store.affects = Silence.CUT, every_other
    assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded"]
    assert len(store.affected) > 3
    assert harness.delivered(USER_DATA) == ROWS


# ---- Credentials ----------------------------------------------------------------------------------------------------


@dataclass
class Role:
    """The credentials endpoint of a container. Each key it hands out replaces the one before a minute later."""

    keys: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def hand_out(self) -> bytes:
        self.keys.append(f"key{len(self.keys)}")
        expires_at = datetime.now(UTC) + timedelta(minutes=1)
        names = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
        return json.dumps(
            dict(zip(names, (self.keys[-1], "secret", "token", expires_at.isoformat()), strict=True))
        ).encode()

    def accepts(self, key: str) -> bool:
        self.used.add(key)
        return key in self.keys[-20:]


@pytest.fixture
def role(monkeypatch: pytest.MonkeyPatch) -> Iterator[Role]:
    role = Role()

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = role.hand_out()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/")
        yield role
        server.shutdown()


def test_credentials_of_a_role_are_renewed_while_a_load_runs(
    s3: S3Server, role: Role, root: DataRoot, duckdb_engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each key is refused once twenty newer ones were handed out. Objects and commits are written with several."""
    with s3_proxy(s3.url, accepts_key=role.accepts) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with new_clients():
            harness = IngestHarness(root, duckdb_engine)
            harness.drop(USER_DATA, "a.csv", DIRTY)
            harness.drop(USER_DATA, "b.csv", CLEAN)
            assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded", "loaded"]
            assert harness.delivered(USER_DATA) == ROWS
    assert len(role.used) > 20


def test_missing_credentials_are_named(
    s3: S3Server, root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        new_clients(),
        pytest.raises(ObjectStoreError, match=r"/a: No AWS credentials were found\. Set or renew AWS_A"),
    ):
        assert root.store
        root.store.read("a")


# ---- Stores that lack something -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ignored", "named"),
    [
        (("PUT if-none-match",), "If-None-Match"),
        (("PUT if-match",), "If-Match"),
        (("PUT if-none-match", "PUT if-match", "DELETE if-match"), "If-None-Match and If-Match"),
    ],
    ids=["creates over objects", "replaces other objects", "ignores every condition"],
)
def test_store_that_ignores_a_condition_of_writes_is_refused(
    s3: S3Server, root: DataRoot, monkeypatch: pytest.MonkeyPatch, ignored: tuple[str, ...], named: str
) -> None:
    with s3_proxy(s3.url, ignored=ignored) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        refusal = f"The object store {root} at {url} ignores {named}, so"
        with new_clients():
            with pytest.raises(ObjectStoreError, match=refusal):
                root.prepare()
            assert any(refusal in each.found for each in examine(settings_of(root)) if each.level is Level.PROBLEM)
        assert root.files_below(root.path) == {}


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores the condition", "refuses the condition"])
def test_store_without_conditional_deletion(
    s3: S3Server,
    root: DataRoot,
    duckdb_engine: DuckDBEngine,
    monkeypatch: pytest.MonkeyPatch,
    refuses: bool,
) -> None:
    """It can be used, `doctor` says what is at risk, and an object that was replaced in time is not deleted."""

    def rule(method: str, path: str) -> Refusal | None:
        return Refusal(501, "NotImplemented") if refuses and method == "DELETE" else None

    with s3_proxy(s3.url, rule, ignored=("DELETE if-match",)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with new_clients():
            harness = IngestHarness(root, duckdb_engine)
            path = harness.drop(USER_DATA, "a.csv", DIRTY)
            (listed,) = open_landing(root).files(USER_DATA)
            harness.drop(USER_DATA, "a.csv", CLEAN)
            assert not listed.delete()
            assert root.read(path).decode() == CLEAN
            assert [file.outcome for file in harness.load(USER_DATA).files] == ["loaded"]
            assert harness.waiting() == []
            (note,) = [each for each in examine(settings_of(root)) if each.subject == "object store"]
    assert note.level is Level.NOTE
    assert "deletes an object even if another has replaced it" in note.found


def test_missing_bucket_is_a_problem(s3: S3Server, tmp_path: Path) -> None:
    missing = Settings(data="s3://nowhere/music", work=tmp_path)
    problems = [each.found for each in examine(missing) if each.level is Level.PROBLEM]
    assert (
        f"cannot be checked: The bucket nowhere does not exist at {s3.url}. Create it, or correct MUSIC_ASSETS_DATA."
        in problems
    )


# ---- The copy on this machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare", [0, 1 << 15, 1 << 17])
def test_full_disk_under_the_work_folder(s3: S3Server, tmp_path: Path, duckdb_engine: DuckDBEngine, spare: int) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        root = s3.root(disk, tmp_path.name)
        harness = IngestHarness(root, duckdb_engine)
        harness.drop(USER_DATA, "a.csv", DIRTY)
        harness.drop(USER_DATA, "b.csv", CLEAN)
        with fill_disk(disk, spare):
            try:
                harness.load(USER_DATA)
            except Exception as error:  # Each library has its own; the message must be clear.
                assert "No space left on device" in str(error) or "os error 28" in str(error), repr(error)
        check_all_is_loaded_once(s3, root, disk / "elsewhere", duckdb_engine)


def test_full_disk_is_named_by_a_reader(s3: S3Server, tmp_path: Path) -> None:
    writer = s3.root(tmp_path / "writer", tmp_path.name)
    writer.write(writer.snapshots / "music_db.duckdb", b"1" * MEGABYTE)
    with small_disk(tmp_path / "disk", 2) as disk:
        root = s3.root(disk, tmp_path.name)
        copy = root.snapshots / "music_db.duckdb"
        copy.parent.mkdir(parents=True)
        with fill_disk(disk, MEGABYTE // 2), pytest.raises(OSError, match="No space left on device") as raised:
            root.fetch([copy])
        assert raised.value.filename == str(copy)
        root.fetch([copy])
        assert list(copy.parent.iterdir()) == [copy]


def test_damaged_copies_are_fetched_again(s3: S3Server, root: DataRoot) -> None:
    """Of a log, of the rows, and of the snapshot, each with as many bytes as before."""
    project = Project(root)
    project.drop_both()
    assert project.refresh().success
    copies = [
        *root.table_folder(USER_DATA).rglob("*.json"),
        *root.table_folder(REJECTED_ROWS).rglob("*.json"),
        *root.table_folder(USER_DATA).rglob("*.parquet"),
        *root.snapshots.glob("*.duckdb"),
    ]
    assert len(copies) > 4
    for path in copies:
        path.chmod(0o644)
        path.write_bytes(b"\xff" * path.stat().st_size)
    assert [each for each in examine(settings_of(root)) if each.level is Level.PROBLEM] == []
    with connect(root) as connection:
        assert connection.execute("FROM processed_parquet_artist_rank_in_country").fetchall() == RANKED_ARTISTS
        assert connection.execute("SELECT count(*) FROM raw_parquet_user_data").fetchall() == [(4,)]
    project.drop(USER_DATA, CLEAN, "clean.csv")
    assert project.refresh().success
