"""A data root on S3 next to one in a folder: ingest, refresh, and the first query of another machine."""

import time
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.contestants import RANKING_COLUMNS, materialize, project_environment, published_digest
from benchmarks.context import Context, Entrant, empty_folder
from benchmarks.data import full_drop
from benchmarks.measure import python, run
from benchmarks.results import OURS, Measurement
from music_assets.data_root import DataRoot
from music_assets.ingest.object_landing import open_landing
from music_assets.tables import ARTIST_RANK_IN_COUNTRY, RAW_TABLES
from music_assets_tests.support.s3_proxy import s3_proxy
from music_assets_tests.support.s3_server import s3_server

IN_FOLDER, NEAR, FAR = (Entrant(f"{OURS}, {place}") for place in ("in a folder", "on S3", "on S3, 30 ms a request"))
SQL = f"FROM {ARTIST_RANK_IN_COUNTRY.full_name} WHERE country = 'Germany' ORDER BY rank LIMIT 20"


def s3(context: Context) -> Iterator[Measurement]:
    """Start each time with an empty data root. Only the proxy that delays requests counts them."""
    requests: list[str] = []

    def delay(method: str, path: str) -> None:
        requests.append(f"{method} {path}")
        time.sleep(0.03)

    with s3_server(empty_folder(context.work, "s3", "server")) as server, s3_proxy(server.url, delay) as far:
        for number, one in context.turns([IN_FOLDER, NEAR, FAR]):
            folder = empty_folder(context.work, "s3", one.name)
            root = reader = DataRoot(folder / "data")
            if one is not IN_FOLDER:
                root, reader = (server.root(folder / name, f"{number}-{len(one.name)}") for name in ("work", "reader"))
            root.prepare()
            for file in vars(full_drop(context.work, context.users)).values():
                open_landing(root).place(file)
            steps = {
                "ingest": materialize(root, *(f"raw_parquet/{table.name}" for table in RAW_TABLES)),
                "refresh": materialize(root, *RANKING_COLUMNS, "music_db"),
                "first query": python("-m", "music_assets", "query", SQL, environment=project_environment(reader)),
            }
            for step, command in steps.items():
                requests.clear()
                usage = asdict(run(["env", f"AWS_ENDPOINT_URL={far if one is FAR else server.url}", *command], folder))
                yield Measurement(one.name, number, usage | ({"requests": len(requests)} if one is FAR else {}), step)
            context.compare(one.name, published_digest(root))
