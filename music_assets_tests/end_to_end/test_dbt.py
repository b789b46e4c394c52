"""The dbt project and the commands of docs/dbt.md, on a published snapshot."""

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from music_assets_tests.service.conftest import make_dataset
from music_assets_tests.support.processes import REPOSITORY, TIMEOUT

PAGE = REPOSITORY / "docs/dbt.md"
DBT = Path(sys.prefix) / "dbt/bin"
"""The environment that `make dbt` creates."""


@pytest.fixture
def dbt() -> Path:
    if not (DBT / "dbt").exists():
        if os.environ.get("CI"):
            pytest.fail("CI has to run `make dbt`")
        pytest.skip("dbt is not installed: make dbt")
    return DBT


def test_project_of_the_page(dbt: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    page = PAGE.read_text(encoding="utf-8")
    for name, content in re.findall(r"`([\w/.]+)`:\n\n```(?:yaml|sql)\n(.*?)```", page, re.DOTALL):
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[-1]
    environment = {
        **os.environ,
        "PATH": f"{dbt}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MUSIC_ASSETS_DATA": str(dataset.root),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    result = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=tmp_path / "project", env=environment, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASS=3" in result.stdout

    with duckdb.connect(str(tmp_path / "project/marts.duckdb"), read_only=True) as connection:
        built = connection.sql("SELECT country, artist_name, share_of_users FROM leaders ORDER BY country").fetchall()
    users = dataset.users.sort_values("ingested_at").drop_duplicates("user_id", keep="last")
    leaders = dataset.rankings.query("rank_in_country == 1").set_index("country").sort_index()
    shares = leaders["listeners"] / users["country"].value_counts()
    expected = [(country, row.artist_name, pytest.approx(shares[country])) for country, row in leaders.iterrows()]
    assert built == expected
