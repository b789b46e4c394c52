"""What each address answers. Every answer with rows goes through `Answers`; every refusal is a `ProblemError`."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Literal

import duckdb
import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from ibis.backends.sql.datatypes import DuckDBType
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
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

from music_assets.service import ready_made_queries as questions
from music_assets.service.formats import MEDIA_TYPES
from music_assets.service.metrics import Metrics
from music_assets.service.problems import KINDS, MEDIA_TYPE, ProblemError
from music_assets.service.responses import Answers, Question, chosen_format
from music_assets.service.sandbox.pool import Pool
from music_assets.service.similarity import Found, Similarity
from music_assets.service.snapshots import Snapshots, tables
from music_assets.service.training_runs import State, TrainingRun, TrainingRuns
from music_assets.storage.published_snapshot import NothingPublishedError
from music_assets.tables import USER_TOP_ARTISTS, Table

MOST_SQL_CHARACTERS = 100_000
MOST_PARAMETERS = 1000
PAGE = 100
SAMPLE_ROWS = 5
LONGEST_LIST = USER_TOP_ARTISTS.column("rank").maximum or 0
"""Artists in a user's list, at most."""


def _exact(value: bool | int | float | str | None) -> bool | int | float | str | None:
    """Refuse numbers that would not arrive as they were sent."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer has 64 bits here; send a larger one as text and cast it in the SQL")
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number must be finite; send 'NaN' or 'Infinity' as text and cast it in the SQL")
    return value


Scalar = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr | None, AfterValidator(_exact)]
Format = Annotated[
    Literal["json", "ndjson", "csv", "arrow", "parquet"] | None,
    Query(alias="format", description="Format of the answer; without it the Accept header decides, else JSON."),
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Rows on the page.")]
Neighbourhood = Annotated[int, Query(ge=1, le=1000, description="Rows wanted.")]
UserId = Annotated[int, Path(ge=-(2**31), le=2**31 - 1)]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Rows before the page.")]


class QueryBody(BaseModel):
    """A statement, its parameters, and the caller's own bounds; the service's bounds hold above them."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(strict=True, min_length=1, max_length=MOST_SQL_CHARACTERS, description="One SELECT.")]
    params: Annotated[
        Annotated[list[Scalar], Field(max_length=MOST_PARAMETERS)]
        | Annotated[dict[str, Scalar], Field(max_length=MOST_PARAMETERS)]
        | None,
        Field(description="Values for `?` or `$1` in a list, for `$name` in an object."),
    ] = None
    limit: Annotated[int, Field(strict=True, ge=1, le=2**53, description="Most rows wanted.")] | None = None
    timeout_ms: Annotated[int, Field(strict=True, ge=1, le=2**53, description="Most milliseconds.")] | None = None


class OldQueryBody(BaseModel):
    """A statement, as the old system took it; what else the body holds is not looked at."""

    query: Annotated[str, Field(strict=True, min_length=1, max_length=MOST_SQL_CHARACTERS, description="One SELECT.")]


class RowsBody(BaseModel):
    """An answer in JSON: rows as arrays, in the order of the columns."""

    columns: list[dict[str, str]]
    rows: list[list[Any]]
    row_count: int
    truncated: bool
    query_id: str
    elapsed_ms: float
    data_version: str


class TrainingRunBody(BaseModel):
    """A training: its run in Dagster, how it does, and where to look."""

    run_id: str
    state: State
    started_at: datetime | None
    ended_at: datetime | None
    address: str
    web_ui: str


