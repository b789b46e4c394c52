"""A Spark cluster on this machine: a standalone master and workers, from the installed pyspark, all on loopback."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pyspark

from music_assets.runtime.ports import free_port

HOST = "127.0.0.1"
PATIENCE = 120
"""Seconds within which all workers must have come."""
SPARK_HOME = Path(pyspark.__file__).parent
LOOPBACK = {"spark.driver.host": HOST, "spark.driver.bindAddress": HOST}


class Cluster:
    """A master and workers of one core each, running while the context lasts; logs and work stand in `folder`."""

    def __init__(self, folder: Path, workers: int = 2, worker_memory: str = "1g") -> None:
        self.folder = folder
        self.worker_memory = worker_memory
        self.port, self.web_port = free_port(), free_port()
        self.wanted = workers
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def master(self) -> str:
        """The address for MUSIC_ASSETS_SPARK_MASTER."""
        return f"spark://{HOST}:{self.port}"

    @property
    def workers(self) -> list[subprocess.Popen[bytes]]:
        """The processes of the workers."""
        return self.processes[1:]

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start("master.Master", "--port", self.port, "--webui-port", self.web_port)
        for number in range(self.wanted):
            work = self.folder / f"worker-{number}"
            limits = ("--cores", 1, "--memory", self.worker_memory, "--work-dir", work, "--webui-port", 0)
            self._start("worker.Worker", *limits, self.master)
        try:
            self._await_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            kill(process)

    def state(self) -> dict[str, Any]:
        """What the master tells of workers and applications."""
        return httpx.get(f"http://{HOST}:{self.web_port}/json/", timeout=5).json()

    def _start(self, name: str, *arguments: object) -> None:
        command = [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", "--host", HOST, *arguments]
        environment = {
            **os.environ,
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": HOST,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        log = self.folder / f"{name}-{len(self.processes)}.log"
        with log.open("wb") as sink:
            self.processes.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    env=environment,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _await_workers(self) -> None:
        last: object = None
        for _ in range(PATIENCE * 5):
            time.sleep(0.2)
            try:
                last = self.state()["aliveworkers"]
            except httpx.HTTPError as error:
                last = error
            if last == self.wanted:
                return
        raise TimeoutError(f"the cluster did not come up within {PATIENCE} s ({last}); its logs are in {self.folder}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of the cluster, and with a worker its executors, without a chance to say goodbye."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
