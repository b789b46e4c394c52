"""The code versions of the assets: other rows for the same files need another version."""

import hashlib
from pathlib import Path

from music_assets.defs.assets import RANKING_CODE, RAW_CODE
from music_assets.tables import RANKING_TABLES, RAW_TABLES, USER_DATA, USER_TOP_ARTISTS, Table
from music_assets_tests.support.project import Project
from music_assets_tests.support.published import published_rows

USERS = """user_id,country,total_scrobbles
1,Germany,90
2, France ,50
3,Germany,10
4,n/a,7
5,Côte d'Ivoire,
6,Germany,60.0
x,Germany,1
"""
USERS_LATER = "total_scrobbles,user_id,country\n91,1,France\n0,7,germany\n"
TOP_ARTISTS = """user_id,rank,artist_name,playcount,mbid
1,1,Can,60,
1,2,"Earth, Wind & Fire",30,
2,1,Air,40,b1
2,2,Can,10,
3,1,Neu!,10,
4,1,Can,7,
5,1, Sigur Rós,,
6,1,neu!,10,
6,51,Air,1,
7,1,"相対性理論",0,
8,1,Can,1000,
"""
ROWS = {
    ("raw", "0.2"): "cb371ffdd1829aa19538c8a7e0be00e7c574685d45f623a8b224a4de2b1e04c0",
    ("rankings", "0.2"): "5515ec94d55eec94c0e81f3482d097e85eccae27dcc2393d0a691be450cab242",
}
"""The digest of the rows of each code version. Do not change one: raise the version in `defs/assets/`, and add one."""


def test_other_rows_need_another_code_version(tmp_path: Path) -> None:
    project = Project(tmp_path, reject_fail_share=1, unknown_fail_share=1)
    project.drop(USER_DATA, USERS, "users.csv")
    project.drop(USER_TOP_ARTISTS, TOP_ARTISTS, "top.csv")
    assert project.refresh().success
    project.drop(USER_DATA, USERS_LATER, "later.csv")
    assert project.refresh().success
    for name, version, tables in (("raw", RAW_CODE, RAW_TABLES), ("rankings", RANKING_CODE, RANKING_TABLES)):
        assert digest(project, *tables) == ROWS[name, version], f"The rows of {name} changed: raise their code version"


def digest(project: Project, *tables: Table) -> str:
    rows = published_rows(project.root)
    return hashlib.sha256(repr([sorted(rows[table.full_name], key=repr) for table in tables]).encode()).hexdigest()