class Problem(BaseModel):
    """What was wrong, where, and what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    advice: str
    request_id: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": titles, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, titles in {
        status: "; ".join(title for other, title in KINDS.values() if other == status)
        for status, _ in sorted(KINDS.values())
    }.items()
    if status != 500
}
ROWS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {
        "model": RowsBody,
        "description": "The rows, in the format asked for.",
        "content": {
            media_type.partition(";")[0]: {"schema": {"type": "string"}}
            for name, media_type in MEDIA_TYPES.items()
            if name != "json"
        },
    },
    304: {"description": "The caller's copy (If-None-Match) is still right."},
}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[BaseModel], any_type: bool = False) -> Any:
    """Return the body as that model. Raises ProblemError; what it tells never repeats values that were sent."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not any_type and content_type != "application/json":
        raise ProblemError("not-json", "The body must be JSON.")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def invalid(errors: Any) -> ProblemError:
    """Return the problem that lists where which value does not fit."""
    listed = [{"where": ".".join(str(part) for part in error["loc"]), "what": error["msg"]} for error in errors][:20]
    if any(error["type"] in ("json_invalid", "json_type") for error in errors):
        return ProblemError("bad-request", "The body is not valid JSON.", errors=listed)
    return ProblemError("invalid", "Some values do not fit.", errors=listed)


