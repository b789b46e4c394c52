"""A data root on S3, on a real server: conditions of writes, and the copy of the bucket on this machine."""

import os
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.object_store import ObjectChangedError, ObjectStore, ObjectStoreError
from music_assets_tests.support.s3_server import BUCKET, S3Server


@pytest.fixture
def root(s3: S3Server, tmp_path: Path) -> DataRoot:
    return s3.root(tmp_path, tmp_path.name)


def store_of(root: DataRoot) -> ObjectStore:
    assert root.store
    return root.store


def test_writes_are_conditional(root: DataRoot) -> None:
    store = store_of(root)
    first = store.write("a", b"1", create=True)
    with pytest.raises(ObjectChangedError, match="a was written by another process"):
        store.write("a", b"2", create=True)
    second = store.write("a", b"2", replacing=first)
    with pytest.raises(ObjectChangedError):
        store.write("a", b"3", replacing=first)
    assert store.read("a") == b"2"
    assert not store.delete_unchanged("a", first)
    assert store.delete_unchanged("a", second)
    assert store.find("a") is None
    assert root.probe()
    assert not root.files_below(root.path)


def test_large_file_is_copied_in_parts(root: DataRoot, tmp_path: Path) -> None:
    content = os.urandom(35 << 20)
    root.path.mkdir(parents=True)
    file = root.path / "large"
    file.write_bytes(content)
    root.upload([file])
    file.unlink()
    root.fetch([file])
    assert file.read_bytes() == content
    found = store_of(root).find("large")
    assert found
    store_of(root).write("large", b"other")
    with (tmp_path / "copy").open("wb") as copy, pytest.raises(ObjectChangedError):
        store_of(root).download(found, copy)


def test_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(ObjectStoreError, match=rf"The bucket nowhere does not exist at {s3.url}. Create it"):
        ObjectStore("nowhere", "").write("a", b"")
    with pytest.raises(ObjectStoreError, match="The bucket nowhere does not exist"):
        list(ObjectStore("nowhere", "").list("a"))


def test_invalid_key_is_named(s3: S3Server, root: DataRoot) -> None:
    httpx.put(f"{s3.url}/{BUCKET}/{store_of(root).prefix}/a//b.csv").raise_for_status()
    with pytest.raises(ObjectStoreError, match=r"invalid key .*/a//b.csv.*Rename or delete it"):
        list(store_of(root).list("a"))


def test_damaged_cache_is_fetched_again(root: DataRoot) -> None:
    file = root.path / "raw_parquet" / "rows.parquet"
    root.write(file, b"rows")
    root.fetch([file], {file: 4})
    file.write_bytes(b"ro")
    root.fetch([file], {file: 4})
    assert file.read_bytes() == b"rows"
    with pytest.raises(FileNotFoundError, match=f"s3://{BUCKET}/"):
        root.fetch([root.path / "missing"])


def test_cache_is_bounded(root: DataRoot) -> None:
    small = DataRoot(root.path, root.store, cache_bytes=10)
    files = [root.snapshots / f"{number}.duckdb" for number in range(4)]
    for file in files:
        root.write(file, b"four")
    sizes = dict.fromkeys(files, 4)
    small.fetch(files[:2], sizes)
    os.utime(files[0], (0, 0))
    small.fetch(files[2:3], sizes)
    assert [file.exists() for file in files] == [False, True, True, False]
    small.fetch(files[3:], sizes)
    assert all(file.exists() for file in files[1:]), "no file goes that was used within the hour"
    with pytest.raises(ObjectStoreError, match=r"too small for the 4 files.*Raise MUSIC_ASSETS_CACHE_GB"):
        small.fetch(files, sizes)


def test_folder_follows_the_bucket(root: DataRoot) -> None:
    folder = root.rejected
    root.write(folder / "a.csv", b"1")
    root.write(folder / "b.csv", b"1")
    root.write(folder / "below" / "c.csv", b"1")
    root.refresh(folder)
    root.write(folder / "a.csv", b"2")
    root.remove([folder / "b.csv"])
    (folder / "left.csv").write_bytes(b"")
    root.refresh(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.csv": b"2"}
