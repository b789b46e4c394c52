"""Access control: API keys, the rate limit, and, without keys, requests of this machine only.

An API key is 256 random bits, so a SHA-256 digest without salt cannot be reversed. The settings contain
`NAME:DIGEST:SCOPES`; only the client has the key. `music-assets api-key NAME` creates both.
"""

import base64
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from fastapi.security import HTTPBearer
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from music_assets.service.problems import ProblemError
from music_assets.settings import Settings, SettingsError

PUBLIC_PATHS = frozenset(
    {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/sign-in", "/sign-out"}
)
PUBLIC_FOLDERS = ("/static-offline-docs/", "/explore/static/")
KEY_COOKIE = "music_assets_key"
"""Cookie with the API key of a person who signed in to the pages."""
BEARER = HTTPBearer(auto_error=False, scheme_name="API key")
_NAME = r"[\w.@-]{1,64}"
READ, TRAIN = "read", "train"
SCOPES = frozenset({READ, TRAIN})
"""What a key allows: to read, and to start trainings. A key without scopes allows everything."""
TRAINING_PATHS = re.compile(r"(/embedding-runs|/explore/training)(/.*)?|/start_embedding_job")
_ENTRY = re.compile(rf"({_NAME}):([0-9a-f]{{64}})(?::([a-z+]+))?")
_EMPTY_DIGEST = sha256(b"").hexdigest()
_IPV6_NETWORK_BITS = 64
"""Bits of an IPv6 address that identify a caller, who usually can choose the others."""
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Key:
    """An API key: the digest of the secret, and what it allows."""

    digest: str
    scopes: frozenset[str] = SCOPES


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the name for the log, and the account whose share of the service it uses."""

    name: str
    account: str


def create_api_key(name: str, scopes: Iterable[str] = (READ,)) -> tuple[str, str]:
    """Return a new key and its entry for the settings. Raises ValueError if the name or a scope is not allowed."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{name!r} is not a name of 1 to 64 letters, digits and . _ - @")
    if unknown := set(scopes) - SCOPES:
        raise ValueError(f"Unknown scope {', '.join(sorted(unknown))}: the scopes are {', '.join(sorted(SCOPES))}")
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_digest(key)}:{'+'.join(scopes)}"


def api_keys(settings: Settings) -> dict[str, Key]:
    """Return each key by name, from the setting and the file.

    Raises SettingsError if an entry is invalid, a name is repeated, or the file cannot be read.
    """
    entries = re.split(r"[\s,]+", settings.api_keys.get_secret_value())
    if settings.api_keys_file is not None:
        try:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
            raise SettingsError(
                f"MUSIC_ASSETS_API_KEYS_FILE={settings.api_keys_file} cannot be read: {reason}"
            ) from None
        entries += [line.partition("#")[0].strip() for line in lines]
    keys: dict[str, Key] = {}
    for number, entry in enumerate(filter(None, entries), start=1):
        match = _ENTRY.fullmatch(entry)
        scopes = frozenset((match[3] or "+".join(SCOPES)).split("+")) if match else frozenset()
        if match is None or match[1] in keys or not scopes <= SCOPES:
            raise SettingsError(
                f"API key entry {number} is not NAME:DIGEST or NAME:DIGEST:SCOPES with a unique name; the scopes are "
                "read, train and read+train. Create an entry with: music-assets api-key NAME"
            )
        if match[2] == _EMPTY_DIGEST:
            raise SettingsError(
                f"API key entry {number} ({match[1]}) has the digest of an empty key, with which anybody would have "
                "access. Create another entry with: music-assets api-key NAME"
            )
        keys[match[1]] = Key(match[2], scopes)
    return keys


def key_name(keys: dict[str, Key], key: str) -> str | None:
    """Return the name of an API key, if it is one of `keys`.

    All digests are compared, each in constant time: the response time reveals nothing about them.
    """
    digest = _digest(key)
    matches = [name for name, known in keys.items() if hmac.compare_digest(digest, known.digest)]
    return matches[0] if matches else None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a service that listens on this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_public(path: str) -> bool:
    """Return whether a path needs no key: health, API documentation, and what the form for the key needs."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDERS)


class AccessControl:
    """Identifies the caller of a request, or refuses the request.

    Without keys the `Host` header must name this machine. Other names mean DNS rebinding: a web page that makes the
    browser send its requests here.
    """

    def __init__(self, keys: dict[str, Key], rate_limit: str) -> None:
        self._keys = keys
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._rate = parse(rate_limit)

    async def identify(self, connection: HTTPConnection) -> Caller:
        """Return the caller; its name is `local` if the service has no keys. Raises ProblemError."""
        address = _address(connection)
        public = is_public(connection.scope["path"])
        name = await self._caller_name(connection) if self._keys and not public else None
        await self._count_request(name or address)
        if name is not None:
            self._check_scope(name, connection.scope["path"])
            return Caller(name, name)
        if public:
            return Caller("public", address)
        if self._keys:
            raise ProblemError("unauthorized", "The API key is missing or invalid.", {"WWW-Authenticate": "Bearer"})
        if not _is_local_host_header(connection.headers.get("host", "")):
            raise ProblemError("wrong-host", "Without API keys the service answers only to the name localhost.")
        return Caller("local", address)

    def _check_scope(self, name: str, path: str) -> None:
        scope = TRAIN if TRAINING_PATHS.fullmatch(path) else READ
        if scope not in self._keys[name].scopes:
            raise ProblemError("scope", f"The API key {name} does not have the scope {scope}.")

    def key_name(self, key: str) -> str | None:
        """Return the name of an API key, if it is valid."""
        return key_name(self._keys, key)

    async def _caller_name(self, connection: HTTPConnection) -> str | None:
        credentials = await BEARER(connection)
        key = credentials.credentials if credentials else _password(connection) or connection.cookies.get(KEY_COOKIE)
        return self.key_name(key) if key else None

    async def _count_request(self, account: str) -> None:
        if not await self._limiter.hit(self._rate, account):
            reset = (await self._limiter.get_window_stats(self._rate, account)).reset_time
            seconds = max(1, round(reset - time.time() + 0.5))
            raise ProblemError("rate-limited", f"The rate limit is {self._rate}.", {"Retry-After": str(seconds)})


def check_origin(headers: Headers) -> None:
    """Raise ProblemError if a page of another site makes a browser send the request. Browsers mark such requests."""
    site = headers.get("sec-fetch-site")
    if site is None and (origin := headers.get("origin")) is not None:
        # Browsers send Sec-Fetch-Site only to addresses with TLS and to this machine.
        site = "same-origin" if urlsplit(origin).netloc == headers.get("host") else "cross-site"
    if site not in (None, "none", "same-origin"):
        raise ProblemError("other-site", "Pages of other sites cannot use the service.")


def _address(connection: HTTPConnection) -> str:
    """Return the account of a client without a key: its address, of IPv6 the network."""
    host = connection.client.host if connection.client else "unknown"
    if ":" in host:
        host = str(ipaddress.ip_network((host.partition("%")[0], _IPV6_NETWORK_BITS), strict=False))
    return f"address {host}"


def _password(connection: HTTPConnection) -> str:
    """Return the password of basic authentication, which BI tools send; empty without one."""
    scheme, _, encoded = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _digest(key: str) -> str:
    return sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _is_local_host_header(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match[1].lower())
