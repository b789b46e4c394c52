"""What people look at to judge vectors: the neighbours of artists they know, and a map of the largest."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from music_assets.embedding.neighbours import Neighbours
from music_assets.embedding.vectors import Embeddings, Floats

KNOWN_ARTISTS = 10
SHOWN_NEIGHBOURS = 5
MAPPED_ARTISTS = 300
NAMED_ARTISTS = 25
COLOURED_COUNTRIES = 9
OTHERS = "other or unknown"
GREY = "#bbbbbb"


def neighbours_of_largest(embeddings: Embeddings) -> list[dict[str, str]]:
    """Return the ten artists with most listeners, each with the five nearest artists and their cosines."""
    index = Neighbours.of(embeddings.artists)
    names = embeddings.artist_names
    rows = []
    for number in range(min(KNOWN_ARTISTS, len(names))):
        others, cosines = index.others(number, SHOWN_NEIGHBOURS)
        near = [f"{names[other]} ({cosine:.2f})" for other, cosine in zip(others.tolist(), cosines, strict=True)]
        rows.append({"artist": names[number].as_py(), "nearest": ", ".join(near)})
    return rows


def map_of_largest(embeddings: Embeddings, countries: Mapping[str, str]) -> Figure:
    """Draw the 300 artists with most listeners in two dimensions, coloured by country.

    The dimensions are the first two principal components. `countries` tells the country of each artist, by name.
    """
    names = embeddings.artist_names[:MAPPED_ARTISTS].to_pylist()
    places = principal_components(embeddings.artists[:MAPPED_ARTISTS])
    homes = [countries.get(name, OTHERS) for name in names]
    frequent = [home for home, _ in Counter(home for home in homes if home != OTHERS).most_common(COLOURED_COUNTRIES)]
    figure = Figure(figsize=(9, 7), layout="tight")
    axes = figure.subplots()
    for number, country in enumerate((*frequent, OTHERS)):
        chosen = np.array([home == country or (country == OTHERS and home not in frequent) for home in homes])
        colour = GREY if country == OTHERS else f"C{number}"
        axes.scatter(places[chosen, 0], places[chosen, 1], s=14, color=colour, label=_literal(country))
    for name, place in zip(names[:NAMED_ARTISTS], places, strict=False):
        axes.annotate(_literal(name[:28]), place, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xticks=[], yticks=[])
    axes.legend(title="loved most in", fontsize=7, title_fontsize=7)
    return figure


def principal_components(vectors: Floats) -> Floats:
    """Return the first two principal components of the vectors, one a row; 0 where there are fewer."""
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found = (left * sizes)[:, :2]
    return np.asarray(np.pad(found, ((0, 0), (0, 2 - found.shape[1]))), np.float32)


def _literal(text: str) -> str:
    """Return the text such that matplotlib takes no dollar sign in it for mathematics."""
    return text.replace("$", r"\$")
