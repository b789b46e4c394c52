"""Access control: API keys, the rate limit, and, without keys, requests of this machine only.

An API key is 256 random bits, so a SHA-256 digest without salt cannot be reversed. The settings contain `NAME:DIGEST`;
only the client has the key. `music-assets api-key NAME` creates both.
"""

import hmac
import ipaddress
import re
import secrets
import time
from hashlib import sha256

from fastapi.security import HTTPBearer
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
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
_ENTRY = re.compile(rf"({_NAME}):([0-9a-f]{{64}})")
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", re.ASCII)


def create_api_key(name: str) -> tuple[str, str]:
    """Return a new key and its entry for the settings. Raises ValueError if the name is not allowed."""
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{name!r} is not a name of 1 to 64 letters, digits and . _ - @")
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_digest(key)}"


def api_keys(settings: Settings) -> dict[str, str]:
    """Return the digest of each key by name, from the setting and the file.

    Raises SettingsError if an entry is invalid, a name is repeated, or the file cannot be read.
    """
    entries = re.split(r"[\s,]+", settings.api_keys.get_secret_value())
    if settings.api_keys_file is not None:
        try:
            lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SettingsError(f"MUSIC_ASSETS_API_KEYS_FILE cannot be read: {error}") from None
        entries += [line.partition("#")[0].strip() for line in lines]
    keys: dict[str, str] = {}
    for number, entry in enumerate(filter(None, entries), start=1):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in keys:
            raise SettingsError(
                f"API key entry {number} is not NAME:DIGEST with a unique name. "
                "Create one with: music-assets api-key NAME"
            )
        keys[match[1]] = match[2]
    return keys


def key_name(keys: dict[str, str], key: str) -> str | None:
    """Return the name of an API key, if it is one of `keys`.

    All digests are compared, each in constant time: the response time reveals nothing about them.
    """
    digest = _digest(key)
    matches = [name for name, known in keys.items() if hmac.compare_digest(digest, known)]
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

    def __init__(self, keys: dict[str, str], rate_limit: str) -> None:
        self._keys = keys
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._rate = parse(rate_limit)

    async def identify(self, connection: HTTPConnection) -> str:
        """Return the name of the caller's key, or `local` if the service has no keys. Raises ProblemError."""
        name = await self._caller_name(connection) if self._keys else None
        client = connection.client.host if connection.client else "unknown"
        await self._count_request(name or f"address {client}")
        if self._keys and name is None:
            raise ProblemError("unauthorized", "The API key is missing or invalid.", {"WWW-Authenticate": "Bearer"})
        if not self._keys and not _is_local_host_header(connection.headers.get("host", "")):
            raise ProblemError("wrong-host", "Without API keys the service answers only to the name localhost.")
        return name or "local"

    def key_name(self, key: str) -> str | None:
        """Return the name of an API key, if it is valid."""
        return key_name(self._keys, key)

    async def _caller_name(self, connection: HTTPConnection) -> str | None:
        credentials = await BEARER(connection)
        key = credentials.credentials if credentials else connection.cookies.get(KEY_COOKIE)
        return self.key_name(key) if key else None

    async def _count_request(self, caller: str) -> None:
        if not await self._limiter.hit(self._rate, caller):
            reset = (await self._limiter.get_window_stats(self._rate, caller)).reset_time
            seconds = max(1, round(reset - time.time() + 0.5))
            raise ProblemError("rate-limited", f"The rate limit is {self._rate}.", {"Retry-After": str(seconds)})


def _digest(key: str) -> str:
    return sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _is_local_host_header(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback(match[1].lower())
