"""Logs of the service: nobody needs to read them, and nothing in them is lost or secret."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from music_assets.runtime.ports import free_port
from music_assets.service.logs import NonBlockingHandler
from music_assets.service.problems import ProblemError
from music_assets.service.sandbox.pool import Pool, Query
from music_assets.service.sandbox.spool import Spool
from music_assets_tests.service.conftest import Dataset, serving
from music_assets_tests.support.processes import wait_until


@contextmanager
def serve(dataset: Dataset, stdout: int, stderr: Path) -> Iterator[str]:
    """Run `music-assets serve` with these outputs and yield its URL."""
    port = free_port()
    settings = {"DATA": str(dataset.root), "PORT": str(port), "QUERY_WORKERS": "1"}
    environment = {**os.environ, **{f"MUSIC_ASSETS_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "music_assets", "serve"]
    with stderr.open("wb") as log, subprocess.Popen(command, env=environment, stdout=stdout, stderr=log) as process:
        try:
            wait_until(lambda: is_up(f"http://127.0.0.1:{port}"), "the service", process=process, log=stderr)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_output_that_nobody_reads_does_not_stop_the_service(dataset: Dataset, tmp_path: Path) -> None:
    unread, output = os.pipe()
    with serve(dataset, output, tmp_path / "log") as url, httpx.Client(base_url=url) as http:
        os.close(output)
        for number in range(300):  # more than the 64 KiB of a pipe
            sql = f"SELECT {number}, '{'x' * 900}'"
            assert http.post("/query", json={"query": sql}).status_code == 200
    os.close(unread)


def test_lines_are_written_in_order() -> None:
    reading, writing = os.pipe()
    handler = NonBlockingHandler(writing)
    for number in range(2_000):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    handler.flush()
    assert os.read(reading, 2**16) == b"".join(b"line %d\n" % number for number in range(2_000))


def test_traceback_of_a_worker_is_logged(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        pool = Pool(dataset.root, lambda: dataset.published, 1, 1, 256, 1, Spool(2**20))
        await pool.start()
        try:
            with pytest.raises(ProblemError, match="cannot be encoded as nothing"):
                await pool.run(Query("id", "SELECT 1", None, 1, 1000, "nothing"), "caller")
        finally:
            await pool.close()

    asyncio.run(run())
    assert "Traceback" in caplog.text
    assert "KeyError: 'nothing'" in caplog.text


def test_client_that_hangs_up_is_one_line(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(dataset.root, query_workers=1) as service:
        with pytest.raises(httpx.ReadTimeout):
            sql = "SELECT count(*) FROM range(1000000000000) t(i) WHERE hash(i) = 1"
            service.http.post("/query", json={"query": sql}, timeout=0.3)
        with service.http.stream("POST", "/query?format=csv", json={"query": "FROM range(100000)"}) as response:
            assert response.status_code == 200
        wait_until(lambda: caplog.text.count('"outcome":"cut"') >= 1, "the access log")
        assert service.worker_answers()
    assert not [record for record in caplog.records if record.exc_info]
