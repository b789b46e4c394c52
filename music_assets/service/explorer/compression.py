"""Compressed responses."""

import gzip
from collections.abc import Mapping

from fastapi import Request, Response

PAGE_LEVEL = 4
"""A page with a map takes 1.4 ms. Level 6 would take 5.6 ms for 7 % less."""


def accepts_gzip(request: Request) -> bool:
    """Return whether the client accepts a compressed response."""
    return "gzip" in request.headers.get("accept-encoding", "")


def response_with(
    content: bytes, content_type: str, headers: Mapping[str, str], status: int = 200, compressed: bool = False
) -> Response:
    """Return a response whose content may be compressed already."""
    response = Response(content, status, dict(headers), media_type=content_type)
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers.append("Vary", "Accept-Encoding")
    return response


def respond(
    request: Request, content: bytes, content_type: str, headers: Mapping[str, str], status: int = 200
) -> Response:
    """Return a response that is compressed if the client accepts it."""
    if accepts_gzip(request):
        return response_with(compress(content, PAGE_LEVEL), content_type, headers, status, compressed=True)
    return response_with(content, content_type, headers, status)


def compress(content: bytes, level: int) -> bytes:
    """Return the content compressed at a level from 1, fast, to 9, small."""
    return gzip.compress(content, level, mtime=0)
