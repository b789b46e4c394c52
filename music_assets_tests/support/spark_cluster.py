"""A standalone Spark cluster on this machine: a master and workers from the installed pyspark, on loopback."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pyspark

from music_assets.runtime.ports import free_port
from music_assets.settings import child_environment
from music_assets_tests.support.processes import kill_tree, wait_until

HOST = "127.0.0.1"
SPARK_HOME = Path(pyspark.__file__).parent
FAST_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""JVM options for short jobs on little data: little compilation, serial GC."""
LOOPBACK = {"spark.driver.host": HOST, "spark.driver.bindAddress": HOST}


class Cluster:
    """A context in which a master and workers of one core run; their logs and work folders are in `folder`."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.folder = folder
        self.port, self.web_port = free_port(), free_port()
        self.worker_count = workers
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def master(self) -> str:
        """The address for MUSIC_ASSETS_SPARK_MASTER."""
        return f"spark://{HOST}:{self.port}"

    @property
    def workers(self) -> list[subprocess.Popen[bytes]]:
        """The processes of the workers. Their executors are child processes."""
        return self.processes[1:]

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start("master.Master", "--port", self.port, "--webui-port", self.web_port)
        for number in range(self.worker_count):
            work = self.folder / f"worker-{number}"
            limits = ("--cores", 1, "--memory", "1g", "--work-dir", work, "--webui-port", 0)
            self._start("worker.Worker", *limits, self.master)
        try:
            wait_until(self._is_complete, f"a cluster with its logs in {self.folder}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            kill_tree(process)

    def state(self) -> dict[str, Any]:
        """Return the state of workers and applications, from the master."""
        return httpx.get(f"http://{HOST}:{self.web_port}/json/", timeout=5).json()

    def _is_complete(self) -> bool:
        try:
            return self.state()["aliveworkers"] == self.worker_count
        except httpx.HTTPError:
            return False

    def _start(self, name: str, *arguments: object) -> None:
        command = [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", "--host", HOST, *arguments]
        environment = child_environment(
            SPARK_HOME=str(SPARK_HOME),
            SPARK_LOCAL_IP=HOST,
            SPARK_DAEMON_MEMORY="256m",
            SPARK_DAEMON_JAVA_OPTS=FAST_START,
        )
        with (self.folder / f"{name}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log)
        self.processes.append(process)
