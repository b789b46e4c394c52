"""The tools of the MCP server, through which assistants use the query service, and the server over standard input.

The service offers the same tools at `/mcp`. Each tool sends one request to the service's HTTP API, so keys, limits and
the checks of SQL are those of the API. It needs only what `pip install 'music-assets[mcp]'` installs.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated, Any, Literal

import httpx
import typer
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from music_assets.client import LOCAL_SERVICE, TIMEOUT_SECONDS, error_of, key_header, no_answer, path_segment

MAX_ANSWER_BYTES = 256 * 1024
"""Maximum size of an answer as JSON. It is more than an assistant can use, and less than a service may hold for one."""
MAX_ROWS = 1_000
INSTRUCTIONS = """
Listening data of Last.fm users: which artists lead in a country, in which countries an artist is popular, which artists
are similar. Prefer the ready-made tools; run_select answers other questions with one SELECT in DuckDB's dialect on the
tables of list_tables. Names of artists and countries must match exactly: find_artists finds the spelling of an artist.
A country with few listeners easily tops the list of an artist by chance, which min_listeners prevents.
""".strip()
READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

ADVICE = {
    "not-allowed": "Send one SELECT on the tables of list_tables.",
    "not-found": "",
    "not-trained": "Someone has to start a training first.",
    "sql": "Correct the SQL. describe_table has the columns.",
    "timeout": "Simplify the query.",
    "unknown-table": "list_tables has the tables.",
}
"""Advice where that of the HTTP API names what a tool does not have."""

Connect = Callable[[Context], AbstractAsyncContextManager[httpx.AsyncClient]]
"""Returns the client that sends a tool's request to the service."""
Json = bool | int | float | str | None
Limit = Annotated[int, Field(ge=1, le=MAX_ROWS, description="Maximum number of rows.")]
Country = Annotated[str, Field(max_length=1_000, description="The country, spelled as in the rankings.")]
Artist = Annotated[str, Field(max_length=10_000, description="The artist, spelled as in the rankings.")]
MinListeners = Annotated[int, Field(ge=1, le=2**31)]
Change = Literal["riser", "faller", "new", "gone", "unchanged"]


class Column(BaseModel):
    """A column of a table or of a result."""

    name: str
    type: str
    description: str = ""


class TableSummary(BaseModel):
    """A table of music_db."""

    name: str
    description: str
    row_count: int


class TableList(BaseModel):
    """The tables of music_db."""

    data_version: str
    tables: list[TableSummary]


class TableDescription(TableSummary):
    """A table with its columns and its first rows, whose values are in the order of the columns."""

    data_version: str
    columns: list[Column]
    sample: list[list[Any]]


class Answer(BaseModel):
    """What every answer with rows has."""

    data_version: str
    truncated: bool = Field(description="Whether there are more rows.")


class SelectedRows(Answer):
    """The result of a SELECT: the values of each row are in the order of the columns."""

    columns: list[Column]
    rows: list[list[Any]]


class RankedArtist(BaseModel):
    """An artist of a country's ranking."""

    rank: int
    artist_name: str
    total_playcount: float
    listeners: int


class RankedArtists(Answer):
    """The artists of a country."""

    artists: list[RankedArtist]


class RankedCountry(BaseModel):
    """A country of an artist's ranking."""

    rank: int = Field(description="Rank among all countries.")
    country: str
    total_playcount: float
    normalized_popularity: float = Field(description="The artist's share of all plays of the country.")
    listeners: int


class RankedCountries(Answer):
    """The countries of an artist."""

    countries: list[RankedCountry]


class DistinctiveArtist(BaseModel):
    """An artist that a country listens to more than the world does."""

    rank: int
    artist_name: str
    ratio: float = Field(description="(listeners + 10) / (expected listeners + 10)")
    listeners: int
    expected_listeners: float
    total_playcount: float


class DistinctiveArtists(Answer):
    """The artists that a country listens to more than the world does."""

    artists: list[DistinctiveArtist]


