"""The pages as a client without JavaScript sees them: content, errors, security headers, keys."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from music_assets.data_root import DataRoot
from music_assets.service.auth import create_api_key
from music_assets.service.explorer.rendering import percent
from music_assets.storage.delta import DeltaStore
from music_assets_tests.service.conftest import (
    Dataset,
    Service,
    make_dataset,
    publish_tables,
    rank,
    serving,
    write_rankings,
)

HTMX = {"HX-Request": "true"}


def text(response: httpx.Response) -> str:
    """Return what a page shows, in one line."""
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", response.text)).split())


def cells(response: httpx.Response) -> list[list[str]]:
    """Return the rows of the table of a page."""
    assert response.status_code == 200, response.text
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", response.text, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    strip = re.compile(r"<title>.*?</title>|<[^>]*>", re.DOTALL)
    return [
        [html.unescape(strip.sub("", cell)).strip() for cell in re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL)]
        for row in rows
    ]


def test_home_shows_what_is_in_the_data(service: Service, dataset: Dataset) -> None:
    response = service.http.get("/")
    countries = dataset.users.sort_values("ingested_at").drop_duplicates("user_id", keep="last")["country"]
    facts = f"80 users 960 entries in their lists {dataset.tops.artist_name.nunique()} artists"
    assert facts == re.search(r"80 users .*? artists", _facts(response))[0]
    assert f"{countries.nunique()} countries" in _facts(response)
    plays = dataset.rankings.groupby("artist_name")["total_playcount"].sum()
    best = plays.sort_index().sort_values(ascending=False, kind="stable").head(25)
    assert [(row[1], row[2]) for row in cells(response)] == [(name, f"{count:,.0f}") for name, count in best.items()]
    users = countries.value_counts()
    assert f"<title>Germany: {users['Germany']}</title>" in response.text
    assert "or this is the first ranking" in text(response)
    rows = {row[0]: row[1] for row in cells(service.http.get("/explore/countries"))}
    assert rows == {country: str(count) for country, count in users.items()}


def test_home_without_data_or_countries_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path, query_workers=1) as service:
        response = service.http.get("/")
        assert (response.status_code, "No data yet" in text(response)) == (200, True)
        assert service.http.get("/sql").status_code == 200
        other = service.http.get("/explore/country?name=Germany")
        assert (other.status_code, "No data yet" in text(other)) == (503, True)
        make_dataset(tmp_path, countries=[None])
        for path in ("/", "/explore/countries"):
            assert "Check the column country of the dropped users" in text(service.http.get(path))


def test_changes_of_ranks_are_shown(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    japan = dataset.rankings.query("country == 'Japan'").set_index("rank_in_country")["artist_name"]
    first, second = japan[1], japan[2]
    plays = dataset.tops["playcount"]
    raised = dataset.tops.assign(playcount=plays.where(dataset.tops["artist_name"] != second, plays * 1000))
    write_rankings(DeltaStore(DataRoot(tmp_path)), rank(dataset.users, raised))
    publish_tables(tmp_path)
    world = dataset.rankings.groupby("artist_name")["total_playcount"].sum().sort_index()
    before = world.sort_values(ascending=False, kind="stable").index.get_loc(second) + 1
    with serving(tmp_path, query_workers=1) as service:
        rows = {row[2]: row[1] for row in cells(service.http.get("/explore/country?name=Japan"))}
        assert f"▲ {before - 1} {second} from {before} to 1" in text(service.http.get("/"))
    assert rows[second].split() == ["▲up", "1"]
    assert rows[first].split() == ["▼down", "1"]


def _facts(response: httpx.Response) -> str:
    """Return the facts of the start page, each number before its label."""
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", response.text, re.DOTALL)
    return " ".join(f"{value} {label}" for label, value in facts)


def test_country_shows_its_artists_by_rank(service: Service, dataset: Dataset) -> None:
    expected = dataset.rankings.query("country == 'Germany'").sort_values("rank_in_country").head(50)
    rows = cells(service.http.get("/explore/country", params={"name": "Germany"}))
    columns = ["rank_in_country", "artist_name", "listeners", "total_playcount"]
    assert [[row[0], *row[2:5]] for row in rows] == [
        [str(rank), artist, str(listeners), f"{plays:,.0f}"]
        for rank, artist, listeners, plays in expected[columns].itertuples(index=False)
    ]


def test_artists_of_a_country_are_filtered_by_name(service: Service, dataset: Dataset) -> None:
    parameters = {"name": "Germany", "search": "DRAKE"}
    rows = cells(service.http.get("/explore/country", params=parameters, headers=HTMX))
    assert {row[2] for row in rows} == {"Drake", "drakes"}
    ranks = dataset.rankings.query("country == 'Germany'").set_index("artist_name")["rank_in_country"]
    assert [int(row[0]) for row in rows] == sorted(ranks[["Drake", "drakes"]])
    nothing = service.http.get("/explore/country", params={**parameters, "search": "<b>"}, headers=HTMX)
    assert "No artist of Germany has “<b>” in the name." in text(nothing)


def test_artist_shows_countries_with_enough_listeners(service: Service, dataset: Dataset) -> None:
    listeners = dataset.listeners("Drake")
    least = int(listeners.min()) + 1
    expected = dataset.rankings.query("artist_name == 'Drake'").sort_values("rank_for_artist")
    expected = expected[expected["country"].map(listeners) >= least]
    response = service.http.get("/explore/artist", params={"name": "Drake", "min_listeners": least})
    assert [(row[1], int(row[3])) for row in cells(response)] == [
        (country, listeners[country]) for country in expected["country"]
    ]
    assert "left out" in text(response)


def test_names_that_are_no_path_segments_have_pages(service: Service) -> None:
    response = service.http.get("/explore/artist", params={"name": "AC/DC"})
    assert "<h1><bdi>AC/DC</bdi></h1>" in response.text
    assert service.http.get("/explore/artist", params={"name": "x" * 10_000}).status_code == 404  # may be a name


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/explore/country?name=Germny", 404, "Did you mean 'Germany'?"),
        ("/explore/artist?name=<script>", 404, "No ranking has the artist '<script>'."),
        ("/explore/artist", 422, "Some values are invalid."),
        ("/explore/country?name=Germany&page=0", 422, "Some values are invalid."),
        ("/explore/nothing", 404, "There is nothing at this address."),
    ],
)
def test_errors_are_pages(service: Service, path: str, status: int, message: str) -> None:
    response = service.http.get(path)
    assert response.status_code == status
    assert message in text(response)
    assert "<script>'" not in response.text
    part = service.http.get(path, headers=HTMX)
    assert message in text(part)
    assert "<html" not in part.text


def test_every_page_has_the_security_policy(service: Service) -> None:
    for path in ("/", "/explore/artist?name=Drake", "/explore/nothing", "/sign-in"):
        headers = service.http.get(path).headers
        assert "script-src 'self'; style-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_search_completes_artists_and_countries(service: Service) -> None:
    response = service.http.get("/explore/search", params={"query": "dRAK"}, headers=HTMX)
    assert "Drake" in text(response)
    assert 'href="/explore/artist?name=Drake"' in response.text
    assert "United Kingdom country" in text(service.http.get("/explore/search?query=kingd", headers=HTMX))
    assert "Nothing has “zzz” in its name." in text(service.http.get("/explore/search?query=zzz"))


def test_two_countries_are_compared_by_shares(service: Service, dataset: Dataset) -> None:
    parameters = {"kind": "countries", "first": "Germany", "second": "Japan"}
    response = service.http.get("/explore/compare", params=parameters)
    shares = dataset.rankings.pivot(index="artist_name", columns="country", values="normalized_popularity").fillna(0)
    overlap = shares[["Germany", "Japan"]].min(axis=1).sum()
    assert f"{percent(overlap)} of the plays are in common" in text(response)
    expected = shares[["Germany", "Japan"]].max(axis=1).sort_index().sort_values(ascending=False, kind="stable")
    assert [row[0] for row in cells(response)] == list(expected.index)
    row = next(row for row in cells(response) if row[0] == "Drake")
    assert [cell.partition(" #")[0] for cell in row[1:3]] == [
        percent(shares.loc["Drake", name]) for name in ("Germany", "Japan")
    ]


def test_two_artists_are_compared_by_country(service: Service, dataset: Dataset) -> None:
    parameters = {"kind": "artists", "first": "Drake", "second": "AC/DC"}
    rows = {row[0]: row[1:3] for row in cells(service.http.get("/explore/compare", params=parameters))}
    pairs = dataset.rankings.set_index(["artist_name", "country"])
    for country in dataset.rankings["country"].unique():
        listeners = [dataset.listeners(name).get(country, 0) for name in ("Drake", "AC/DC")]
        assert (country in rows) == (max(listeners) >= 3)
        if country in rows and min(listeners):
            assert rows[country] == [
                percent(pairs.loc[(name, country), "normalized_popularity"]) for name in ("Drake", "AC/DC")
            ]


def test_artists_to_compare_are_completed_by_plays(service: Service, dataset: Dataset) -> None:
    plays = dataset.rankings.groupby("artist_name")["total_playcount"].sum()
    ordered = plays.sort_index().sort_values(ascending=False, kind="stable")
    expected = [name for name in ordered.index if "a" in name.lower()][:10]
    for parameter in ("first", "second"):
        response = service.http.get("/explore/compare/artists", params={parameter: " A "})
        assert [html.unescape(name) for name in re.findall(r'value="(.*?)"', response.text)] == expected
    assert "<option" not in service.http.get("/explore/compare/artists").text


@pytest.mark.parametrize("first", ["Nowhere", "<script>"])
def test_comparison_with_something_unknown_is_an_error_page(service: Service, first: str) -> None:
    for kind, second in (("countries", "Germany"), ("artists", "Drake")):
        response = service.http.get("/explore/compare", params={"kind": kind, "first": first, "second": second})
        assert response.status_code == 404
        assert first in text(response)


@pytest.fixture(scope="module")
def locked(dataset: Dataset) -> Iterator[tuple[Service, str]]:
    """Return a service with API keys, and a valid key."""
    key, entry = create_api_key("someone")
    with serving(dataset.root, api_keys=entry) as running:
        yield running, key


def test_with_keys_pages_lead_to_the_form(locked: tuple[Service, str]) -> None:
    service, key = locked
    response = service.http.get("/explore/artist?name=AC/DC")
    assert (response.status_code, response.headers["location"]) == (
        303,
        "/sign-in?after=%2Fexplore%2Fartist%3Fname%3DAC%2FDC",
    )
    current = {**HTMX, "HX-Current-URL": f"{service.url}/explore/country?name=Japan"}
    part = service.http.get("/explore/artist?name=AC/DC", headers=current)
    assert (part.status_code, part.headers["hx-redirect"]) == (
        401,
        "/sign-in?after=%2Fexplore%2Fcountry%3Fname%3DJapan",
    )
    part = service.http.get("/explore/artist?name=AC/DC", headers={**HTMX, "HX-Current-URL": "http://["})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/sign-in")
    form = service.http.get(response.headers["location"])
    assert 'name="after" value="/explore/artist?name=AC/DC"' in form.text
    signed_in = service.http.post("/sign-in", data={"key": key, "after": "/explore/artist?name=AC/DC"})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/explore/artist?name=AC/DC")
    cookie = signed_in.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert service.http.get("/explore/artist?name=AC/DC").status_code == 200
    service.http.post("/sign-out")
    assert service.http.get("/explore/artist?name=AC/DC").status_code == 303


def test_wrong_key_is_reported(locked: tuple[Service, str]) -> None:
    response = locked[0].http.post("/sign-in", data={"key": "wrong"})
    assert response.status_code == 403
    assert "This API key is not valid." in text(response)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example", "/\\evil.example", "/\n/evil.example", ""])
def test_sign_in_continues_on_this_service_only(locked: tuple[Service, str], after: str) -> None:
    service, key = locked
    response = service.http.post("/sign-in", data={"key": key, "after": after})
    service.http.cookies.clear()
    assert response.headers["location"] == "/"


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/explore/training"])
def test_forms_of_other_sites_are_refused(service: Service, path: str) -> None:
    response = service.http.post(path, data={"key": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
