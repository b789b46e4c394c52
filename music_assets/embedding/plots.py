"""Pictures to judge the vectors by: the neighbours of well-known artists, and a map of the artists."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from music_assets.embedding.layout import principal_components
from music_assets.embedding.neighbours import VectorIndex
from music_assets.embedding.vectors import Embeddings

LISTED_ARTISTS = 10
LISTED_NEIGHBOURS = 5
MAPPED_ARTISTS = 300
LABELLED_ARTISTS = 25
COLOURED_COUNTRIES = 9
OTHERS = "other or unknown"


def largest_artists_neighbours(embeddings: Embeddings) -> list[dict[str, str]]:
    """Return the 10 artists with the most listeners, each with its 5 nearest artists and their cosines."""
    index = VectorIndex.build(embeddings.artists)
    names = embeddings.artist_names
    rows = []
    for row in range(min(LISTED_ARTISTS, len(names))):
        neighbours, cosines = index.neighbours(row, LISTED_NEIGHBOURS)
        nearest = [f"{names[other]} ({cosine:.2f})" for other, cosine in zip(neighbours.tolist(), cosines, strict=True)]
        rows.append({"artist": names[row].as_py(), "nearest": ", ".join(nearest)})
    return rows


def artist_map(embeddings: Embeddings, countries: Mapping[str, str]) -> Figure:
    """Plot the first two principal components of the 300 artists with the most listeners.

    `countries` maps artist names to the countries that colour them.
    """
    names = embeddings.artist_names[:MAPPED_ARTISTS].to_pylist()
    points = principal_components(embeddings.artists[:MAPPED_ARTISTS])
    homes = [countries.get(name, OTHERS) for name in names]
    frequent = [home for home, _ in Counter(home for home in homes if home != OTHERS).most_common(COLOURED_COUNTRIES)]
    groups = np.array([home if home in frequent else OTHERS for home in homes])
    figure = Figure(figsize=(9, 7), layout="tight")
    axes = figure.subplots()
    for number, country in enumerate((*frequent, OTHERS)):
        colour = "#bbbbbb" if country == OTHERS else f"C{number}"
        x, y = points[groups == country].T
        axes.scatter(x, y, s=14, color=colour, label=_without_math(country))
    for name, point in zip(names[:LABELLED_ARTISTS], points, strict=False):
        axes.annotate(_without_math(name[:28]), point, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xticks=[], yticks=[])
    axes.legend(title="most popular in", fontsize=7, title_fontsize=7)
    return figure


def _without_math(text: str) -> str:
    """Escape dollar signs, which matplotlib would read as the start of mathematical notation."""
    return text.replace("$", r"\$")
