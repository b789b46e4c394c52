"""An S3 bucket, by keys below a prefix. No other module imports obstore or botocore.

Requests that fail with 5xx, a time-out or a broken connection are repeated with backoff, by obstore for MAXIMUM_RETRIES
or RETRY_SECONDS. What the store refuses is final.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from music_assets.settings import ForeignVariables

if TYPE_CHECKING:
    import httpx
    from botocore.session import Session
    from obstore.store import S3CredentialProvider, S3Store

SCHEME = "s3://"
MAXIMUM_RETRIES = 6
RETRY_SECONDS = 90
READ_TIMEOUT_SECONDS = 30
REQUEST_TIMEOUT_SECONDS = 300
PARALLEL_REQUESTS = 16
PART_BYTES = 16 << 20
PARALLEL_PARTS = 4
LISTED_AT_ONCE = 1_000
CREDENTIAL_MINUTES = 10
"""After which temporary credentials are asked for again. botocore renews them when they are about to expire."""
SIGNED_MINUTES = 5
FIRST_PAUSE_SECONDS = 0.1
DEFAULT_REGION = "us-east-1"
"""For stores of other vendors, which ignore it."""
SHOWN_CHARACTERS = 300
READ, LIST, WRITE, DELETE = "s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject"
"""The permissions that requests need."""
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of the machine"
FORBIDDEN = ("AccessDenied", "403 Forbidden")
"""Answers to valid credentials that lack a permission. The answer to a HEAD request has no code."""
INVALID_CREDENTIALS = (
    "401 Unauthorized",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
)
REFUSED = re.compile(r"non-2xx status code: 4\d\d|DeleteObjects request failed")
RETRIES = re.compile(r"after (\d+) retries")
NO_ANSWER = "HTTP error: "
INVALID_KEY = "Encountered object with invalid path: "
PROVIDER = "External AWS credential provider: "
Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectStoreError(Exception):
    """A request to the store failed for good. The message says what happened, where, and what to do."""


class UnansweredError(ObjectStoreError):
    """The store did not answer, or not completely. The request may be sent again."""


class ObjectChangedError(Exception):
    """The object is not the one expected: another writer was first."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object: its key relative to the prefix, size in bytes, ETag, and time of its last modification."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class ObjectStore:
    """A bucket and a prefix. Creating the object sends no request; it can be passed to other processes."""

    bucket: str
    prefix: str

    @classmethod
    def at(cls, address: str) -> "ObjectStore":
        """Return the store of an address `s3://BUCKET/PREFIX`."""
        bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
        return cls(bucket, prefix.strip("/"))

    def __str__(self) -> str:
        return "/".join(filter(None, [f"{SCHEME}{self.bucket}", self.prefix]))

    def find(self, key: str) -> ObjectInfo | None:
        """Return an object, or None if there is none of this key."""
        import obstore

        try:
            with self._errors(key, READ):
                return _info(obstore.head(self._client, key))
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """Yield all objects below a folder in the order of their keys."""
        import obstore

        last: str | None = None
        pauses = _pauses()
        while True:
            try:
                with self._errors(folder, LIST):
                    pages = obstore.list(self._client, folder or None, offset=last, chunk_size=LISTED_AT_ONCE)
                    for page in pages:
                        yield from self._without_markers(folder, map(_info, page))
                        last = page[-1]["path"]
                    return
            except UnansweredError:
                if (pause := next(pauses, None)) is None:
                    raise
                time.sleep(pause)

    def _without_markers(self, folder: str, objects: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Leave out the empty objects that consoles and Hadoop create for folders.

        Their keys end with a slash, which obstore drops, so that no request finds them.
        """
        found = {each.key: each for each in objects if each.key != folder}
        empty = [key for key, each in found.items() if not each.size]
        markers = {key for key, existing in zip(empty, in_parallel(self.find, empty), strict=True) if not existing}
        yield from (each for key, each in found.items() if key not in markers)

    def read(self, key: str) -> bytes:
        """Return the content of a small object. Raises FileNotFoundError."""
        return self._get(key, {})

    def download(self, found: ObjectInfo, file: BinaryIO) -> None:
        """Write the content of an object to a file, in parts that are fetched in parallel.

        Raises FileNotFoundError, and ObjectChangedError if it is not the object that was found any more.
        """

        def part(start: int) -> bytes:
            span = (start, min(start + PART_BYTES, found.size))
            condition = {"if_match": found.etag} if found.etag else {}
            return self._get(found.key, {**condition, "range": span} if found.size > PART_BYTES else condition)

        window = PART_BYTES * PARALLEL_PARTS
        for start in range(0, max(found.size, 1), window):
            for content in in_parallel(part, range(start, max(min(start + window, found.size), start + 1), PART_BYTES)):
                file.write(content)

    def upload(self, file: Path, key: str) -> None:
        """Write a file to the key, in parallel parts if it is large, and replace what is there."""
        import obstore

        with self._errors(key, WRITE):
            obstore.put(self._client, key, file)

    def write(self, key: str, content: bytes, replacing: str | None = None, create: bool = False) -> str:
        """Write a small object and return its ETag: with `create` a new one, or in place of the one with an ETag.

        Raises ObjectChangedError if there is another object.
        """
        import obstore

        with self._errors(key, WRITE):
            mode: Any = "create" if create else {"e_tag": replacing} if replacing else "overwrite"
            return obstore.put(self._client, key, content, mode=mode, use_multipart=False)["e_tag"] or ""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects that exist of these keys."""
        import obstore

        for start in range(0, len(keys), LISTED_AT_ONCE):
            several = keys[start : start + LISTED_AT_ONCE]
            self._repeat(lambda: obstore.delete(self._client, several), several[0], DELETE)  # noqa: B023  Called at once.

    def delete_unchanged(self, key: str, etag: str) -> bool:
        """Delete an object in one step unless it has another ETag; return whether it had this one.

        A store without conditional deletion ignores the condition, see `probe`.
        """
        import obstore

        with self._errors(key, DELETE):
            # obstore has no conditional deletion. The header need not be part of the signature.
            url = obstore.sign(self._client, "DELETE", key, timedelta(minutes=SIGNED_MINUTES))
        answer = self._repeat(lambda: _send_delete(url, etag), key, DELETE)
        if answer.is_success:
            return True
        if answer.status_code in (404, 412) and "NoSuchBucket" not in answer.text:
            return False
        raise self._failure(key, f"Server returned non-2xx status code: {answer.status_code}: {answer.text}", DELETE)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket."""
        import obstore

        with self._errors(source, WRITE):
            obstore.copy(self._client, source, target)

    def probe(self) -> bool:
        """Check with an object of its own that the store honours the conditions of writes.

        Returns whether it also honours those of deletions. Raises ObjectStoreError if it ignores one of a write: two
        writers could then destroy a table.
        """
        key = f".probe-{uuid4().hex}"
        try:
            etag = self.write(key, b"1", create=True)
            ignored = [
                name
                for name, condition in (("If-None-Match", {"create": True}), ("If-Match", {"replacing": '"0"'}))
                if not self._refuses(key, condition)
            ]
            if ignored:
                raise ObjectStoreError(
                    f"The object store {self} at {_endpoint() or 'AWS'} ignores {' and '.join(ignored)}, so that two "
                    "writers could destroy a table. Use AWS S3, or another store with conditional writes."
                )
            return self._deletes_conditionally(key, etag)
        finally:
            self.delete([key])

    def _deletes_conditionally(self, key: str, etag: str) -> bool:
        try:
            is_kept = not self.delete_unchanged(key, '"0"') and self.find(key) is not None
            return is_kept and self.delete_unchanged(key, etag)
        except ObjectStoreError:  # some stores refuse the condition
            return False

    def _refuses(self, key: str, condition: dict[str, Any]) -> bool:
        try:
            self.write(key, b"2", **condition)
        except ObjectChangedError:
            return True
        return False

    @property
    def _client(self) -> "S3Store":
        return _client(self.bucket, self.prefix)

    def _get(self, key: str, options: Any) -> bytes:
        import obstore

        return self._repeat(lambda: bytes(obstore.get(self._client, key, options=options).bytes()), key, READ)

    def _repeat(self, request: Callable[[], Result], key: str, permission: str) -> Result:
        """Send a request that may be repeated, until there is a complete answer. obstore gives up sooner."""
        for pause in _pauses():
            try:
                with self._errors(key, permission):
                    return request()
            except UnansweredError:
                time.sleep(pause)
        with self._errors(key, permission):
            return request()

    @contextmanager
    def _errors(self, key: str, permission: str) -> Iterator[None]:
        """Raise the errors of obstore as FileNotFoundError, ObjectChangedError or ObjectStoreError."""
        from obstore import exceptions

        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise self._missing_bucket() from None
            raise FileNotFoundError(2, "no such object", f"{self}/{key}") from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ObjectChangedError(f"{self}/{key} was written by another process") from error
        except (exceptions.BaseError, PermissionError, ValueError, TimeoutError) as error:
            raise self._failure(key, str(error), permission) from None

    def _failure(self, key: str, text: str, permission: str) -> ObjectStoreError:
        """Return the error of a request that failed for good with this text."""
        if "NoSuchBucket" in text:
            return self._missing_bucket()
        if INVALID_KEY in text:
            problem = text.partition(INVALID_KEY)[2].partition("\n")[0]
            return ObjectStoreError(
                f"{self}/{key}: cannot be listed, since an object has an invalid key ({problem}). Rename or delete it."
            )
        if PROVIDER in text:
            _, _, problem = text.partition(PROVIDER)[2].partition("\n")[0].partition(": ")
            return ObjectStoreError(f"{self}/{key}: {problem}")
        reason = _reason(text)
        if reason.startswith(FORBIDDEN):
            advice = f"Allow these credentials {permission} on {self}, or set others: {CREDENTIALS}."
        elif reason in INVALID_CREDENTIALS:
            advice = _advice()
        elif REFUSED.search(text) and not RETRIES.search(text):
            where = f"the endpoint {_endpoint() or 'AWS'} and the region {_region()}"
            return ObjectStoreError(f"{self}/{key}: refused ({reason}). Check the credentials, {where}.")
        else:
            return self._unanswered(key, text, reason)
        return ObjectStoreError(f"{self}/{key}: access denied ({reason}). {advice}")

    def _unanswered(self, key: str, text: str, reason: str) -> ObjectStoreError:
        retries = RETRIES.search(text)
        times = f" {int(retries[1]) + 1} times" if retries else ""
        message = (
            f"{self}/{key}: the request failed{times} ({reason}). "
            f"Check the network, the endpoint {_endpoint() or 'AWS'} and the region {_region()}, then try again."
        )
        return UnansweredError(message) if NO_ANSWER in text and not retries else ObjectStoreError(message)

    def _missing_bucket(self) -> ObjectStoreError:
        where = _endpoint() or "AWS"
        return ObjectStoreError(
            f"The bucket {self.bucket} does not exist at {where}. Create it, or correct MUSIC_ASSETS_DATA."
        )


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call the function for each item, several at a time, and return the results in order.

    The threads are daemons, which do not delay the exit of an interrupted process.
    """
    work = list(items)
    if len(work) < 2:
        return list(map(function, work))
    with ThreadPool(min(PARALLEL_REQUESTS, len(work))) as pool:
        return pool.map(function, work, chunksize=1)


@cache
def _client(bucket: str, prefix: str) -> "S3Store":
    from obstore.store import S3Store

    return S3Store(
        bucket,
        prefix=prefix or None,
        region=_region(),
        config={"endpoint": endpoint} if (endpoint := _endpoint()) else None,
        credential_provider=cast("S3CredentialProvider", _credentials),
        client_options={
            "allow_http": _is_http(),
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_SECONDS),
            "read_timeout": timedelta(seconds=READ_TIMEOUT_SECONDS),
        },
        retry_config={"max_retries": MAXIMUM_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    )


@cache
def _session() -> "Session":
    """Return the session that finds credentials, region and endpoint as every AWS program does."""
    from botocore.session import get_session

    return get_session()


def _credentials() -> dict[str, Any]:
    """Return the current credentials as obstore expects them. Raises ObjectStoreError if there are none."""
    from botocore.credentials import RefreshableCredentials
    from botocore.exceptions import BotoCoreError

    found = _session().get_credentials()
    if found is None:
        raise ObjectStoreError(f"No AWS credentials were found. {_advice()}")
    try:
        frozen = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise ObjectStoreError(f"The AWS credentials cannot be renewed: {error}. {_advice()}") from None
    # Credentials that live shorter than that are asked for before each request, as botocore does.
    seconds = 60 * CREDENTIAL_MINUTES
    is_short = isinstance(found, RefreshableCredentials) and found.refresh_needed(seconds)
    expires_at = datetime.now(UTC) + timedelta(seconds=0 if is_short else seconds) if frozen.token else None
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": expires_at,
    }


