"""The MCP server, at `/mcp` and on standard input, through the client of the `mcp` package."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

from music_assets_tests.service.conftest import Dataset, Service, make_dataset, serving
from music_assets_tests.service.test_attacks import ENGINE, LEAKS, READS, WRITES
from music_assets_tests.service.test_similarity import embed

LEGACY, MODERN = "legacy", "auto"
"""With the handshake of the protocol before 2026-07-28, and without."""
ODD = "Côte d'Ivoire"
LONG = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1"


def with_client(server: Any, use: Callable[[Client], Awaitable[Any]], mode: Any = MODERN) -> Any:
    """Run a function on a connected client and return its result."""

    async def run() -> Any:
        async with Client(server, mode=mode) as client:
            return await use(client)

    return asyncio.run(run())


def call(server: Any, tool: str, mode: Any = MODERN, **arguments: Any) -> CallToolResult:
    return with_client(server, lambda client: client.call_tool(tool, arguments), mode)


def answer(service: Service, tool: str, **arguments: Any) -> dict[str, Any]:
    result = call(f"{service.url}/mcp", tool, **arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def error(service: Service, tool: str, **arguments: Any) -> str:
    result = call(f"{service.url}/mcp", tool, **arguments)
    assert result.is_error
    return result.content[0].text


def post(service: Service, tool: str, key: str = "", **arguments: Any) -> httpx.Response:
    """Send one call as the protocol before 2026-07-28 does, without a client."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {key}"}
    return service.http.post("/mcp", json=message, headers=headers)


