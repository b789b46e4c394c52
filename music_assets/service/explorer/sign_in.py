"""The form for the API key, where the service has keys. The browser keeps the key in a cookie no script can read."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from music_assets.service.auth import KEY_COOKIE, check_origin
from music_assets.service.explorer.rendering import render
from music_assets.service.routes.deps import parts_of

COOKIE_SECONDS = 30 * 24 * 3600

router = APIRouter()


@router.get("/sign-in")
async def sign_in_form(request: Request, after: Annotated[str, Query(max_length=10_000)] = "/") -> Response:
    """Show the form. `after` is the address to continue with."""
    return render(request, "sign_in.html", after=_local(after), rejected=False)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Set the cookie, if the key is valid."""
    check_origin(request.headers)
    fields = parse_qs((await request.body()).decode(errors="replace"))
    key, after = fields.get("key", [""])[0].strip(), _local(fields.get("after", ["/"])[0])
    if parts_of(request).access.key_name(key) is None:
        return render(request, "sign_in.html", status=403, after=after, rejected=True)
    response = RedirectResponse(after, 303)
    secure = request.url.scheme == "https"
    response.set_cookie(KEY_COOKIE, key, COOKIE_SECONDS, secure=secure, httponly=True, samesite="strict")
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Delete the cookie."""
    check_origin(request.headers)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(KEY_COOKIE, httponly=True, samesite="strict")
    return response


def _local(address: str) -> str:
    """Return an address of this service: another one could be that of a forged form."""
    is_local = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if is_local else "/"
