"""The GraphQL API of the Dagster web server."""

import logging
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from music_assets.service.problems import ProblemError

log = logging.getLogger(__name__)


class DagsterApi:
    """Sends queries to the Dagster web server at a URL, which may contain a user name and a password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        self.web_ui = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        """URL without user name and password, which must not reach people or logs."""
        self._auth = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None

    def client(self, timeout_seconds: float) -> httpx.AsyncClient:
        """Return an HTTP client for `query`."""
        return httpx.AsyncClient(base_url=self.web_ui, auth=self._auth, timeout=timeout_seconds, trust_env=False)

    async def query(self, client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a query, by field. Raises ProblemError if Dagster cannot be reached or refuses it."""
        try:
            response = await client.post("/graphql", json={"query": query, "variables": variables})
            body = response.raise_for_status().json()
            data: dict[str, Any] = body["data"]
            if body.get("errors") or data is None:
                raise ValueError(body.get("errors"))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.warning("No valid response from Dagster at %s: %s: %s", self.web_ui, type(error).__name__, error)
            raise ProblemError(
                "no-dagster", "Dagster cannot be reached, or its response is invalid.", {"Retry-After": "10"}
            ) from None
        return data

    def run_url(self, run_id: str) -> str:
        """Return the URL of a run in the web UI."""
        return f"{self.web_ui}/runs/{run_id}"


def checked(content: dict[str, Any], expected_type: str) -> dict[str, Any]:
    """Return an object of a response. Raises ProblemError if it is of another type, which is an error."""
    if content["__typename"] != expected_type:
        log.warning("Dagster returned %s: %s", content["__typename"], content.get("message", ""))
        raise ProblemError("no-dagster", f"Dagster returned {content['__typename']}.", {"Retry-After": "10"})
    return content


def time_of(seconds: float | None) -> datetime | None:
    """Return a time of a response."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
