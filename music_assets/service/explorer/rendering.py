"""HTML responses: templates that escape every value, and security headers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import floor, log10
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from music_assets.service.auth import KEY_COOKIE
from music_assets.service.explorer.compression import respond
from music_assets.service.explorer.static_files import static_url

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # data: for the icons in Pico's style sheet
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache, private",
    "Vary": "HX-Request",
}


def render(request: Request, whole: str, part: str | None = None, /, status: int = 200, **context: Any) -> Response:
    """Return the template `whole`, or `part`, the part of it that htmx replaces, if htmx has sent the request."""
    template = ENVIRONMENT.get_template(part if part and is_from_htmx(request) else whole)
    is_signed_in = KEY_COOKIE in request.cookies
    html = template.render(path=request.url.path, is_signed_in=is_signed_in, **context).encode()
    return respond(request, html, "text/html", HEADERS, status)


def is_from_htmx(request: Request) -> bool:
    """Return whether a page requests a part of itself."""
    return request.headers.get("hx-request") == "true"


def page_url(path: str, **parameters: Any) -> str:
    """Return the address of a page, without parameters that are None or empty."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def country_url(name: str) -> str:
    """Return the address of the page of a country."""
    return page_url("/explore/country", name=name)


def artist_url(name: str) -> str:
    """Return the address of the page of an artist."""
    return page_url("/explore/artist", name=name)


def number(value: float) -> str:
    """Format a count with thousands separators."""
    return f"{value:,.0f}"


def counted(value: float, one: str, several: str) -> str:
    """Format a count with the words for one or for several."""
    return f"{number(value)} {one if value == 1 else several}"


def percent(share: float) -> str:
    """Format a share as per cent with two significant digits."""
    value = float(f"{share * 100:.1e}")
    digits = max(0, min(6, 1 - floor(log10(value)))) if value > 0 else 0
    return f"{value:.{digits}f} %"


def time(moment: datetime) -> str:
    """Format a time in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def age(moment: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def _environment(globals_: Mapping[str, Any], filters: Mapping[str, Any]) -> Environment:
    environment = Environment(
        loader=PackageLoader("music_assets.service.explorer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(globals_)
    environment.filters.update(filters)
    return environment


ENVIRONMENT = _environment(
    {"static": static_url, "page_url": page_url, "country_url": country_url, "artist_url": artist_url},
    {"number": number, "counted": counted, "percent": percent, "time": time, "age": age},
)
