"""Similarity and recommendations, compared with what numpy computes from the published vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import ref

import numpy as np
import pandas as pd
import pytest

from music_assets.data_root import DataRoot
from music_assets.service import similarity
from music_assets.service.similarity import Vectors
from music_assets.storage.delta import DeltaStore
from music_assets.tables import ARTIST_EMBEDDING, EMBEDDING_DIMENSIONS, USER_EMBEDDING
from music_assets_tests.service.conftest import Dataset, Service, make_dataset, publish_tables, serving, write
from music_assets_tests.support.user_oracle import DIMENSIONS, user_of


def embed(dataset: Dataset, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Publish random vectors for all artists and users; return both tables."""
    generator = np.random.default_rng(seed)

    def random_vectors(keys: list[object], name: str) -> pd.DataFrame:
        vectors = pd.DataFrame(generator.normal(size=(len(keys), EMBEDDING_DIMENSIONS)), columns=DIMENSIONS)
        return vectors.assign(**{name: keys}).sort_values(name)

    artists = random_vectors(sorted(dataset.tops.artist_name.unique()), "artist_name")
    users = random_vectors(sorted(dataset.tops.user_id.unique()), "user_id")
    store = DeltaStore(DataRoot(dataset.root))
    artists = artists.assign(listeners=np.arange(1, len(artists) + 1), trained=True)
    write(store, ARTIST_EMBEDDING, artists)
    write(store, USER_EMBEDDING, users.astype({"user_id": "int32"}))
    publish_tables(dataset.root)
    return artists.set_index("artist_name"), users.set_index("user_id")


def nearest(vectors: pd.DataFrame, vector: np.ndarray) -> pd.Series:
    """Return the cosine of every row with the vector, nearest first."""
    matrix = vectors[DIMENSIONS].to_numpy()
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    return pd.Series(matrix @ vector / lengths, vectors.index).sort_values(ascending=False)


def best(artists: pd.DataFrame, user: np.ndarray) -> pd.Series:
    """Return the inner product of every artist with the user, largest first."""
    return pd.Series(artists[DIMENSIONS].to_numpy() @ user, artists.index).sort_values(ascending=False)


def assert_rows(answer: list[list[object]], expected: pd.Series) -> None:
    assert [row[0] for row in answer] == list(expected.index)
    assert [row[1] for row in answer] == pytest.approx(list(expected), abs=1e-5)


@pytest.fixture(scope="module")
def trained_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, pd.DataFrame, pd.DataFrame]:
    dataset = make_dataset(tmp_path_factory.mktemp("trained"))
    return dataset, *embed(dataset, seed=1)


@pytest.fixture(scope="module")
def trained(trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame]) -> Iterator[Service]:
    with serving(trained_dataset[0].root, query_workers=1) as running:
        yield running


@pytest.mark.parametrize("artist", ["Drake", "AC/DC", '"Weird Al" Yankovic', "相対性理論"])
def test_similar_artists(
    trained: Service, trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame], artist: str
) -> None:
    _, artists, _ = trained_dataset
    answer = trained.http.get(f"/artists/{quote(artist, safe='')}/similar", params={"k": 5}).json()
    assert answer["columns"] == [
        {"name": "artist_name", "type": "VARCHAR"},
        {"name": "similarity", "type": "DOUBLE"},
    ]
    assert_rows(answer["rows"], nearest(artists, artists.loc[artist, DIMENSIONS].to_numpy(float)).drop(artist)[:5])


def test_similar_users(trained: Service, trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame]) -> None:
    _, _, users = trained_dataset
    answer = trained.http.get("/users/7/similar?k=79").json()
    assert_rows(answer["rows"], nearest(users, users.loc[7].to_numpy()).drop(7))


@pytest.mark.parametrize("user", [3, 70])
def test_recommendations_omit_the_current_artists_of_the_user(
    trained: Service, trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame], user: int
) -> None:
    """User 3 was delivered twice: artists of the first list can be recommended."""
    dataset, artists, users = trained_dataset
    tops = dataset.tops[dataset.tops.user_id == user].sort_values("ingested_at")
    listed = tops.drop_duplicates("rank", keep="last").artist_name
    answer = trained.http.get(f"/users/{user}/recommendations?k=8").json()
    assert answer["columns"][1]["name"] == "score"
    assert_rows(answer["rows"], best(artists, users.loc[user].to_numpy()).drop(listed)[:8])


def test_recommendations_for_a_list(
    trained: Service, trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame]
) -> None:
    _, artists, _ = trained_dataset
    plays = {"Drake": 1_000, "AC/DC": 20, "相対性理論": 3}
    body = {"artists": [{"artist_name": name, "playcount": count} for name, count in plays.items()]}
    body["artists"].append({"artist_name": "nobody knows them", "playcount": 5})
    answer = trained.http.post("/recommendations?k=6", json=body).json()
    assert_rows(answer["rows"], best(artists, user_of(artists, plays)).drop(list(plays))[:6])


