"""The button that starts a training of the embeddings, where Dagster can be reached, and the progress of the run."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from music_assets.service.explorer.rendering import render
from music_assets.service.problems import ProblemError
from music_assets.service.routes.deps import parts_of
from music_assets.service.routes.embeddings import start_run

router = APIRouter()


@router.get("/explore/training")
async def offer_training(request: Request) -> Response:
    """Show the button, or how to start Dagster. It is a part of pages that need embeddings."""
    try:
        await parts_of(request).training_runs.check_reachable()
    except ProblemError:
        return render(request, "parts/no_dagster.html")
    return render(request, "parts/training_button.html")


@router.post("/explore/training")
async def start_training(request: Request) -> Response:
    """Start a training of the embeddings, or show the unfinished one."""
    return render(request, "training.html", "parts/training_run.html", run=await start_run(request), message="")


@router.get("/explore/training/{run_id}")
async def show_training(request: Request, run_id: Annotated[str, Path(max_length=200)]) -> Response:
    """Show the state of a training."""
    runs = parts_of(request).training_runs
    run = await runs.show(run_id)
    message = await runs.last_message(run_id)
    return render(request, "training.html", "parts/training_run.html", run=run, message=message)
