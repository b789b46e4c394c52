"""The pages, as one router. They are not in the OpenAPI document, which describes the API for programs."""

from fastapi import APIRouter

from music_assets.service.explorer import (
    artist,
    compare,
    country,
    home,
    music_map,
    pipeline,
    search,
    sign_in,
    sql_console,
    static_files,
    training,
)

PAGES = (home, search, country, artist, training, compare, music_map, pipeline, sign_in, sql_console, static_files)

router = APIRouter(include_in_schema=False)
for page in PAGES:
    router.include_router(page.router)
