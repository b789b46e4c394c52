"""SQL: `/query`, and `/ApiQueryHandler`, the address of the old system."""

from math import isfinite
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from music_assets.service.problems import ProblemError, legacy_errors
from music_assets.service.routes.deps import PROBLEMS, RESULTS, Format, parts_of

MAX_SQL_CHARACTERS = 100_000
MAX_PARAMETERS = 1000
MAX_INTEGER = 2**53
"""Largest integer that every JSON reader represents exactly."""


def _representable(value: bool | int | float | str | None) -> bool | int | float | str | None:
    """Reject numbers that DuckDB would not receive exactly as they were sent."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("integers are limited to 64 bits; send a larger one as text and cast it in the SQL")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("numbers must be finite; send 'NaN' or 'Infinity' as text and cast it in the SQL")
    return value


Scalar = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr | None, AfterValidator(_representable)]


class LegacyQueryBody(BaseModel):
    """A statement as the old system accepted it. Other members are ignored."""

    query: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_SQL_CHARACTERS, description="One SELECT.")]


class QueryBody(LegacyQueryBody):
    """A statement, its parameters, and limits below those of the service."""

    model_config = ConfigDict(extra="forbid")

    params: Annotated[
        Annotated[list[Scalar], Field(max_length=MAX_PARAMETERS)]
        | Annotated[dict[str, Scalar], Field(max_length=MAX_PARAMETERS)]
        | None,
        Field(description="Values: a list for `?` or `$1`, an object for `$name`."),
    ] = None
    limit: Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER, description="Maximum number of rows.")] | None = None
    timeout_ms: (
        Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER, description="Query timeout in milliseconds.")] | None
    ) = None


router = APIRouter(default_response_class=Response, tags=["SQL"])


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that the endpoint parses itself.

    A FastAPI body model would also accept other media types, and a byte order mark.
    """
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


@router.post("/query", responses=RESULTS, openapi_extra=_json_body(QueryBody))
async def query(request: Request, result_format: Format = None) -> Response:
    """Run one SELECT on the tables of music_db."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError("not-json", "The Content-Type of the body is not application/json.")
    try:
        body = QueryBody.model_validate_json(await request.body())
    except ValidationError as error:
        parts: list[Any] = error.errors(include_url=False, include_context=False)
        for part in parts:
            # Without the steps that are names of types in Python.
            part["loc"] = ("body", *(step for step in part["loc"] if "[" not in str(step)))
        raise RequestValidationError(parts) from None
    return await parts_of(request).responder.respond(
        request, result_format, body.query, body.params, body.limit, body.timeout_ms
    )


@router.get("/query", responses=RESULTS)
async def query_by_url(
    request: Request,
    query: Annotated[str, Query(min_length=1, max_length=MAX_SQL_CHARACTERS, description="One SELECT.")],
    limit: Annotated[int | None, Query(ge=1, le=MAX_INTEGER, description="Maximum number of rows.")] = None,
    timeout_ms: Annotated[int | None, Query(ge=1, le=MAX_INTEGER, description="Query timeout in milliseconds.")] = None,
    result_format: Format = None,
) -> Response:
    """Run one SELECT given in the URL, for readers that accept only a URL."""
    return await parts_of(request).responder.respond(request, result_format, query, None, limit, timeout_ms)


@router.post("/ApiQueryHandler", responses=PROBLEMS, openapi_extra=_json_body(LegacyQueryBody), tags=["Old addresses"])
async def api_query_handler(request: Request) -> Response:
    """Run one SELECT as the old system did: the response is an array of objects; problems have a member `error`."""
    with legacy_errors():
        try:
            # The old system ignored the content type, which a FastAPI body model does not.
            body = LegacyQueryBody.model_validate_json(await request.body())
        except ValidationError:
            raise ProblemError("bad-request", "Send a JSON object with the SQL as its member 'query'.") from None
        return await parts_of(request).responder.respond(request, "objects", body.query)
