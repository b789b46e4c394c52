"""The application: `create_app` assembles it, `serve` runs it."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from os import cpu_count
from typing import Any, NoReturn

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Route

from music_assets.data_root import DataRoot
from music_assets.service.artist_countries import ArtistCountries
from music_assets.service.artist_search import ArtistSearch
from music_assets.service.auth import BEARER, AccessControl, api_keys, is_loopback, is_public
from music_assets.service.dagster_api import DagsterApi
from music_assets.service.explorer import pages
from music_assets.service.explorer.named_queries import read_named_queries
from music_assets.service.http_protocol import bounded_protocol
from music_assets.service.logs import configure_logging, flush_logs
from music_assets.service.mcp_endpoint import McpEndpoint
from music_assets.service.metrics import Metrics
from music_assets.service.middleware import RequestMiddleware
from music_assets.service.problems import ProblemError
from music_assets.service.readiness import Readiness
from music_assets.service.refreshes import Refreshes
from music_assets.service.responses import QueryResponder
from music_assets.service.routes import embeddings, operations, rankings, sql, tables, trino
from music_assets.service.routes.deps import Parts
from music_assets.service.sandbox.pool import Pool
from music_assets.service.sandbox.spool import Spool
from music_assets.service.similarity import Similarity
from music_assets.service.snapshots import Snapshots
from music_assets.service.training_runs import TrainingRuns
from music_assets.settings import Settings, SettingsError
from music_assets.storage.published_snapshot import NothingPublishedError

log = logging.getLogger(__name__)

MIN_WORKERS = 2
OTHER_FILES = 128
"""Open files besides connections: workers, the snapshot, results on their way."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application for the data root in the settings.

    Raises SettingsError if the API keys or the named queries are invalid.
    """
    root = DataRoot.of(settings)
    snapshots = Snapshots(root)
    spool = Spool(settings.spool_mb * 2**20)
    pool = Pool(
        root.path,
        snapshots.newest,
        workers=settings.query_workers or max(MIN_WORKERS, cpu_count() or 1),
        threads=settings.query_threads,
        memory_mb=settings.query_memory_mb,
        queue=settings.query_queue,
        spool=spool,
    )
    metrics = Metrics(pool)
    dagster = DagsterApi(str(settings.dagster_url))
    access = AccessControl(api_keys(settings), settings.rate_limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A worker can only be allowed to read the data root if the folder exists when the worker starts.
        root.path.mkdir(parents=True, exist_ok=True)
        await pool.start()
        refresh = asyncio.create_task(_refresh_workers(pool, snapshots, metrics))
        async with assistants.run():
            yield
        refresh.cancel()
        with suppress(asyncio.CancelledError):
            await refresh
        await pool.close()
        flush_logs()

    app: FastAPI = FastAPIOffline(
        title="music_db",
        summary="SQL over HTTP on the published snapshot: rankings of artists and countries, similar artists, users.",
        version="1",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.parts = Parts(
        pool=pool,
        snapshots=snapshots,
        responder=QueryResponder(pool, snapshots, spool, settings),
        similarity=Similarity(snapshots),
        artist_countries=ArtistCountries(snapshots),
        artist_search=ArtistSearch(snapshots),
        training_runs=TrainingRuns(dagster),
        refreshes=Refreshes(root, dagster),
        metrics=metrics,
        access=access,
        named_queries=read_named_queries(settings.named_queries) if settings.named_queries else [],
        readiness=Readiness(pool),
    )
    for module in (sql, tables, rankings, embeddings, operations, trino, pages):
        app.include_router(module.router)
    assistants = McpEndpoint(app)
    app.router.routes.append(assistants.route)
    app.openapi_schema = _with_bearer(app.openapi())
    _serve_prepared(app, "/openapi.json", orjson.dumps(app.openapi_schema))
    for kind in (HTTPException, RequestValidationError, NothingPublishedError):
        app.add_exception_handler(kind, _raise_problem)
    app.add_middleware(
        RequestMiddleware, access=access, pool=pool, metrics=metrics, request_timeout=settings.request_timeout
    )
    return app


def serve(settings: Settings) -> None:
    """Run the service until it is stopped.

    Raises SettingsError if it would be reachable from other machines without API keys.
    """
    if not is_loopback(settings.host) and not api_keys(settings):
        raise SettingsError(
            f"The service would be reachable from other machines (host {settings.host}), but no API key is set. "
            "Set MUSIC_ASSETS_API_KEYS (create a key with: music-assets api-key NAME), or listen on 127.0.0.1."
        )
    DataRoot.of(settings).check_layout()
    app = create_app(settings)
    configure_logging()
    max_connections = _connections_of_open_files(settings.max_connections)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(server_config(app, settings, max_connections)).run()


def server_config(app: FastAPI, settings: Settings, max_connections: int) -> uvicorn.Config:
    """Return the configuration of the HTTP server."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="uvloop",
        http=bounded_protocol(max_connections, settings.request_timeout),
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=10,
    )


