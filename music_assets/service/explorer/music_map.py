"""The map of music: the largest artists in the plane, similar ones close together."""

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from music_assets.service import ready_made_queries as queries
from music_assets.service.explorer.compression import respond
from music_assets.service.explorer.reading import read
from music_assets.service.explorer.rendering import HEADERS, render
from music_assets.service.routes.deps import parts_of

MIN_LISTENERS = 3
RESOLUTION = 2_000
"""Coordinates are integers from 0 to this value."""

router = APIRouter()


@router.get("/explore/map")
async def music_map(request: Request) -> Response:
    """Show the map, or how to train the embeddings."""
    return render(request, "music_map.html", is_trained=parts_of(request).similarity.is_trained)


@router.get("/explore/map/points")
async def points(request: Request) -> Response:
    """Return the artists of the map as JSON: a list for each column, and the names of the countries."""
    drawn = await parts_of(request).similarity.artist_map()
    rows = await read(request, queries.FAVOURITE_COUNTRIES, artists=drawn.names, min_listeners=MIN_LISTENERS)
    favourites = {row["artist_name"]: row["country"] for row in rows}
    countries = sorted(set(favourites.values()))
    numbers = {country: number for number, country in enumerate(countries)}
    low, high = drawn.places.min(axis=0), drawn.places.max(axis=0)
    scaled = np.rint((drawn.places - low) / np.maximum(high - low, 1e-9) * RESOLUTION).astype(int)
    content = {
        "names": drawn.names,
        "x": scaled[:, 0].tolist(),
        "y": scaled[:, 1].tolist(),
        "listeners": drawn.listeners.tolist(),
        "countries": countries,
        "country": [numbers.get(favourites.get(name, ""), -1) for name in drawn.names],
    }
    return respond(request, orjson.dumps(content), "application/json", HEADERS)
