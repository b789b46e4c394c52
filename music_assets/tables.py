"""The declaration of the tables of `music_db`, and the names of the jobs that fill them.

CSV parsing, checks, Dagster column schemas, engine schemas, the API's table listing and the documentation derive from
it. Facts about tables and columns belong here; code that acts on them does not.
"""

from dataclasses import dataclass, replace

import ibis


@dataclass(frozen=True)
class Column:
    """A column: its Ibis type, its description, and the values it accepts.

    `delivered` columns come from the CSV; the others are added on load or computed. A delivered value outside `minimum`
    to `maximum` is rejected with `range_reason`; an empty one, where `nullable` is false, with `missing_reason`. One of
    the `unknown_words`, in any case, is NULL.
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
    derived_from: tuple[str, ...] = ()
    """Columns of other tables that the values are computed from, as `table.column`."""


@dataclass(frozen=True)
class Ranking:
    """Order of the ranks 1, 2, 3 … for each `within`: by `by` descending, ties by `tie_break` ascending."""

    within: str
    by: str
    tie_break: str


@dataclass(frozen=True)
class Table:
    """A table: its folder below the data root, its columns, its key, and the sort order of its files."""

    name: str
    folder: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()
    tie_break: tuple[tuple[str, bool], ...] = ()
    """Columns, and whether descending, that choose between rows of the same key in one drop. NULL comes last."""
    ranking: Ranking | None = None

    @property
    def full_name(self) -> str:
        """The name in `music_db`, which is the former Glue name: `processed_parquet_artist_rank_in_country`."""
        return "_".join((*self.folder.split("/")[:-1], self.name))

    @property
    def asset_key(self) -> tuple[str, ...]:
        """The parts of the Dagster asset key. Only keys of raw tables include the folder."""
        return ("raw_parquet", self.name) if self.is_raw else (self.name,)

    @property
    def is_raw(self) -> bool:
        """Whether the rows are delivered as CSV."""
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
        """Return the column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


