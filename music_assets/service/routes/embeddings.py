"""The embeddings: training runs, similar artists and users, recommendations. Also `/start_embedding_job`."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from music_assets.service import ready_made_queries as queries
from music_assets.service.problems import legacy_errors
from music_assets.service.routes.deps import MAX_NAME_CHARACTERS, PROBLEMS, RESULTS, ArtistName, Format, parts_of
from music_assets.service.training_runs import TrainingRun
from music_assets.tables import USER_TOP_ARTISTS

MAX_LIST_LENGTH = USER_TOP_ARTISTS.column("rank").maximum or 0
"""Maximum number of artists in a user's list."""

K = Annotated[int, Query(ge=1, le=1000, description="Number of rows.")]
MinListeners = Annotated[
    int, Query(ge=1, le=2**31, description="Only artists with at least this many listeners at the last training.")
]
UserId = Annotated[int, Path(ge=-(2**31), le=2**31 - 1)]


class ListedArtist(BaseModel):
    """An artist of a list."""

    artist_name: str = Field(max_length=MAX_NAME_CHARACTERS, description="Spelled as in artist_embedding.")
    playcount: int | None = Field(None, ge=0, le=2**63 - 1, description="Number of plays; may be unknown.")


class ArtistList(BaseModel):
    """The artists that someone listens to."""

    artists: list[ListedArtist] = Field(min_length=1, max_length=1000)


router = APIRouter(responses=PROBLEMS, tags=["Embeddings"])


@router.post("/embedding-runs", status_code=202)
async def start_training(request: Request, response: Response) -> TrainingRun:
    """Start a training of the embeddings in Dagster, or return the unfinished one."""
    return await _start(request, response)


@router.get("/embedding-runs/{run_id}")
async def show_training(request: Request, run_id: Annotated[str, Path(max_length=200)]) -> TrainingRun:
    """Return the state of a training."""
    return await parts_of(request).training_runs.show(run_id)


@router.get("/start_embedding_job", status_code=202, tags=["Old addresses"])
async def start_embedding_job(request: Request, response: Response) -> TrainingRun:
    """Start a training as POST /embedding-runs does; problems have a member `error`."""
    with legacy_errors():
        return await _start(request, response)


async def _start(request: Request, response: Response) -> TrainingRun:
    run = await start_run(request)
    response.headers["Location"] = run.address
    return run


async def start_run(request: Request) -> TrainingRun:
    """Start a training, or return the unfinished one. Raises ProblemError."""
    run, started = await parts_of(request).training_runs.start()
    request.state.log_fields.update(run_id=run.run_id, started=started)
    return run


@router.get("/artists/similar", responses=RESULTS, response_class=Response)
async def similar_to_named_artist(
    request: Request, artist: ArtistName, k: K = 10, min_listeners: MinListeners = 1, result_format: Format = None
) -> Response:
    """List the artists similar to one whose name cannot be part of a path, such as `..` or one with a slash."""
    return await similar_artists(request, artist, k, min_listeners, result_format)


@router.get("/artists/{artist:path}/similar", responses=RESULTS, response_class=Response)
async def similar_artists(
    request: Request, artist: str, k: K = 10, min_listeners: MinListeners = 1, result_format: Format = None
) -> Response:
    """List the artists whose listeners have the most similar taste, by cosine."""
    parts = parts_of(request)
    found = await parts.similarity.similar_artists(artist, k, min_listeners)
    return await parts.responder.respond_found(request, result_format, found)


@router.get("/users/{user_id}/similar", responses=RESULTS, response_class=Response)
async def similar_users(request: Request, user_id: UserId, k: K = 10, result_format: Format = None) -> Response:
    """List the users of the most similar taste, by cosine."""
    parts = parts_of(request)
    found = await parts.similarity.similar_users(user_id, k)
    return await parts.responder.respond_found(request, result_format, found)


@router.get("/users/{user_id}/recommendations", responses=RESULTS, response_class=Response)
async def recommendations(
    request: Request, user_id: UserId, k: K = 10, min_listeners: MinListeners = 1, result_format: Format = None
) -> Response:
    """List the artists that suit a user best, by inner product, without those in the user's current list."""
    parts = parts_of(request)
    found = await parts.similarity.artists_for_user(user_id, k + MAX_LIST_LENGTH, min_listeners)
    params = {**found.rows.to_pydict(), "user_id": user_id, "limit": k}
    return await parts.responder.respond(request, result_format, queries.RECOMMENDATIONS, params)


@router.post("/recommendations", responses=RESULTS, response_class=Response)
async def recommendations_for_list(
    request: Request, body: ArtistList, k: K = 10, min_listeners: MinListeners = 1, result_format: Format = None
) -> Response:
    """List the artists that suit the user of a list best, by inner product, without those of the list.

    The user need not exist. Artists without a vector are ignored.
    """
    plays = Counter[str]()
    for listed in body.artists:
        plays[listed.artist_name] += listed.playcount or 0
    parts = parts_of(request)
    found = await parts.similarity.artists_for_list(plays, k, min_listeners)
    return await parts.responder.respond_found(request, result_format, found)
