"""README, CONTRIBUTING and docs/ name only what exists."""

import re
from pathlib import Path

import pytest
import typer

from music_assets.cli import app
from music_assets.settings import PREFIX, Settings
from music_assets_tests.support.processes import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NOT_SETTINGS = {f"{PREFIX}API_KEY", f"{PREFIX}REAL_DATA"}
"""Variables of the client and of the tests."""


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert "://" in target or linked.exists(), target
        assert "://" in target or heading in ("", *_anchors(linked)), heading


def test_commands_exist(page: Path) -> None:
    found = set(re.findall(r"\bmusic-assets ([a-z][a-z-]*)\b(?!\])", _code(page)))
    assert found <= set(typer.main.get_command(app).commands)


def test_make_targets_exist(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    found = re.findall(r"\bmake ([a-z-]+)", _code(page))
    assert [target for target in found if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_settings_exist(page: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", page.read_text(encoding="utf-8"))) - NOT_SETTINGS
    assert named <= {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_paths_exist(page: Path) -> None:
    """Python files and packages that a page names, relative to the repository, the package or the tests."""
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?|[a-z_]+\.py)`", page.read_text(encoding="utf-8"))
    folders = (REPOSITORY, REPOSITORY / "music_assets", REPOSITORY / "music_assets_tests")
    ours = [path for path in named if not path.startswith(("user_data/", "rejected/", "damaged/"))]
    assert [path for path in ours if not any((folder / path).exists() for folder in folders)] == []


def test_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 120


def _anchors(page: Path) -> list[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE) if page.suffix == ".md" else []
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def _code(page: Path) -> str:
    """Return the shell blocks and the inline code of a page."""
    return "\n".join(
        map("".join, re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", page.read_text(encoding="utf-8"), re.DOTALL))
    )
