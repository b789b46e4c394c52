"""Who may ask: API keys, kept as SHA-256 digests. `python -m music_assets.service.auth NAME` makes one.

A key is 256 random bits, so a plain digest is enough: there is nothing to guess. The digest goes into
`MUSIC_ASSETS_API_KEYS` or the file of `MUSIC_ASSETS_API_KEYS_FILE`, as `NAME:DIGEST`; the key
itself goes to its holder.
"""

import hmac
import ipaddress
import re
import secrets
import sys
from hashlib import sha256

from music_assets.settings import Settings, SettingsError

ENTRY = re.compile(r"([\w.@-]{1,64}):([0-9a-f]{64})")


def api_keys(settings: Settings) -> dict[str, str]:
    """Return the digest of each key by the name of its holder, from the setting and the file.

    Raises SettingsError where an entry is none, a name stands twice, or the file cannot be read.
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
        found = ENTRY.fullmatch(entry)
        if found is None or found[1] in keys:
            raise SettingsError(
                f"API key entry {number} is not NAME:DIGEST with a name of its own. "
                "Make one with: python -m music_assets.service.auth NAME"
            )
        keys[found[1]] = found[2]
    return keys


def holder(keys: dict[str, str], authorization: str) -> str | None:
    """Return the name of the key in an Authorization header; None where it is not one of ours.

    Every digest is compared, each in constant time, so that the time taken tells nothing.
    """
    scheme, _, token = authorization.partition(" ")
    digest = sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    found = None
    for name, known in keys.items():
        if hmac.compare_digest(digest, known):
            found = name
    return found if scheme.lower() == "bearer" else None


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a service that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Make a key for the holder named on the command line: print the key, and the entry for the settings."""
    if len(sys.argv) != 2 or not ENTRY.fullmatch(f"{sys.argv[1]}:{'0' * 64}"):
        sys.exit("Usage: python -m music_assets.service.auth NAME (letters, digits and . _ - @)")
    key = secrets.token_urlsafe(32)
    sys.stdout.write(f"key for its holder:     {key}\n")
    sys.stdout.write(f"entry for the settings: {sys.argv[1]}:{sha256(key.encode()).hexdigest()}\n")


if __name__ == "__main__":
    main()