def data_routes(answers: Answers, snapshots: Snapshots, metrics: Metrics) -> APIRouter:
    """Return the routes that touch data, which need a key where there are keys."""
    router = APIRouter()

    @router.post("/query", responses=ROWS, openapi_extra=_body(QueryBody), response_class=Response, tags=["SQL"])
    async def query(request: Request, wanted: Format = None) -> Response:
        """Answer one SELECT over the tables of music_db."""
        form = chosen_format(request, wanted)
        body: QueryBody = await _read(request, QueryBody)
        return await answers.answer(request, Question(body.query, body.params, body.limit, body.timeout_ms), form)

    @router.get("/query", responses=ROWS, response_class=Response, tags=["SQL"])
    async def query_by_address(
        request: Request,
        query: Annotated[str, Query(min_length=1, max_length=MOST_SQL_CHARACTERS, description="One SELECT.")],
        limit: Annotated[int | None, Query(ge=1, le=2**53, description="Most rows wanted.")] = None,
        timeout_ms: Annotated[int | None, Query(ge=1, le=2**53, description="Most milliseconds.")] = None,
        wanted: Format = None,
    ) -> Response:
        """Answer one SELECT given in the address: for readers that take a URL."""
        return await answers.answer(request, Question(query, None, limit, timeout_ms), chosen_format(request, wanted))

    @router.post(
        "/ApiQueryHandler", responses=PROBLEMS, openapi_extra=_body(OldQueryBody), response_class=Response,
        tags=["Old addresses"],
    )  # fmt: skip
    async def api_query_handler(request: Request) -> Response:
        """Answer as the old system did: a bare array of objects; a problem also says `error`."""
        try:
            body: OldQueryBody = await _read(request, OldQueryBody, any_type=True)
            return await answers.answer(request, Question(body.query), "objects")
        except ProblemError as problem:
            kind = "bad-request" if problem.kind == "invalid" else problem.kind
            detail = "Send the SQL under 'query'." if problem.kind == "invalid" else problem.detail
            members = {**problem.members, "error": detail}
            raise ProblemError(kind, detail, problem.headers, **members) from None

    @router.get("/tables", responses=PROBLEMS, tags=["Tables"])
    async def list_tables() -> dict[str, Any]:
        """List the tables: columns with type and description, and how many rows there are."""
        snapshot = snapshots.newest()
        return {
            "data_version": snapshot.data_version,
            "tables": [_described(table, snapshot.tables[table.full_name].rows) for table in tables(snapshot)],
        }

    @router.get("/tables/{name}", responses=PROBLEMS, response_class=Response, tags=["Tables"])
    async def show_table(request: Request, name: Annotated[str, Path(max_length=200)]) -> Response:
        """Describe one table, with a few of its rows."""
        snapshot = snapshots.newest()
        found = [table for table in tables(snapshot) if table.full_name == name]
        if not found:
            raise ProblemError("not-found", "There is no such table.")
        sample = await answers.whole(request, Question(f"SELECT * FROM {name}", None, SAMPLE_ROWS), "json")
        content = {
            "data_version": snapshot.data_version,
            **_described(found[0], snapshot.tables[name].rows),
            "sample": orjson.loads(sample)["rows"],
        }
        return Response(orjson.dumps(content), media_type="application/json")

    async def page(request: Request, sql: str, limit: int, offset: int, wanted: str | None, **params: Any) -> Response:
        bounds = {"limit": limit + 1, "offset": offset, **params}
        response = await answers.answer(request, Question(sql, bounds, limit), chosen_format(request, wanted))
        if response.headers.get("x-truncated") == "true":
            following = request.url.include_query_params(offset=offset + limit, limit=limit)
            response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
        return response

    @router.get("/countries", responses=ROWS, response_class=Response, tags=["Ready-made questions"])
    async def countries(request: Request, limit: Limit = PAGE, offset: Offset = 0, wanted: Format = None) -> Response:
        """List the countries, with the number of artists and of plays in each."""
        return await page(request, questions.COUNTRIES, limit, offset, wanted)

    @router.get(
        "/countries/{country:path}/artists", responses=ROWS, response_class=Response, tags=["Ready-made questions"]
    )
    async def artists_of_country(
        request: Request, country: str, limit: Limit = PAGE, offset: Offset = 0, wanted: Format = None
    ) -> Response:
        """List the artists of a country, the most played first."""
        return await page(request, questions.ARTISTS_OF_COUNTRY, limit, offset, wanted, country=country)

    @router.get(
        "/artists/{artist:path}/countries", responses=ROWS, response_class=Response, tags=["Ready-made questions"]
    )
    async def countries_of_artist(
        request: Request,
        artist: str,
        limit: Limit = PAGE,
        offset: Offset = 0,
        min_listeners: Annotated[
            int | None,
            Query(
                ge=1,
                le=2**31,
                description="Leave out countries with fewer listeners: users of the country, as last delivered, in "
                "whose top artists, as last delivered, the artist stands. Counting takes seconds.",
            ),
        ] = None,
        wanted: Format = None,
    ) -> Response:
        """List the countries of an artist, the one that loves the artist most first."""
        if min_listeners is None:
            return await page(request, questions.COUNTRIES_OF_ARTIST, limit, offset, wanted, artist=artist)
        sql = questions.COUNTRIES_OF_ARTIST_BY_LISTENERS
        return await page(request, sql, limit, offset, wanted, artist=artist, min_listeners=min_listeners)

    @router.get("/artists", responses=ROWS, response_class=Response, tags=["Ready-made questions"])
    async def artists(
        request: Request,
        search: Annotated[str, Query(min_length=1, max_length=200, description="Part of the name, in any case.")],
        limit: Limit = PAGE,
        offset: Offset = 0,
        wanted: Format = None,
    ) -> Response:
        """Find artists by a part of their name, with the country that loves each most."""
        return await page(request, questions.ARTISTS, limit, offset, wanted, search=search)

    @router.get("/metrics", response_class=Response, responses=PROBLEMS, tags=["Operation"])
    async def show_metrics() -> Response:
        """Tell Prometheus how the service does."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def embedding_routes(answers: Answers, similarity: Similarity, runs: TrainingRuns) -> APIRouter:
    """Return the routes that start trainings, and ask the vectors; they need a key where there are keys."""
    router = APIRouter()

    async def start(request: Request, response: Response) -> TrainingRunBody:
        # A page of another site can make a browser on this machine send it, with nobody asked.
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ProblemError("other-site", "A training is not started from a page of another site.")
        run, started = await runs.start()
        request.state.notes.update(run_id=run.run_id, started=started)
        body = _described_run(run, runs.dagster_url)
        response.headers["Location"] = body.address
        return body

    @router.post("/embedding-runs", status_code=202, responses=PROBLEMS, tags=["Embeddings"])
    async def start_training(request: Request, response: Response) -> TrainingRunBody:
        """Start a training of the embeddings in Dagster, or tell of the one that has not ended yet."""
        return await start(request, response)

    @router.get("/embedding-runs/{run_id}", responses=PROBLEMS, tags=["Embeddings"])
    async def show_training(run_id: Annotated[str, Path(max_length=200)]) -> TrainingRunBody:
        """Tell how a training does."""
        return _described_run(await runs.show(run_id), runs.dagster_url)

    @router.get("/start_embedding_job", status_code=202, responses=PROBLEMS, tags=["Old addresses"])
    async def start_embedding_job(request: Request, response: Response) -> TrainingRunBody:
        """Do as POST /embedding-runs does; a problem also says `error`."""
        try:
            return await start(request, response)
        except ProblemError as problem:
            members = {**problem.members, "error": problem.detail}
            raise ProblemError(problem.kind, problem.detail, problem.headers, **members) from None

    async def answer(request: Request, sql: str, found: Found, k: int, wanted: str | None, **params: Any) -> Response:
        bounds = {"keys": found.keys, "cosines": found.cosines, "limit": k, **params}
        return await answers.answer(request, Question(sql, bounds), chosen_format(request, wanted))

    @router.get("/artists/{artist:path}/similar", responses=ROWS, response_class=Response, tags=["Embeddings"])
    async def similar_artists(request: Request, artist: str, k: Neighbourhood = 10, wanted: Format = None) -> Response:
        """List the artists whose listeners' taste is nearest, by cosine."""
        found = await similarity.artists_like(artist, k)
        return await answer(request, questions.SIMILAR_ARTISTS, found, k, wanted)

    @router.get("/users/{user_id}/similar", responses=ROWS, response_class=Response, tags=["Embeddings"])
    async def similar_users(
        request: Request, user_id: UserId, k: Neighbourhood = 10, wanted: Format = None
    ) -> Response:
        """List the users of nearest taste, by cosine."""
        found = await similarity.users_like(user_id, k)
        return await answer(request, questions.SIMILAR_USERS, found, k, wanted)

    @router.get("/users/{user_id}/recommendations", responses=ROWS, response_class=Response, tags=["Embeddings"])
    async def recommendations(
        request: Request, user_id: UserId, k: Neighbourhood = 10, wanted: Format = None
    ) -> Response:
        """List the artists nearest to a user's taste that are not in the user's list, as last delivered."""
        found = await similarity.artists_for(user_id, k + LONGEST_LIST)
        return await answer(request, questions.RECOMMENDATIONS, found, k, wanted, user_id=user_id)

    return router


