"""The search for artists by part of a name."""

import asyncio
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from music_assets.data_root import DataRoot
from music_assets.service.artist_search import ArtistSearch, lower
from music_assets.service.problems import ProblemError
from music_assets.service.snapshots import Snapshots
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import PublishedSnapshot
from music_assets_tests.service.conftest import publish_tables, write_rankings


def publish(root: Path, names: list[str]) -> PublishedSnapshot:
    """Publish artists of one country, the most played first."""
    plays = pd.Series(range(len(names), 0, -1), dtype=float)
    ranks = pd.Series(range(1, len(names) + 1), dtype="int32")
    rankings = pd.DataFrame({"country": "Chad", "artist_name": names, "total_playcount": plays, "listeners": 1})
    rankings = rankings.assign(normalized_popularity=plays / plays.sum(), rank_in_country=ranks, rank_for_artist=1)
    write_rankings(DeltaStore(DataRoot(root)), rankings)
    return publish_tables(root)


def test_texts_are_in_lower_case_as_in_duckdb() -> None:
    characters = [chr(code) for code in range(1, 0x20000) if not 0xD800 <= code < 0xE000]
    table = pa.table({"character": characters})
    with duckdb.connect() as connection:
        connection.register("characters", table)
        expected = connection.sql("SELECT lower(character) AS lower FROM characters").to_arrow_table()
    assert [lower(character) for character in characters] == expected["lower"].to_pylist()
    assert lower("ΟΔΟΣ") == "οδοσ"


def test_every_artist_with_the_text_is_found_in_each_snapshot(tmp_path: Path) -> None:
    names = [f"Name {number}" for number in range(40_000)]
    names[31:34] = ["İzel\x1fÇelik", "É", "eÉ"]
    names[39_999] = "Last É"
    publish(tmp_path, names)
    search = ArtistSearch(Snapshots(DataRoot(tmp_path)))

    def find(text: str, offset: int = 0, limit: int = 100) -> pa.RecordBatch:
        return asyncio.run(search.find(text, limit, offset)).rows

    def ranks(text: str, offset: int = 0, limit: int = 100) -> list[int]:
        return find(text, offset, limit)["rank"].to_pylist()

    assert ranks("é") == [33, 34, 40_000]
    assert find("É", offset=1, limit=1).to_pydict() == {
        "rank": [34],
        "artist_name": ["eÉ"],
        "total_playcount": [39_967.0],
        "listeners": [1],
        "countries": [1],
        "top_country": ["Chad"],
    }
    assert ranks("IZEL") == ranks("izel ç") == [32]
    assert ranks("name 3999") == [4000, *range(39_991, 40_000)]
    assert ranks("e 7", offset=1_000, limit=2) == [7_890, 7_891]
    assert ranks("nobody") == ranks("é", offset=3) == []
    publish(tmp_path, ["Air", "Eels"])
    assert ranks("e") == [2]
    damaged = publish(tmp_path, ["Blur"]).path
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:12_288].ljust(damaged.stat().st_size))
    with pytest.raises(ProblemError, match="cannot read its data"):
        find("b")
