"""Error responses of the pages: a page, a part of one, or the way to the form for the key."""

from urllib.parse import SplitResult, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from music_assets.service.explorer.rendering import is_from_htmx, page_url, render
from music_assets.service.problems import KINDS, ProblemError

PAGES = ("/explore/", "/sql", "/pipeline", "/sign-in")
ADVICE = {
    "not-found": "Search for an artist or a country above.",
    "busy": "Reload the page in a moment.",
    "rate-limited": "Reload the page in a moment.",
    "timeout": "Reload the page.",
    "unknown-table": "An earlier release has published the data. Drop a file, or run music-assets rebuild.",
    "sql": "An earlier release has published the data. Drop a file, or run music-assets rebuild.",
    "invalid": "Open the page from the start page.",
    "bad-request": "Open the page from the start page.",
}
"""Advice for people, where that for programs does not help them. All SQL of the pages is ready-made."""


def is_page(path: str) -> bool:
    """Return whether a path is that of a page, so that its errors are pages too."""
    return path == "/" or path.startswith(PAGES)


def error_page(request: Request, problem: ProblemError, request_id: str) -> Response:
    """Return the response for a problem of a page."""
    kind = KINDS[problem.kind]
    if problem.kind == "unauthorized":
        if is_from_htmx(request):
            form = _sign_in(request.headers.get("hx-current-url", "/"))
            return Response(status_code=kind.status, headers={"HX-Redirect": form})
        return RedirectResponse(_sign_in(str(request.url)), 303)
    response = render(
        request,
        "error.html",
        "parts/error.html",
        status=kind.status,
        title=kind.title,
        detail=problem.detail,
        advice=ADVICE.get(problem.kind, kind.advice),
        suggestions=problem.members.get("suggestions", []),
        request_id=request_id,
    )
    response.headers.update(problem.headers or {})
    return response


def _sign_in(page: str) -> str:
    """Return the address of the form for the key, which continues with a page of this service."""
    try:
        parts = urlsplit(page)
    except ValueError:
        return "/sign-in"
    return page_url("/sign-in", after=SplitResult("", "", parts.path, parts.query, "").geturl())