@cache
def _region() -> str:
    return ForeignVariables().aws_region or _session().get_config_variable("region") or DEFAULT_REGION


@cache
def _endpoint() -> str | None:
    """Return the URL of the store; None for AWS."""
    from botocore.configprovider import ConfiguredEndpointProvider

    session = _session()
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    provider = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3")
    found: str | None = provider.provide()
    return found


@cache
def _deleting_client() -> "httpx.Client":
    """Return the client of conditional deletions. Creating one takes longer than a request."""
    import httpx

    return httpx.Client()


def _send_delete(url: str, etag: str) -> "httpx.Response":
    """Send a signed request. Raises TimeoutError if there is no answer, or only that the store is busy."""
    import httpx

    try:
        answer = _deleting_client().delete(url, headers={"If-Match": etag}, timeout=READ_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise TimeoutError(f"{NO_ANSWER}{type(error).__name__}") from None
    busy = answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
    if busy and answer.status_code != httpx.codes.NOT_IMPLEMENTED:
        raise TimeoutError(f"{NO_ANSWER}{answer.status_code} {answer.reason_phrase}")
    return answer


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait before each repetition of a request, for at most RETRY_SECONDS together."""
    end = time.monotonic() + RETRY_SECONDS
    for attempt in range(MAXIMUM_RETRIES):
        pause = FIRST_PAUSE_SECONDS * 2**attempt
        if time.monotonic() + pause < end:
            yield pause


def _is_http() -> bool:
    return (_endpoint() or "").startswith("http://")


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


def _reason(error: object) -> str:
    """Return what the store answered, from the first lines of an error of obstore."""
    text = str(error)
    for start, end in (("<Code>", "</Code>"), ("(code: ", ")"), ("Server returned non-2xx status code: ", ":")):
        if start in text:
            return text.split(start, 1)[1].split(end, 1)[0].strip()
    return text.split("\n", 1)[0].rpartition(NO_ANSWER)[2].strip()[:SHOWN_CHARACTERS]


def _advice() -> str:
    return f"Set or renew {CREDENTIALS}."