def _described_run(run: TrainingRun, dagster_url: str) -> TrainingRunBody:
    return TrainingRunBody(
        run_id=run.run_id,
        state=run.state,
        started_at=run.started_at,
        ended_at=run.ended_at,
        address=f"/embedding-runs/{run.run_id}",
        web_ui=f"{dagster_url}/runs/{run.run_id}",
    )


def open_routes(pool: Pool, snapshots: Snapshots) -> APIRouter:
    """Return the routes that need no key: they tell whether the service is there, nothing else."""
    router = APIRouter(tags=["Operation"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the service runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses=PROBLEMS)
    async def readyz() -> dict[str, str]:
        """Tell that the service can answer: there is data, and a process to run queries."""
        if not pool.ready:
            raise ProblemError("busy", "No process is ready to run queries.", {"Retry-After": "1"})
        return {"status": "ready", "data_version": snapshots.newest().data_version}

    return router


def _described(table: Table, rows: int) -> dict[str, Any]:
    return {
        "name": table.full_name,
        "description": table.description,
        "row_count": rows,
        "columns": [
            {"name": column.name, "type": _sql_type(kind), "description": column.description}
            for column, kind in zip(table.columns, table.schema.types, strict=True)
        ],
    }


def _sql_type(kind: Any) -> str:
    return str(duckdb.sqltype(DuckDBType.to_string(kind)))


def nothing_published(error: NothingPublishedError) -> ProblemError:
    """Return the problem for a data root without a snapshot, without telling where it lies."""
    return ProblemError("nothing-published", "No data has been published yet.", {"Retry-After": "30"})