def _connections_of_open_files(wanted: int) -> int:
    """Raise the limit of open files for this number of connections, and return the number that the limit admits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = max(1, min(wanted, hard - OTHER_FILES))
    if soft != resource.RLIM_INFINITY and soft < wanted + OTHER_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + OTHER_FILES, hard))
    return wanted


def _with_bearer(document: dict[str, Any]) -> dict[str, Any]:
    """Declare in the OpenAPI document which endpoints take an API key."""
    scheme = BEARER.model.model_dump(mode="json", by_alias=True, exclude_none=True)
    document.setdefault("components", {})["securitySchemes"] = {BEARER.scheme_name: scheme}
    for path, methods in document["paths"].items():
        for operation in () if is_public(path) else methods.values():
            operation["security"] = [{BEARER.scheme_name: []}, {}]
    return document


def _serve_prepared(app: FastAPI, path: str, content: bytes) -> None:
    """Answer a path with prepared JSON, in front of the route that would encode it for each request."""

    async def answer(_: Request) -> Response:
        return Response(content, media_type="application/json")

    app.router.routes.insert(0, Route(path, answer))


async def _refresh_workers(pool: Pool, snapshots: Snapshots, metrics: Metrics) -> None:
    """Move idle workers to each new snapshot, so that old ones can be deleted even if there are no queries."""
    reported = None
    while True:
        try:
            await asyncio.to_thread(snapshots.poll)
            newest = snapshots.newest().data_version
            await pool.refresh()
            if newest != reported:
                reported = newest
                metrics.set_data_version(newest)
        except (NothingPublishedError, ProblemError):
            pass  # every request says so
        except (OSError, ValueError, KeyError):
            log.exception("The newest snapshot cannot be read")
        await asyncio.sleep(snapshots.poll_seconds)


async def _raise_problem(request: Request, error: Exception) -> NoReturn:
    """Raise an error of the framework or the storage as the ProblemError that RequestMiddleware answers with."""
    if isinstance(error, ProblemError):
        raise error
    if isinstance(error, RequestValidationError):
        raise _invalid(error)
    if isinstance(error, NothingPublishedError):
        # Its message names the data root.
        raise ProblemError("nothing-published", "No data has been published yet.", {"Retry-After": "30"})
    if isinstance(error, HTTPException) and error.status_code == 404:
        raise ProblemError("not-found", "There is nothing at this address.")
    if isinstance(error, HTTPException) and error.status_code == 405:
        raise ProblemError("method-not-allowed", "The endpoint does not support this method.", error.headers)
    raise ProblemError("bad-request", "The request cannot be parsed.")


def _invalid(error: RequestValidationError) -> ProblemError:
    """Return the problem for an invalid body or parameters. It never repeats the values that were sent."""
    parts = error.errors()
    errors = [{"where": ".".join(map(str, part["loc"])), "what": part["msg"]} for part in parts[:20]]
    if any(part["type"] == "json_invalid" for part in parts):
        return ProblemError("bad-request", "The body is not valid JSON.", errors=errors)
    return ProblemError("invalid", "Some values are invalid.", errors=errors)
