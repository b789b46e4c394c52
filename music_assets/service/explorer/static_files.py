"""Style sheets, scripts and vendored libraries, under an address that contains a digest of them all.

A browser may therefore keep them forever, and loads them again after an upgrade.
"""

from functools import cache
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path

from fastapi import APIRouter, Request, Response

from music_assets.service.explorer.compression import accepts_gzip, compress, response_with
from music_assets.service.problems import ProblemError

FOLDER = Path(__file__).with_name("static")
PREFIX = "/explore/static/"
SMALLEST = 9
HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}

router = APIRouter()


@cache
def static_url(name: str) -> str:
    """Return the address of a file in `static/`. Scripts may import each other by relative addresses."""
    return f"{PREFIX}{_digest()}/{name}"


@router.get(PREFIX + "{digest}/{name:path}")
def static_file(request: Request, digest: str, name: str) -> Response:
    """Return a file."""
    if digest != _digest() or name not in _names():
        raise ProblemError("not-found", "There is no such file.")
    content_type = guess_type(name)[0] or "text/plain"
    if accepts_gzip(request):
        return response_with(_compressed(name), content_type, HEADERS, compressed=True)
    return response_with(_content(name), content_type, HEADERS)


@cache
def _names() -> frozenset[str]:
    return frozenset(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())


@cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def _compressed(name: str) -> bytes:
    return compress(_content(name), SMALLEST)


@cache
def _digest() -> str:
    digest = sha256()
    for name in sorted(_names()):
        digest.update(name.encode() + b"\0" + _content(name))
    return digest.hexdigest()[:16]