def test_plays_of_an_artist_given_twice_are_summed(trained: Service) -> None:
    lists = ([("Drake", 60), ("AC/DC", 2), ("Drake", 40)], [("AC/DC", 2), ("Drake", 100)])
    bodies = [{"artists": [{"artist_name": name, "playcount": plays} for name, plays in each]} for each in lists]
    first, second = (trained.http.post("/recommendations", json=body).json()["rows"] for body in bodies)
    assert first == second


@pytest.mark.parametrize("plays", [{}, {"playcount": None}, {"playcount": 0}])
def test_list_without_plays(trained: Service, plays: dict[str, object]) -> None:
    rows = trained.http.post("/recommendations", json={"artists": [{"artist_name": "Drake", **plays}]}).json()["rows"]
    assert len(rows) == 10


def test_min_listeners(trained: Service, trained_dataset: tuple[Dataset, pd.DataFrame, pd.DataFrame]) -> None:
    _, artists, _ = trained_dataset
    least = len(artists) - 10
    frequent = artists[artists["listeners"] >= least]
    similar = trained.http.get("/artists/Drake/similar", params={"k": 5, "min_listeners": least}).json()["rows"]
    assert_rows(
        similar, nearest(frequent, artists.loc["Drake", DIMENSIONS].to_numpy(float)).drop("Drake", errors="ignore")[:5]
    )
    body = {"artists": [{"artist_name": "Drake", "playcount": 9}]}
    listed = trained.http.post("/recommendations", params={"k": 5, "min_listeners": least}, json=body).json()["rows"]
    assert_rows(listed, best(frequent, user_of(artists, {"Drake": 9})).drop("Drake", errors="ignore")[:5])
    answer = trained.http.get("/users/7/recommendations", params={"min_listeners": least}).json()["rows"]
    assert {row[0] for row in answer} <= set(frequent.index)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"artists": [{"artist_name": "nobody knows them"}]}, 404),
        ({"artists": []}, 422),
        ({"artists": [{"artist_name": "Drake", "playcount": -1}]}, 422),
        ({"artists": "Drake"}, 422),
        ({}, 422),
    ],
)
def test_lists_that_are_refused(trained: Service, body: dict[str, object], status: int) -> None:
    response = trained.http.post("/recommendations", json=body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_other_formats(trained: Service) -> None:
    lines = trained.http.get("/artists/Drake/similar?k=2&format=csv").text.splitlines()
    assert lines[0] == '"artist_name","similarity"'
    assert len(lines) == 3


@pytest.mark.parametrize("address", ["/artists/nobody/similar", "/users/123456/similar", "/users/-5/recommendations"])
def test_unknown_keys(trained: Service, address: str) -> None:
    response = trained.http.get(address)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert "no vector" in response.json()["detail"]


@pytest.mark.parametrize("address", ["/users/x/similar", "/users/99999999999/similar", "/artists/Drake/similar?k=0"])
def test_invalid_values(trained: Service, address: str) -> None:
    assert trained.http.get(address).status_code == 422


@pytest.mark.parametrize("address", ["/artists/Drake/similar", "/users/1/similar", "/users/1/recommendations"])
def test_before_the_first_training(service: Service, address: str) -> None:
    response = service.http.get(address)
    assert service.http.post("/recommendations", json={"artists": [{"artist_name": "Drake"}]}).status_code == 409
    assert response.status_code == 409
    assert "POST /embedding-runs" in response.json()["advice"]


def test_vectors_of_release_0_1_are_not_used(tmp_path: Path) -> None:
    """They have no listeners, and their inner products mean nothing."""
    dataset = make_dataset(tmp_path)
    artists, _ = embed(dataset, 1)
    old = artists.drop(columns=["listeners", "trained"]).reset_index()
    store = DeltaStore(DataRoot(dataset.root))
    path = store.new_folder(ARTIST_EMBEDDING) / "rows.parquet"
    old.to_parquet(path, index=False)
    store.replace(ARTIST_EMBEDDING, [path])
    publish_tables(dataset.root)
    with serving(dataset.root, query_workers=1) as service:
        assert service.http.get("/artists/Drake/similar").status_code == 409
        assert service.http.get("/users/1/recommendations").status_code == 409


def test_new_vectors_are_used_immediately_and_replace_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references: list[ref[Vectors]] = []
    dataset = make_dataset(tmp_path)

    def vectors(*parts: Any) -> Vectors:
        loaded = Vectors(*parts)
        references.append(ref(loaded))
        return loaded

    monkeypatch.setattr(similarity, "Vectors", vectors)
    with serving(dataset.root, query_workers=1) as service:
        assert service.http.get("/artists/Drake/similar").status_code == 409
        for seed in (1, 2):
            artists, _ = embed(dataset, seed)
            answer = service.http.get("/artists/Drake/similar?k=3").json()
            assert_rows(
                answer["rows"], nearest(artists, artists.loc["Drake", DIMENSIONS].to_numpy(float)).drop("Drake")[:3]
            )
            assert sum(each() is not None for each in references) == 1
            assert len(service.http.get("/explore/map/points").json()["names"]) == len(artists)