SOURCE_FILE = Column("source_file", "string", "Name of the CSV file that delivered the row.", nullable=False)
INGESTED_AT = Column(
    "ingested_at",
    "timestamp(6)",
    "UTC time at which the row's file was loaded, different for each file. Rows of a later file replace earlier ones.",
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

NOT_A_NUMBER = ("nan", "\\n")
"""Words for an unknown number, as pandas and MySQL write them."""

USER_DATA = Table(
    name="user_data",
    folder="raw_parquet/user_data",
    description="Users as delivered: full history, one row for each delivery of a user.",
    columns=(
        USER_ID,
        Column(
            "country",
            "string",
            "Country given by the user, as long English ISO 3166 name; NULL where unknown.",
            delivered=True,
            unknown_words=("none", "null", "nan", "n/a", "na", "-", "\\n", "__hive_default_partition__"),
        ),
        Column(
            "total_scrobbles",
            "int64",
            "Number of plays of the user over all artists; NULL where unknown.",
            delivered=True,
            minimum=0,
            range_reason="negative count",
            unknown_words=NOT_A_NUMBER,
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
    description="The up to 50 most played artists of each user as delivered: full history.",
    columns=(
        USER_ID,
        Column(
            "rank",
            "int32",
            "Position of the artist in the user's list, 1 to 50.",
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
            "Number of times the user played the artist; NULL where unknown.",
            delivered=True,
            minimum=0,
            range_reason="negative count",
            unknown_words=NOT_A_NUMBER,
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
    description="Artists of each country, ranked by plays.",
    columns=(
        Column(
            "country",
            "string",
            "Country, as long English ISO 3166 name.",
            nullable=False,
            derived_from=("user_data.country",),
        ),
        Column(
            "artist_name",
            "string",
            "Artist, spelled as delivered.",
            nullable=False,
            derived_from=("user_top_artists.artist_name",),
        ),
        Column(
            "total_playcount",
            "float64",
            "Total plays of the artist by users of the country.",
            nullable=False,
            derived_from=("user_top_artists.playcount", "user_data.country"),
        ),
        Column(
            "rank",
            "int32",
            "1, 2, 3 … in the country by total_playcount, ties by artist_name.",
            nullable=False,
            derived_from=("user_top_artists.playcount", "user_top_artists.artist_name", "user_data.country"),
        ),
        Column(
            "listeners",
            "int64",
            "Number of current users of the country with the artist in their current list.",
            nullable=False,
            derived_from=("user_top_artists.artist_name", "user_top_artists.user_id", "user_data.country"),
        ),
    ),
    key=("country", "artist_name"),
    sort_by=("country", "rank"),
    ranking=Ranking(within="country", by="total_playcount", tie_break="artist_name"),
)


def _copied(*names: str) -> tuple[Column, ...]:
    columns = (ARTIST_RANK_IN_COUNTRY.column(name) for name in names)
    return tuple(replace(column, derived_from=(f"artist_rank_in_country.{column.name}",)) for column in columns)


COUNTRY_RANK_PER_ARTIST = Table(
    name="country_rank_per_artist",
    folder="processed_parquet/country_rank_per_artist",
    description="Countries of each artist, ranked by the artist's share of the country's plays.",
    columns=(
        *_copied("country", "artist_name", "total_playcount"),
        Column(
            "normalized_popularity",
            "float64",
            "The artist's share of all plays in the country, 0 to 1; 0 where the country has no plays.",
            nullable=False,
            derived_from=("artist_rank_in_country.total_playcount", "artist_rank_in_country.country"),
        ),
        Column(
            "rank",
            "int32",
            "1, 2, 3 … for the artist by normalized_popularity, ties by country.",
            nullable=False,
            derived_from=("artist_rank_in_country.total_playcount", "artist_rank_in_country.country"),
        ),
        *_copied("listeners"),
    ),
    key=("artist_name", "country"),
    sort_by=("artist_name", "rank"),
    ranking=Ranking(within="artist_name", by="normalized_popularity", tie_break="country"),
)

EMBEDDING_DIMENSIONS = 50


def _embedding(name: str, description: str, key: Column, *others: Column) -> Table:
    origins = ("user_top_artists.user_id", "user_top_artists.artist_name", "user_top_artists.playcount")
    return Table(
        name=name,
        folder=f"processed_parquet/{name}",
        description=description,
        columns=(
            replace(key, delivered=False, derived_from=(f"user_top_artists.{key.name}",)),
            *(
                Column(
                    f"dim_{number}",
                    "float64",
                    f"Dimension {number} of the vector.",
                    nullable=False,
                    derived_from=origins,
                )
                for number in range(EMBEDDING_DIMENSIONS)
            ),
            *(replace(other, nullable=False, derived_from=origins[:2]) for other in others),
        ),
        key=(key.name,),
        sort_by=(key.name,),
    )


ARTIST_EMBEDDING = _embedding(
    "artist_embedding",
    "A vector for each artist with a listener. Artists with similar listeners are close by cosine.",
    USER_TOP_ARTISTS.column("artist_name"),
    Column("listeners", "int64", "Number of users with the artist in their list when the training read it."),
    Column(
        "trained", "boolean", "Whether word2vec has seen the artist; the vectors of others depend on few listeners."
    ),
)
USER_EMBEDDING = _embedding(
    "user_embedding",
    "A vector for each user with an artist. Users with similar taste are close by cosine; the inner product with the "
    "vector of an artist says how well the artist suits the user.",
    USER_ID,
)

REJECTED_ROWS = Table(
    name="rejected_rows",
    folder="rejected_rows",
    description="Rows of dropped files that could not be loaded, and why.",
    columns=(
        Column("table_name", "string", "Table the row was for.", nullable=False),
        SOURCE_FILE,
        Column("line", "int64", "Line on which the row begins; the header is line 1.", nullable=False),
        Column("column_name", "string", "The invalid column; NULL where the row as a whole is invalid."),
        Column("reason", "string", "Why the row was rejected.", nullable=False),
        Column("raw_line", "string", "The row as it is in the file.", nullable=False),
        INGESTED_AT,
    ),
)


def _current(raw: Table, description: str) -> Table:
    columns = (replace(each, delivered=False, derived_from=(f"{raw.name}.{each.name}",)) for each in raw.delivered)
    return Table(f"current_{raw.name}", "", description, tuple(columns), raw.key)


CURRENT_USER_DATA = _current(USER_DATA, "Users: for each user the row of the latest drop.")
CURRENT_USER_TOP_ARTISTS = _current(
    USER_TOP_ARTISTS, "Top artists of each user: for each user and rank the row of the latest drop."
)

_PLAYS = ("artist_rank_in_country.total_playcount", "artist_rank_in_country.country")
_LISTENERS = ("artist_rank_in_country.listeners", "artist_rank_in_country.country")


def _lookup(name: str, description: str, columns: tuple[Column, ...], key: tuple[str, ...], *sort_by: str) -> Table:
    return Table(name, "", description, columns, key, sort_by or key)


COUNTRY_TOTALS = _lookup(
    "country_totals",
    "Countries with their number of artists and plays.",
    (
        *_copied("country"),
        Column("artists", "int64", "Number of artists with a listener in the country.", derived_from=_LISTENERS),
        Column("total_playcount", "float64", "Plays of all artists in the country.", derived_from=_PLAYS),
        Column("listings", "int64", "Listeners in the country, added up over all artists.", derived_from=_LISTENERS),
    ),
    ("country",),
)
WORLD_ARTISTS = _lookup(
    "world_artists",
    "Artists of the world, ranked by plays.",
    (
        Column("rank", "int32", "1, 2, 3 … by total_playcount, ties by artist_name.", derived_from=_PLAYS[:1]),
        *_copied("artist_name"),
        Column("total_playcount", "float64", "Total plays in all countries.", derived_from=_PLAYS[:1]),
        Column("listeners", "int64", "Listeners in all countries.", derived_from=_LISTENERS[:1]),
        Column("countries", "int64", "Number of countries with a listener.", derived_from=_LISTENERS[1:]),
        Column(
            "top_country",
            "string",
            "Country where the artist is most popular.",
            derived_from=("country_rank_per_artist.country", "country_rank_per_artist.rank"),
        ),
    ),
    ("artist_name",),
    "rank",
)
DISTINCTIVE_ARTISTS = _lookup(
    "distinctive_artists",
    "The up to 200 artists of each country that it listens to more than the world does.",
    (
        *_copied("country"),
        Column("rank", "int32", "1, 2, 3 … in the country by ratio, ties by artist_name.", derived_from=_LISTENERS),
        *_copied("artist_name", "total_playcount", "listeners"),
        Column(
            "expected_listeners",
            "float64",
            "Listeners in the country if it listened as the world does.",
            derived_from=_LISTENERS,
        ),
        Column("ratio", "float64", "(listeners + 10) / (expected_listeners + 10).", derived_from=_LISTENERS),
    ),
    ("country", "artist_name"),
    "country",
    "rank",
)
SIMILAR_COUNTRIES = _lookup(
    "similar_countries",
    "The up to 50 countries of the most similar taste for each of the 500 with the most listeners.",
    (
        *_copied("country"),
        Column(
            "rank",
            "int32",
            "1, 2, 3 … for the country by similarity, ties by similar_country.",
            derived_from=_LISTENERS,
        ),
        Column("similar_country", "string", "The other country.", derived_from=_LISTENERS[1:]),
        Column(
            "similarity",
            "float64",
            "Cosine of the logarithms of the ratios of distinctive_artists over the 1,000 artists with the most "
            "listeners.",
            derived_from=_LISTENERS,
        ),
    ),
    ("country", "similar_country"),
    "country",
    "rank",
)
RANK_CHANGES = _lookup(
    "rank_changes",
    "Rank now and in the previous published ranking, for the first 200 artists of both in each country and the world.",
    (
        Column("country", "string", "Country; NULL for the world.", derived_from=("artist_rank_in_country.country",)),
        *_copied("artist_name"),
        Column(
            "rank",
            "int32",
            "Rank among all artists now; NULL if nobody listens to the artist any more.",
            derived_from=("artist_rank_in_country.rank",),
        ),
        Column(
            "previous_rank",
            "int32",
            "Rank in the previous published ranking; NULL if the artist was not in it.",
            derived_from=("artist_rank_in_country.rank",),
        ),
        Column(
            "change",
            "string",
            "riser, faller, new, gone or unchanged.",
            derived_from=("artist_rank_in_country.rank",),
        ),
    ),
    ("country", "artist_name"),
    "country",
    "rank",
    "previous_rank",
)

RAW_TABLES = (USER_DATA, USER_TOP_ARTISTS)
RANKING_TABLES = (ARTIST_RANK_IN_COUNTRY, COUNTRY_RANK_PER_ARTIST)
EMBEDDING_TABLES = (ARTIST_EMBEDDING, USER_EMBEDDING)
TABLES = (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES, REJECTED_ROWS)
"""The Delta tables."""
CURRENT_VIEWS = {CURRENT_USER_DATA: USER_DATA, CURRENT_USER_TOP_ARTISTS: USER_TOP_ARTISTS}
"""The views that only `music_db` has: the current rows of a raw table, without `source_file` and `ingested_at`."""
LOOKUP_TABLES = (COUNTRY_TOTALS, WORLD_ARTISTS, DISTINCTIVE_ARTISTS, SIMILAR_COUNTRIES, RANK_CHANGES)
"""The tables that only `music_db` has: answers to frequent questions, derived from the rankings."""
PUBLISHED_TABLES = (*TABLES, *CURRENT_VIEWS, *LOOKUP_TABLES)
"""Everything that `music_db` holds."""

REFRESH_RANKINGS = "refresh_rankings"
"""Name of the job that loads waiting CSV files, computes the rankings and publishes `music_db`."""
TRAIN_EMBEDDINGS = "train_embeddings"
"""Name of the job that trains the embeddings and publishes `music_db`."""
