"""The tables of `music_db`: the one declaration.

CSV parsing, checks, Dagster column schemas, engine schemas, the listing of tables and the documentation derive from it.
A fact about a column belongs here; what is done with it belongs elsewhere.
"""

from dataclasses import dataclass, replace

import ibis


@dataclass(frozen=True)
class Column:
    """A column: its Ibis type, what it means, and which values it may hold.

    `delivered` columns stand in the dropped CSV; the others are added here. A delivered value outside `minimum` to
    `maximum` is rejected with `range_reason`; an empty one, where `nullable` is false, with `missing_reason`.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    delivered: bool = False
    minimum: int | None = None
    maximum: int | None = None
    range_reason: str = "out of range"
    missing_reason: str = "not an integer"
    unknown_words: tuple[str, ...] = ()
    made_from: tuple[str, ...] = ()
    """Columns of other tables that the values come from, as `table.column`."""


@dataclass(frozen=True)
class Table:
    """A table: where it lives below the data root, its columns, its key, and the order its files are sorted in."""

    name: str
    folder: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()
    tie_break: tuple[tuple[str, bool], ...] = ()
    """Columns (and whether descending) that decide between rows of one key in one drop."""

    @property
    def full_name(self) -> str:
        """The table's Glue name, under which `music_db` holds it: `processed_parquet_artist_rank_in_country`."""
        return "_".join((*self.folder.split("/")[:-1], self.name))

    @property
    def asset_key(self) -> tuple[str, ...]:
        """The parts of the Dagster asset key: only raw tables carry their folder in it."""
        return ("raw_parquet", self.name) if self.is_raw else (self.name,)

    @property
    def is_raw(self) -> bool:
        """Whether rows of this table are delivered as CSV."""
        return any(column.delivered for column in self.columns)

    @property
    def delivered(self) -> tuple[Column, ...]:
        """The columns that a dropped CSV must have."""
        return tuple(column for column in self.columns if column.delivered)

    @property
    def schema(self) -> ibis.Schema:
        """The columns and their types, in order."""
        return ibis.schema({column.name: column.type for column in self.columns})

    def column(self, name: str) -> Column:
        """Return the column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


SOURCE_FILE = Column("source_file", "string", "Name of the CSV file that delivered the row.", nullable=False)
INGESTED_AT = Column(
    "ingested_at",
    "timestamp(6)",
    "UTC time at which the row's file was taken. Each file has one of its own; a later one wins.",
    nullable=False,
)
USER_ID = Column(
    "user_id",
    "int32",
    "Number of the Last.fm user.",
    nullable=False,
    delivered=True,
    missing_reason="missing user_id",
)

USER_DATA = Table(
    name="user_data",
    folder="raw_parquet/user_data",
    description="Users as delivered: the whole history, one row for each delivery of a user.",
    columns=(
        USER_ID,
        Column(
            "country",
            "string",
            "Country the user states, as long English ISO 3166 name; NULL where unknown.",
            delivered=True,
            unknown_words=("none", "null"),
        ),
        Column(
            "total_scrobbles",
            "int64",
            "Plays of the user over all artists; NULL where unknown.",
            delivered=True,
            minimum=0,
            range_reason="negative count",
        ),
        SOURCE_FILE,
        INGESTED_AT,
    ),
    key=("user_id",),
    tie_break=(("total_scrobbles", True), ("country", False)),
)

USER_TOP_ARTISTS = Table(
    name="user_top_artists",
    folder="raw_parquet/user_top_artists",
    description="The up to 50 most played artists of each user as delivered: the whole history.",
    columns=(
        USER_ID,
        Column(
            "rank",
            "int32",
            "Place of the artist in the user's list, 1 to 50.",
            nullable=False,
            delivered=True,
            minimum=1,
            maximum=50,
            range_reason="rank outside 1 to 50",
        ),
        Column(
            "artist_name",
            "string",
            "Artist, spelled as delivered.",
            nullable=False,
            delivered=True,
            missing_reason="missing artist_name",
        ),
        Column(
            "playcount",
            "int64",
            "Plays of the artist by the user; NULL where unknown.",
            delivered=True,
            minimum=0,
            range_reason="negative count",
        ),
        Column("mbid", "string", "MusicBrainz id of the artist; NULL where unknown.", delivered=True),
        SOURCE_FILE,
        INGESTED_AT,
    ),
    key=("user_id", "rank"),
    tie_break=(("playcount", True), ("artist_name", False), ("mbid", False)),
)

ARTIST_RANK_IN_COUNTRY = Table(
    name="artist_rank_in_country",
    folder="processed_parquet/artist_rank_in_country",
    description="Artists of each country, the most played first.",
    columns=(
        Column(
            "country",
            "string",
            "Country, as long English ISO 3166 name.",
            nullable=False,
            made_from=("user_data.country",),
        ),
        Column(
            "artist_name",
            "string",
            "Artist, spelled as delivered.",
            nullable=False,
            made_from=("user_top_artists.artist_name",),
        ),
        Column(
            "total_playcount",
            "float64",
            "Plays of the artist by the country's users, summed.",
            nullable=False,
            made_from=("user_top_artists.playcount", "user_data.country"),
        ),
        Column(
            "rank",
            "int32",
            "1, 2, 3 … in the country by total_playcount, ties by artist_name.",
            nullable=False,
            made_from=("user_top_artists.playcount", "user_top_artists.artist_name", "user_data.country"),
        ),
    ),
    key=("country", "artist_name"),
    sort_by=("country", "rank"),
)

_RANKED = ARTIST_RANK_IN_COUNTRY.columns[:3]

COUNTRY_RANK_PER_ARTIST = Table(
    name="country_rank_per_artist",
    folder="processed_parquet/country_rank_per_artist",
    description="Countries of each artist, the one that loves the artist most first.",
    columns=(
        *(replace(column, made_from=(f"artist_rank_in_country.{column.name}",)) for column in _RANKED),
        Column(
            "normalized_popularity",
            "float64",
            "The artist's share of all plays in the country, 0 to 1; 0 where the country has no plays.",
            nullable=False,
            made_from=("artist_rank_in_country.total_playcount", "artist_rank_in_country.country"),
        ),
        Column(
            "rank",
            "int32",
            "1, 2, 3 … for the artist by normalized_popularity, ties by country.",
            nullable=False,
            made_from=("artist_rank_in_country.total_playcount", "artist_rank_in_country.country"),
        ),
    ),
    key=("artist_name", "country"),
    sort_by=("artist_name", "rank"),
)

EMBEDDING_DIMENSIONS = 50


def _embedding(name: str, description: str, key: Column) -> Table:
    origins = ("user_top_artists.user_id", "user_top_artists.artist_name", "user_top_artists.playcount")
    return Table(
        name=name,
        folder=f"processed_parquet/{name}",
        description=description,
        columns=(
            replace(key, delivered=False, made_from=(f"user_top_artists.{key.name}",)),
            *(
                Column(
                    f"dim_{number}",
                    "float64",
                    f"Dimension {number} of the vector.",
                    nullable=False,
                    made_from=origins,
                )
                for number in range(EMBEDDING_DIMENSIONS)
            ),
        ),
        key=(key.name,),
        sort_by=(key.name,),
    )


ARTIST_EMBEDDING = _embedding(
    "artist_embedding",
    "A vector for each artist that somebody listens to: artists of similar listeners lie close by cosine.",
    USER_TOP_ARTISTS.column("artist_name"),
)
USER_EMBEDDING = _embedding(
    "user_embedding",
    "A vector for each user with an artist, in the space of artist_embedding: similar taste lies close by cosine.",
    USER_ID,
)

REJECTED_ROWS = Table(
    name="rejected_rows",
    folder="rejected_rows",
    description="Rows of dropped files that could not be taken, and why.",
    columns=(
        Column("table_name", "string", "Table the row was for.", nullable=False),
        SOURCE_FILE,
        Column("line", "int64", "Line of the file on which the row begins; the header is line 1.", nullable=False),
        Column("column_name", "string", "Column at fault; NULL where the row as a whole is."),
        Column("reason", "string", "What is wrong with it.", nullable=False),
        Column("raw_line", "string", "The row as it stands in the file.", nullable=False),
        INGESTED_AT,
    ),
)


def _current(raw: Table, description: str) -> Table:
    columns = [replace(column, delivered=False, made_from=(f"{raw.name}.{column.name}",)) for column in raw.delivered]
    return Table(f"current_{raw.name}", "", description, tuple(columns), raw.key)


CURRENT_USER_DATA = _current(USER_DATA, "Users as they are now: for each user the row of the latest drop.")
CURRENT_USER_TOP_ARTISTS = _current(
    USER_TOP_ARTISTS, "The top artists of each user as they are now: for each user and rank the row of the latest drop."
)

RAW_TABLES = (USER_DATA, USER_TOP_ARTISTS)
RANKING_TABLES = (ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST)
EMBEDDING_TABLES = (ARTIST_EMBEDDING, USER_EMBEDDING)
TABLES = (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES, REJECTED_ROWS)
"""The Delta tables."""
CURRENT_VIEWS = {CURRENT_USER_DATA: USER_DATA, CURRENT_USER_TOP_ARTISTS: USER_TOP_ARTISTS}
"""The views that only `music_db` has: the current rows of a raw table, without `source_file` and `ingested_at`."""
PUBLISHED_TABLES = (*TABLES, *CURRENT_VIEWS)
"""Everything that `music_db` holds."""

REFRESH_RANKINGS = "refresh_rankings"
"""Name of the job that loads waiting CSV files, computes the rankings and publishes `music_db`."""
TRAIN_EMBEDDINGS = "train_embeddings"
"""Name of the job that trains the embeddings and publishes `music_db`."""
