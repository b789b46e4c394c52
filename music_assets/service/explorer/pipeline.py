"""The page of the pipeline: waiting files, refreshes, rejected rows, failed checks. It updates itself."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta

from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.reading import Rows, read
from music_assets.service.explorer.rendering import render
from music_assets.service.problems import ProblemError
from music_assets.service.refreshes import FailedCheck, LoadedFile, Run
from music_assets.service.routes.deps import parts_of
from music_assets.storage.published_snapshot import NothingPublishedError

SHOWN_RUNS = 10
SHOWN_FILES = 20
SHOWN_REASONS = 200
SAME_DROP = timedelta(hours=1)
"""The rejected rows of a file can be older than its other rows: a run that died committed only these."""

router = APIRouter()


@router.get("/pipeline")
async def pipeline(request: Request) -> Response:
    """Show the pipeline without what Dagster knows, which the page requests next."""
    refreshes = parts_of(request).refreshes
    waiting = await asyncio.to_thread(refreshes.waiting_files)
    return render(request, "pipeline.html", waiting=waiting, web_ui=refreshes.web_ui)


@router.get("/pipeline/status")
async def status(request: Request) -> Response:
    """Show waiting files, runs, loaded files and failed checks. It is a part of the page."""
    refreshes = parts_of(request).refreshes
    waiting, files = await asyncio.gather(
        asyncio.to_thread(refreshes.waiting_files), asyncio.to_thread(refreshes.loaded_files, SHOWN_FILES)
    )
    runs: list[Run] = []
    checks: list[FailedCheck] | None = None
    with suppress(ProblemError):  # the template says that Dagster cannot be reached
        runs, checks = await refreshes.runs_and_failed_checks(SHOWN_RUNS)
    return render(
        request,
        "parts/pipeline_status.html",
        waiting=waiting,
        files=files,
        runs=[(run, [file for file in files if run.has_loaded(file)]) for run in runs],
        checks=checks,
        reasons=await _reject_reasons(request, files),
        web_ui=refreshes.web_ui,
    )


async def _reject_reasons(request: Request, files: list[LoadedFile]) -> dict[tuple[str, str], Rows]:
    """Return the reasons for which rows of these files were rejected, by table and file."""
    if not any(file.rejects for file in files):
        return {}
    since = min(file.ingested_at for file in files) - SAME_DROP
    try:
        rows = await read(request, queries.REJECT_REASONS, since=since.strftime("%F %T"), limit=SHOWN_REASONS)
    except NothingPublishedError:
        return {}
    reasons = defaultdict(list)
    for row in rows:
        reasons[row["table_name"], row["source_file"]].append(row)
    return reasons
