"""The service put together: `create_app` wires it, `serve` runs it."""

import asyncio
import logging.config
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from os import cpu_count
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from music_assets.data_root import DataRoot
from music_assets.service.admission import Admission, is_open
from music_assets.service.auth import api_keys, is_loopback
from music_assets.service.metrics import Metrics
from music_assets.service.middleware import ACCESS_LOG, Edge
from music_assets.service.problems import ProblemError
from music_assets.service.responses import Answers
from music_assets.service.routes import data_routes, embedding_routes, invalid, nothing_published, open_routes
from music_assets.service.sandbox.pool import Pool
from music_assets.service.similarity import Similarity
from music_assets.service.snapshots import Snapshots
from music_assets.service.training_runs import TrainingRuns
from music_assets.settings import Settings, SettingsError
from music_assets.storage.published_snapshot import NothingPublishedError

LOOK_SECONDS = 0.5
"""Seconds between two looks for a new snapshot on behalf of idle workers; a query looks for itself."""
LEAST_WORKERS = 2


def create_app(settings: Settings) -> FastAPI:
    """Return the service for the data root of these settings. Raises SettingsError where the API keys are wrong."""
    snapshots = Snapshots(DataRoot(settings.data))
    pool = Pool(
        settings.data,
        snapshots.newest,
        workers=settings.query_workers or max(LEAST_WORKERS, cpu_count() or 1),
        threads=settings.query_threads,
        memory_mb=settings.query_memory_mb,
        queue=settings.query_queue,
    )
    metrics = Metrics(pool)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Workers may read below the root only where it is there when they start.
        settings.data.mkdir(parents=True, exist_ok=True)
        await pool.start()
        follower = asyncio.create_task(_follow(pool, snapshots, metrics))
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await pool.close()

    app: FastAPI = FastAPIOffline(
        title="music_db",
        summary="SQL over HTTP on the published snapshot: which artists lead in a country, where an artist is loved.",
        version="1",
        redoc_url=None,
        lifespan=lifespan,
    )
    admission = Admission(api_keys(settings), settings.rate_limit)
    answers = Answers(pool, snapshots, settings)
    app.include_router(data_routes(answers, snapshots, metrics))
    app.include_router(embedding_routes(answers, Similarity(snapshots), TrainingRuns(str(settings.dagster_url))))
    app.include_router(open_routes(pool, snapshots))
    app.openapi_schema = _with_key(app.openapi())
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(RequestValidationError, _told)
    app.add_exception_handler(NothingPublishedError, _told)
    app.add_middleware(Edge, admission=admission, pool=pool, metrics=metrics)
    return app


def serve(settings: Settings) -> None:
    """Run the service until it is told to stop.

    Raises SettingsError where it must not start: without API keys it serves this machine only.
    """
    if not is_loopback(settings.host) and not api_keys(settings):
        raise SettingsError(
            f"MUSIC_ASSETS_HOST={settings.host} is reachable by others, and no API key is set: anybody could query. "
            "Set MUSIC_ASSETS_API_KEYS (python -m music_assets.service.auth NAME makes a key), or listen on 127.0.0.1."
        )
    app = create_app(settings)
    logging.config.dictConfig(LOGGING)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="uvloop",
        http="httptools",
        ws="none",
        timeout_graceful_shutdown=10,
    )


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "bare": {"format": "%(message)s"},
    },
    "handlers": {
        "errors": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "bare", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        ACCESS_LOG: {"handlers": ["access"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["errors"], "level": "INFO", "propagate": False},
        "music_assets": {"handlers": ["errors"], "level": "INFO", "propagate": False},
    },
}
"""One JSON line a request on standard output; everything else on standard error."""


def _with_key(document: dict[str, Any]) -> dict[str, Any]:
    """Say in the OpenAPI document which addresses take a key. Whether one is needed is the settings' matter."""
    document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in () if is_open(path) else methods.values():
            operation["security"] = [{"key": []}, {}]
    return document


async def _follow(pool: Pool, snapshots: Snapshots, metrics: Metrics) -> None:
    """Bring idle workers to each new snapshot, so that old ones can be removed though nobody asks."""
    log = logging.getLogger(__name__)
    served = None
    while True:
        try:
            newest = snapshots.newest().data_version
            await pool.refresh()
            if newest != served:
                served = newest
                metrics.serves(newest)
        except NothingPublishedError:
            pass
        except (OSError, ValueError, KeyError):
            log.exception("The newest snapshot cannot be read")
        await asyncio.sleep(LOOK_SECONDS)


async def _told(_: Request, error: Exception) -> NoReturn:
    """Turn what the framework raises into a problem, which the edge answers."""
    if isinstance(error, RequestValidationError):
        raise invalid(error.errors())
    if isinstance(error, NothingPublishedError):
        raise nothing_published(error)
    if isinstance(error, HTTPException) and error.status_code == 404:
        raise ProblemError("not-found", "There is nothing at this address.")
    if isinstance(error, HTTPException) and error.status_code == 405:
        raise ProblemError("method-not-allowed", "The address does not take this method.", error.headers)
    raise ProblemError("bad-request", "The request cannot be understood.")