def objects(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of a JSON answer of the HTTP API as objects."""
    body = response.raise_for_status().json()
    return [dict(zip([column["name"] for column in body["columns"]], row, strict=True)) for row in body["rows"]]


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_tools_are_typed_and_read_only(service: Service, mode: str) -> None:
    listed = with_client(f"{service.url}/mcp", lambda client: client.list_tools(), mode)
    tools = {tool.name: tool for tool in listed.tools}
    assert set(tools) == {
        "list_tables", "describe_table", "run_select", "find_artists", "artists_of_country", "countries_of_artist",
        "distinctive_artists", "similar_artists", "rank_changes",
    }  # fmt: skip
    for tool in tools.values():
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.output_schema["type"] == "object"
    assert "ctx" not in tools["run_select"].input_schema["properties"]
    assert tools["run_select"].input_schema["required"] == ["sql"]


def test_tables(service: Service) -> None:
    tables = service.http.get("/tables").json()
    names = ("name", "description", "row_count")
    assert answer(service, "list_tables") == {
        "data_version": tables["data_version"],
        "tables": [{name: table[name] for name in names} for table in tables["tables"]],
    }
    described = service.http.get("/tables/country_totals").json()
    assert answer(service, "describe_table", name="country_totals") == described


def test_select(service: Service) -> None:
    sql = "SELECT $n + 1 AS n, 9007199254740993 AS big, [1, NULL] AS l FROM range(3)"
    found = answer(service, "run_select", sql=sql, params={"n": 1}, limit=2)
    assert [column["name"] for column in found["columns"]] == ["n", "big", "l"]
    assert found["rows"] == [[2, "9007199254740993", [1, None]]] * 2
    assert found["truncated"]
    assert answer(service, "run_select", sql="SELECT ? AS x", params=["y"])["rows"] == [["y"]]


@pytest.mark.parametrize(
    ("tool", "arguments", "rows", "path"),
    [
        ("artists_of_country", {"country": ODD, "limit": 3}, "artists", f"/countries/{ODD}/artists?limit=3"),
        ("distinctive_artists", {"country": ODD}, "artists", f"/countries/{ODD}/distinctive?limit=20"),
        (
            "countries_of_artist",
            {"artist": "AC/DC", "min_listeners": 2},
            "countries",
            "/artists/countries?artist=AC/DC&min_listeners=2",
        ),
        ("find_artists", {"search": "drake"}, "artists", "/artists?search=drake"),
        ("rank_changes", {}, "changes", "/changes"),
        ("rank_changes", {"country": ODD, "change": "new"}, "changes", f"/countries/{ODD}/changes?change=new"),
    ],
)
def test_ready_made_questions(service: Service, tool: str, arguments: dict[str, Any], rows: str, path: str) -> None:
    assert answer(service, tool, **arguments)[rows] == objects(service.http.get(path))


def test_similar_artists(tmp_path: Any) -> None:
    dataset = make_dataset(tmp_path)
    embed(dataset, seed=1)
    with serving(dataset.root, query_workers=1) as service:
        found = answer(service, "similar_artists", artist="Drake", limit=4)
        assert found["artists"] == objects(service.http.get("/artists/Drake/similar?k=4"))


def test_errors_carry_advice(service: Service) -> None:
    assert "line 1, column 15" in error(service, "run_select", sql="SELECT * FORM x")
    assert "list_tables has the tables" in error(service, "run_select", sql="FROM nothing")
    assert "Did you mean 'Germany'?" in error(service, "artists_of_country", country="germany")
    assert "find_artists" in error(service, "countries_of_artist", artist="nobody")
    assert "training" in error(service, "similar_artists", artist="Drake")
    assert "Select fewer rows" in error(service, "run_select", sql="SELECT repeat('x', 1000000) AS t")
    assert "less than or equal to 1000" in error(service, "run_select", sql="SELECT 1", limit=1001)


def test_requests_that_are_no_calls(service: Service) -> None:
    assert service.http.get("/mcp").status_code == 405
    assert service.http.get("/mcp").headers["content-type"] == "application/problem+json"
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b"1", b'{"jsonrpc": "2.0", "id": 1, "method": "x"}', b"[" * 100_000):
        response = service.http.post("/mcp", content=body, headers=accept)
        assert response.status_code in (200, 400)
        assert '"error"' in response.text
        assert "Traceback" not in response.text
    assert service.http.post("/mcp", content=b" " * 300_000, headers=accept).status_code == 413
    assert service.http.post("/mcp", content=b"", headers={"Origin": "https://example.com"}).status_code == 403


def test_key_and_rate_limit(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """A call is one request of the caller, for the rate limit and in the log."""
    caplog.set_level(logging.INFO, logger="music_assets.access")
    entries = ",".join(f"{name}:{sha256(name.encode()).hexdigest()}" for name in ("ann", "bob"))
    with serving(dataset.root, api_keys=entries, rate_limit="3/hour", query_workers=1) as service:
        assert post(service, "list_tables", "wrong").status_code == 401
        answers = [post(service, "run_select", "ann", sql="SELECT 42 AS x") for _ in range(4)]
        assert [response.status_code for response in answers] == [200, 200, 200, 429]
        assert "42" in answers[0].text
        assert post(service, "list_tables", "bob").status_code == 200
    logged = [json.loads(line) for line in caplog.messages if "SELECT 42" in line]
    assert len(logged) == 3
    for line in logged:
        assert (line["route"], line["caller"], line["outcome"], line["rows"]) == ("/mcp", "ann", "ok", 1)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
def test_client_that_leaves_stops_its_query(dataset: Dataset, mode: str) -> None:
    with serving(dataset.root, query_workers=1, timeout_ms=300_000) as service:

        async def leave(client: Client) -> None:
            with anyio.move_on_after(0.5):
                await client.call_tool("run_select", {"sql": LONG})
                pytest.fail("the query cannot end")

        with_client(f"{service.url}/mcp", leave, mode)
        assert service.worker_answers()


def test_names_do_not_lead_to_other_endpoints(service: Service) -> None:
    for name in ("..", "../start_embedding_job", "%2e%2e/metrics", "a/../../metrics?x=", "\x00", "x" * 1000, "ü#?&"):
        assert "No ranking has the country" in error(service, "artists_of_country", country=name)
        assert "users listen to" in error(service, "countries_of_artist", artist=name)
        assert re.search(
            "no such table|nothing at this address|at most 200", error(service, "describe_table", name=name)
        )


def refusals(server: Any, statements: list[str]) -> list[str]:
    """Return the errors that run_select answers to the statements. Fails if it answers one of them."""

    async def attack(client: Client) -> list[str]:
        results = [await client.call_tool("run_select", {"sql": sql}) for sql in statements]
        assert [sql for sql, result in zip(statements, results, strict=True) if not result.is_error] == []
        return [result.content[0].text for result in results]

    return with_client(server, attack)


def test_attacks_are_refused_as_over_query(service: Service) -> None:
    statements = [*READS, *WRITES, *ENGINE, *LEAKS]
    for sql, refused in zip(statements, refusals(f"{service.url}/mcp", statements), strict=True):
        assert service.query(sql).json()["detail"] in refused
    assert service.worker_answers()


def test_standard_input(dataset: Dataset) -> None:
    """The same tools, answers and refusals, of a service with a key."""
    with serving(dataset.root, api_keys=f"ann:{sha256(b'k').hexdigest()}", query_workers=1) as service:
        command = ["-m", "music_assets", "mcp", "--url", service.url]
        door = StdioServerParameters(command=sys.executable, args=command, env={"MUSIC_ASSETS_API_KEY": "k"})

        async def use(client: Client) -> None:
            listed = await client.list_tools()
            http = httpx.post(
                f"{service.url}/mcp",
                json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
                headers={"Authorization": "Bearer k", "Accept": "application/json, text/event-stream"},
            )
            assert all(f'"{tool.name}"' in http.text for tool in listed.tools)
            found = await client.call_tool("artists_of_country", {"country": "Germany", "limit": 1})
            (best,) = found.structured_content["artists"]
            assert best["rank"] == 1
            refused = await client.call_tool("run_select", {"sql": "FROM read_text('/etc/passwd')"})
            assert refused.is_error
            assert "Send one SELECT on the tables of list_tables." in refused.content[0].text

        with_client(door, use)
        command = ["-m", "music_assets.mcp_server", "--url", service.url]
        stranger = StdioServerParameters(command=sys.executable, args=command)
        assert "API key required" in call(stranger, "list_tables").content[0].text
    assert "Is the service running?" in call(stranger, "list_tables").content[0].text
