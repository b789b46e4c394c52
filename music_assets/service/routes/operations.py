"""Operations: health, readiness, metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from music_assets.service.routes.deps import PROBLEMS, parts_of

router = APIRouter(tags=["Operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Report that the service is running."""
    return {"status": "ok"}


@router.get("/readyz", responses=PROBLEMS)
async def readyz(request: Request) -> dict[str, str]:
    """Report that the service can answer queries: a worker has answered one within the last second."""
    return {"status": "ready", "data_version": await parts_of(request).readiness.data_version()}


@router.get("/metrics", response_class=Response, responses=PROBLEMS)
async def metrics(request: Request) -> Response:
    """Return the Prometheus metrics."""
    return Response(generate_latest(parts_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
