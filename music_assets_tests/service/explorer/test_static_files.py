"""The vendored libraries are those of the manifest, with their licences, and are served compressed."""

import hashlib
import json
import re

import pytest

from music_assets.service.explorer.static_files import FOLDER, static_url
from music_assets_tests.service.conftest import Service
from music_assets_tests.support.processes import REPOSITORY

VENDOR = FOLDER / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text(encoding="utf-8"))
FREE_LICENCES = {"MIT", "ISC", "0BSD", "BSD-3-Clause", "Apache-2.0"}
REQUESTED = json.loads((REPOSITORY / "frontend/package.json").read_text(encoding="utf-8"))["devDependencies"]


def test_manifest_lists_every_vendored_file() -> None:
    inside = {entry["file"] for entry in MANIFEST if not entry["file"].startswith("../")}
    assert inside == {path.name for path in VENDOR.iterdir()} - {"manifest.json"}


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_vendored_file_is_that_of_the_manifest(entry: dict[str, str]) -> None:
    assert hashlib.sha256((VENDOR / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_packages_are_free_software_of_the_requested_version(entry: dict[str, list[dict[str, str]]]) -> None:
    licences = (VENDOR / "LICENSES.txt").read_text(encoding="utf-8")
    for package in entry["packages"]:
        name, version, licence = package["name"], package["version"], package["license"]
        assert licence in FREE_LICENCES
        assert version == REQUESTED.get(name, version)
        assert f"\n{name} {version} ({licence})\n" in f"\n{licences}"


def test_files_are_compressed_and_cached_forever(service: Service) -> None:
    response = service.http.get(static_url("vendor/htmx.js"), headers={"Accept-Encoding": "gzip"})
    assert response.status_code == 200
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
    assert response.content == (VENDOR / "htmx.js").read_bytes()


@pytest.mark.parametrize("name", ["no.css", "%2e%2e/pages.py", "..%2fpages.py", "/etc/passwd"])
def test_other_files_are_not_served(service: Service, name: str) -> None:
    response = service.http.get(static_url("icon.svg").replace("icon.svg", name))
    assert response.status_code == 404
    assert "text/html" in response.headers["content-type"]


def test_static_addresses_change_with_the_content() -> None:
    assert re.fullmatch(r"/explore/static/[0-9a-f]{16}/icon\.svg", static_url("icon.svg"))
