"""An S3 bucket, by keys below a prefix. No other module imports obstore or botocore.

Requests that fail with 5xx, a time-out or a broken connection are repeated with backoff, by obstore for MAXIMUM_RETRIES
or RETRY_SECONDS.
"""

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
DEFAULT_REGION = "us-east-1"
"""For stores of other vendors, which ignore it."""
SHOWN_CHARACTERS = 300
Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectStoreError(Exception):
    """A request to the store failed for good. The message says what happened, where, and what to do."""


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
class Probe:
    """Whether a store also honours conditional deletion. Conditional writes are required."""

    conditional_delete: bool


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
            with self._errors(key):
                return _info(obstore.head(self._client, key))
        except FileNotFoundError:
            return None

    def list(self, folder: str, offset: str | None = None) -> Iterator[ObjectInfo]:
        """Yield all objects below a folder in the order of their keys, after the key `offset` if it is given."""
        import obstore

        with self._errors(folder):
            for page in obstore.list(self._client, folder or None, offset=offset, chunk_size=LISTED_AT_ONCE):
                yield from map(_info, page)

    def read(self, key: str) -> bytes:
        """Return the content of a small object. Raises FileNotFoundError."""
        import obstore

        with self._errors(key):
            return bytes(obstore.get(self._client, key).bytes())

    def download(self, found: ObjectInfo, file: BinaryIO) -> None:
        """Write the content of an object to a file, in parts that are fetched in parallel.

        Raises FileNotFoundError, and ObjectChangedError if it is not the object that was found any more.
        """
        import obstore

        def part(start: int) -> bytes:
            span = (start, min(start + PART_BYTES, found.size))
            condition = {"if_match": found.etag} if found.etag else {}
            with self._errors(found.key):
                options: Any = {**condition, "range": span} if found.size > PART_BYTES else condition
                return bytes(obstore.get(self._client, found.key, options=options).bytes())

        window = PART_BYTES * PARALLEL_PARTS
        for start in range(0, max(found.size, 1), window):
            for content in in_parallel(part, range(start, max(min(start + window, found.size), start + 1), PART_BYTES)):
                file.write(content)

    def upload(self, file: Path, key: str) -> None:
        """Write a file to the key, in parallel parts if it is large, and replace what is there."""
        import obstore

        with self._errors(key):
            obstore.put(self._client, key, file)

    def write(self, key: str, content: bytes, replacing: str | None = None, create: bool = False) -> str:
        """Write a small object and return its ETag: with `create` a new one, or in place of the one with an ETag.

        Raises ObjectChangedError if there is another object.
        """
        import obstore

        with self._errors(key):
            mode: Any = "create" if create else {"e_tag": replacing} if replacing else "overwrite"
            return obstore.put(self._client, key, content, mode=mode, use_multipart=False)["e_tag"] or ""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects that exist of these keys."""
        import obstore

        with self._errors(keys[0] if len(keys) == 1 else ""):
            for start in range(0, len(keys), LISTED_AT_ONCE):
                obstore.delete(self._client, keys[start : start + LISTED_AT_ONCE])

    def delete_unchanged(self, key: str, etag: str) -> bool:
        """Delete an object in one step unless it has another ETag; return whether it had this one.

        A store without conditional deletion ignores the condition, see `probe`.
        """
        import httpx
        import obstore

        with self._errors(key):
            # obstore has no conditional deletion. The header need not be part of the signature.
            url = obstore.sign(self._client, "DELETE", key, timedelta(minutes=SIGNED_MINUTES))
        try:
            answer = _deleting_client().delete(url, headers={"If-Match": etag})
        except httpx.HTTPError as error:
            raise ObjectStoreError(self._unreachable(key, type(error).__name__)) from None
        if answer.status_code in (404, 412):
            return False
        if not answer.is_success:
            raise ObjectStoreError(f"{self}/{key} cannot be deleted: status {answer.status_code}. {_advice()}")
        return True

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket."""
        import obstore

        with self._errors(source):
            obstore.copy(self._client, source, target)

    def probe(self) -> Probe:
        """Check with an object of its own that the store honours the conditions of writes.

        Raises ObjectStoreError if it ignores one: two writers could then destroy a table.
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
            is_honoured = not self.delete_unchanged(key, '"0"') and self.find(key) is not None
            return Probe(is_honoured and self.delete_unchanged(key, etag))
        finally:
            self.delete([key])

    def _refuses(self, key: str, condition: dict[str, Any]) -> bool:
        try:
            self.write(key, b"2", **condition)
        except ObjectChangedError:
            return True
        return False

    @property
    def _client(self) -> "S3Store":
        return _client(self.bucket, self.prefix)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
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
        except (PermissionError, exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise ObjectStoreError(f"{self}/{key}: access denied ({_reason(error)}). {_advice()}") from None
        except (exceptions.BaseError, ValueError, TimeoutError) as error:
            raise self._failure(key, str(error)) from None

    def _failure(self, key: str, text: str) -> ObjectStoreError:
        if "NoSuchBucket" in text:
            return self._missing_bucket()
        if "ExpiredToken" in text or "InvalidAccessKeyId" in text or "SignatureDoesNotMatch" in text:
            return ObjectStoreError(f"{self}/{key}: access denied ({_reason(text)}). {_advice()}")
        return ObjectStoreError(self._unreachable(key, _reason(text)))

    def _missing_bucket(self) -> ObjectStoreError:
        where = _endpoint() or "AWS"
        return ObjectStoreError(
            f"The bucket {self.bucket} does not exist at {where}. Create it, or correct MUSIC_ASSETS_DATA."
        )

    def _unreachable(self, key: str, reason: str) -> str:
        return (
            f"{self}/{key}: the request failed {MAXIMUM_RETRIES + 1} times or for {RETRY_SECONDS} s ({reason}). "
            f"Check the network, the endpoint {_endpoint() or 'AWS'} and the region {_region()}, then try again."
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
def _deleting_client() -> "httpx.Client":
    """Return the client of conditional deletions. Creating one takes longer than a request."""
    import httpx

    return httpx.Client(transport=httpx.HTTPTransport(retries=MAXIMUM_RETRIES), timeout=READ_TIMEOUT_SECONDS)


@cache
def _session() -> "Session":
    """Return the session that finds credentials, region and endpoint as every AWS program does."""
    from botocore.session import get_session

    return get_session()


def _credentials() -> dict[str, Any]:
    """Return the current credentials as obstore expects them. Raises ObjectStoreError if there are none."""
    found = _session().get_credentials()
    if found is None:
        raise ObjectStoreError(f"No AWS credentials were found. {_advice()}")
    frozen = found.get_frozen_credentials()
    expires_at = datetime.now(UTC) + timedelta(minutes=CREDENTIAL_MINUTES) if frozen.token else None
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


def _is_http() -> bool:
    return (_endpoint() or "").startswith("http://")


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


def _reason(error: object) -> str:
    """Return what the store answered, from the first lines of an error of obstore."""
    text = str(error)
    for start, end in (("<Code>", "</Code>"), ("Server returned non-2xx status code: ", ":")):
        if start in text:
            return text.split(start, 1)[1].split(end, 1)[0].strip()
    return text.split("\n", 1)[0].strip()[:SHOWN_CHARACTERS]


def _advice() -> str:
    return "Set or renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of the machine."