class SimilarArtist(BaseModel):
    """An artist with similar listeners."""

    artist_name: str
    similarity: float = Field(description="Cosine of the two vectors.")


class SimilarArtists(Answer):
    """The artists whose listeners have the most similar taste."""

    artists: list[SimilarArtist]


class RankChange(BaseModel):
    """An artist's rank now and in the ranking that was published before."""

    artist_name: str
    rank: int | None
    previous_rank: int | None
    change: Change


class RankChanges(Answer):
    """The changes of ranks."""

    changes: list[RankChange]


class WorldArtist(BaseModel):
    """An artist of the world's ranking."""

    rank: int
    artist_name: str
    total_playcount: float
    listeners: int
    countries: int
    top_country: str | None


class WorldArtists(Answer):
    """Artists of the world."""

    artists: list[WorldArtist]


class Tools:
    """The tools. Each raises ToolError with the service's advice."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def list_tables(self, ctx: Context) -> Annotated[CallToolResult, TableList]:
        """List the tables of music_db with their meaning and number of rows."""
        return _result(TableList, await self._get(ctx, "/tables"))

    async def describe_table(
        self, ctx: Context, name: Annotated[str, Field(max_length=200, description="A name of list_tables.")]
    ) -> Annotated[CallToolResult, TableDescription]:
        """Describe a table: type and meaning of each column, and some rows."""
        return _result(TableDescription, await self._get(ctx, f"/tables/{path_segment(name)}"))

    async def run_select(
        self,
        ctx: Context,
        sql: Annotated[str, Field(min_length=1, max_length=100_000, description="One SELECT in DuckDB's dialect.")],
        params: Annotated[
            list[Json] | dict[str, Json] | None, Field(description="Values: a list for `?`, an object for `$name`.")
        ] = None,
        limit: Limit = 100,
    ) -> Annotated[CallToolResult, SelectedRows]:
        """Run one SELECT on the tables of music_db."""
        body = {"query": sql, "limit": limit} | ({} if params is None else {"params": params})
        return _result(SelectedRows, await self._send(ctx, "POST", "/query", json=body))

    async def artists_of_country(
        self, ctx: Context, country: Country, limit: Limit = 20
    ) -> Annotated[CallToolResult, RankedArtists]:
        """List the artists of a country, most played first."""
        path = f"/countries/{path_segment(country)}/artists"
        return _result(RankedArtists, await self._rows(ctx, "artists", path, limit=limit))

    async def countries_of_artist(
        self, ctx: Context, artist: Artist, min_listeners: MinListeners = 10, limit: Limit = 20
    ) -> Annotated[CallToolResult, RankedCountries]:
        """List the countries of an artist, where the artist is most popular first.

        Countries where fewer than min_listeners users listen to the artist are left out.
        """
        params = {"artist": artist, "min_listeners": min_listeners, "limit": limit}
        found = await self._rows(ctx, "countries", "/artists/countries", **params)
        if not found["countries"]:
            raise ToolError(
                f"In no country at least {min_listeners} users listen to {artist!r}. "
                "Search the spelling with find_artists, or lower min_listeners."
            )
        return _result(RankedCountries, found)

    async def distinctive_artists(
        self, ctx: Context, country: Country, limit: Limit = 20
    ) -> Annotated[CallToolResult, DistinctiveArtists]:
        """List the artists that a country listens to more than the world does."""
        path = f"/countries/{path_segment(country)}/distinctive"
        return _result(DistinctiveArtists, await self._rows(ctx, "artists", path, limit=limit))

    async def similar_artists(
        self, ctx: Context, artist: Artist, min_listeners: MinListeners = 1, limit: Limit = 10
    ) -> Annotated[CallToolResult, SimilarArtists]:
        """List the artists whose listeners have the most similar taste, by the vectors of the last training.

        Artists who had fewer than min_listeners listeners then are left out.
        """
        params = {"artist": artist, "min_listeners": min_listeners, "k": limit}
        return _result(SimilarArtists, await self._rows(ctx, "artists", "/artists/similar", **params))

    async def rank_changes(
        self, ctx: Context, country: Country | None = None, change: Change | None = None, limit: Limit = 50
    ) -> Annotated[CallToolResult, RankChanges]:
        """Compare the first artists of a country, or of the world, with the ranking that was published before."""
        path = "/changes" if country is None else f"/countries/{path_segment(country)}/changes"
        params = {"limit": limit} | ({} if change is None else {"change": change})
        return _result(RankChanges, await self._rows(ctx, "changes", path, **params))

    async def find_artists(
        self,
        ctx: Context,
        search: Annotated[str, Field(min_length=1, max_length=200, description="Part of the name, in any case.")],
        limit: Limit = 20,
    ) -> Annotated[CallToolResult, WorldArtists]:
        """Find artists by a part of the name, most played in the world first."""
        return _result(WorldArtists, await self._rows(ctx, "artists", "/artists", search=search, limit=limit))

    async def _rows(self, ctx: Context, name: str, path: str, **params: Any) -> dict[str, Any]:
        """Return the answer of an endpoint, with its rows as objects in the member `name`."""
        found = await self._get(ctx, path, **params)
        columns = [column["name"] for column in found["columns"]]
        return {**found, name: [dict(zip(columns, row, strict=True)) for row in found["rows"]]}

    async def _get(self, ctx: Context, path: str, **params: Any) -> dict[str, Any]:
        return await self._send(ctx, "GET", path, params=params)

    async def _send(self, ctx: Context, method: str, path: str, **request: Any) -> dict[str, Any]:
        async with self._connect(ctx) as client:
            try:
                async with client.stream(method, path, **request) as response:
                    if int(response.headers.get("Content-Length", 0)) > MAX_ANSWER_BYTES:
                        raise ToolError(
                            f"The answer is larger than {MAX_ANSWER_BYTES // 1024} KiB. "
                            "Select fewer rows or columns, or aggregate."
                        )
                    await response.aread()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ToolError(str(no_answer(str(client.base_url), error))) from None
        if (problem := error_of(response, ADVICE)) is not None:
            raise ToolError(str(problem))
        answer: dict[str, Any] = response.json()
        return answer


def _result(kind: type[BaseModel], content: dict[str, Any]) -> CallToolResult:
    """Return a typed answer, and the same as text without blanks, which the library would indent."""
    answer = kind.model_validate(content)
    text = TextContent(type="text", text=answer.model_dump_json())
    return CallToolResult(content=[text], structured_content=answer.model_dump(mode="json"))


def build_server(connect: Connect) -> MCPServer:
    """Return an MCP server whose tools send their requests through these connections."""
    server = MCPServer("music_db", instructions=INSTRUCTIONS, log_level="WARNING", subscriptions=False)
    tools = Tools(connect)
    for tool in (
        tools.list_tables, tools.describe_table, tools.run_select, tools.find_artists, tools.artists_of_country,
        tools.countries_of_artist, tools.distinctive_artists, tools.similar_artists, tools.rank_changes,
    ):  # fmt: skip
        server.add_tool(tool, annotations=READ_ONLY)
    return server


def run(url: str, key: str | None) -> None:
    """Serve the tools on standard input and output, for the service at a URL, until standard input ends."""
    asyncio.run(_run(url, key))


async def _run(url: str, key: str | None) -> None:
    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=5)
    async with httpx.AsyncClient(base_url=url, headers=key_header(key), timeout=timeout) as client:
        await build_server(lambda _: nullcontext(client)).run_stdio_async()


def _command(
    url: Annotated[str, typer.Option(help="URL of the query service.")] = LOCAL_SERVICE,
    key: Annotated[str | None, typer.Option(envvar="MUSIC_ASSETS_API_KEY", help="API key of that service.")] = None,
) -> None:
    """Serve an assistant on standard input and output, as `music-assets mcp` does."""
    run(url, key)


if __name__ == "__main__":
    typer.run(_command)
