"""Every environment variable the project reads, checked once. Nothing else reads the environment."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "MUSIC_ASSETS_"
SPARK_MEMORY = r"(?i)^\d+[kmgt]b?$"
SparkKey = Annotated[str, StringConstraints(pattern=r"^spark\.")]
SECRETS = ("alert_webhook", "api_keys", "spark_conf")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _data_root(path: Path) -> Path:
    """Refuse what the storage libraries misread in a path: one reads an address into it, another a pattern."""
    odd = sorted({character for character in str(path) if character in "%?\\" or not character.isprintable()})
    if odd:
        raise ValueError(f"the path of the data root may not hold {', '.join(map(repr, odd))}")
    return path


class SettingsError(Exception):
    """A setting has a value that cannot be used. The message names it, and says what fits."""


class Settings(BaseSettings):
    """The settings. Each is read from the environment variable `MUSIC_ASSETS_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    data: Annotated[Path, AfterValidator(_absolute), AfterValidator(_data_root)] = Field(
        Path("data"), description="The data root: the folder that holds drops, tables and snapshots."
    )
    memory_limit: str = Field(
        "800MB",
        pattern=r"(?i)^\d+(\.\d+)?\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
        description="The memory DuckDB may use in a run before it spills to disk, such as `800MB` or `4GiB`.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads DuckDB, and Polars, may use in a run. Empty: one per core."
    )
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="What computes: `duckdb` inside the process, or `spark`, which needs Java 17 or later."
    )
    spark_master: str = Field(
        "local[*]",
        pattern=r"^(local(\[.+\])?|yarn|(spark|k8s)://.+)$",
        description="Master of Spark: `local[*]`, `spark://HOST:7077`, `yarn` or `k8s://https://HOST:PORT`.",
    )
    spark_driver_memory: str = Field(
        "1g", pattern=SPARK_MEMORY, description="Memory of Spark's driver, which runs beside the job, such as `1g`."
    )
    spark_executor_memory: str = Field(
        "1g", pattern=SPARK_MEMORY, description="Memory of each of Spark's executors on a cluster, such as `4g`."
    )
    spark_shuffle_partitions: int | None = Field(
        None, ge=1, description="Partitions of a shuffle of Spark. Empty: as many as the size of the data asks for."
    )
    spark_conf: Annotated[dict[SparkKey, str], NoDecode, BeforeValidator(_from_json)] = Field(
        {}, description='Any further settings of Spark, as JSON: `{"spark.executor.cores": "2"}`.'
    )
    sensor_interval: int = Field(
        5, ge=5, description="Seconds between two looks of `csv_drop_sensor`, 5 at least: the daemon comes by every 5."
    )
    settle_seconds: float = Field(
        2.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which a dropped file must not have changed before it counts as complete.",
    )
    max_attempts: int = Field(5, ge=1, description="How often the sensor starts a refresh for the same files at most.")
    retry_pause: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds before the second attempt; each further pause is twice the one before.",
    )
    reject_warn_share: float = Field(
        0.01, ge=0, le=1, description="Share of rejected rows above which the check `reject_share` warns."
    )
    reject_fail_share: float = Field(
        0.20,
        ge=0,
        le=1,
        description="Share of rejected rows above which `reject_share` fails and nothing is published.",
    )
    retention_hours: float = Field(
        24.0,
        ge=0,
        allow_inf_nan=False,
        description="Hours for which parquet files that no table refers to any more are kept.",
    )
    alert_webhook: HttpUrl | None = Field(
        None, description="Address that gets a JSON POST when a run fails. Empty: the log only."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address the query service listens on. Without API keys it must be this machine's own.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port the query service listens on. 0: any free one.")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys of the query service as `NAME:DIGEST`, separated by commas. Empty: no key asked.",
    )
    api_keys_file: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        None, description="File with further API keys, one `NAME:DIGEST` a line; `#` starts a comment."
    )
    rate_limit: str = Field(
        "1000/second",
        pattern=r"^[1-9]\d*/([1-9]\d* ?)?(second|minute|hour|day)s?$",
        description="Requests a caller may send (one key; without keys, one address), such as `1000/second`.",
    )
    row_limit: int = Field(100_000, ge=1, le=10_000_000, description="Most rows in one answer of the query service.")
    timeout_ms: int = Field(10_000, ge=1, description="Milliseconds a query may take at most.")
    query_workers: int | None = Field(
        None, ge=1, description="Processes that run queries. Empty: one per core, and at least 2."
    )
    query_threads: int = Field(2, ge=1, description="Threads of DuckDB in each of these processes.")
    query_memory_mb: int = Field(
        512, ge=64, description="Megabytes DuckDB may use in each of these processes; nothing is spilled to disk."
    )
    dagster_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:3000"),
        description="Address of the Dagster web UI, where the query service starts trainings of the embeddings.",
    )
    query_queue: int = Field(
        64, ge=0, description="Queries that may wait for a process; further ones are told to come back (503)."
    )


class ForeignVariables(BaseSettings):
    """Environment variables of other programs that the project respects. Empty means not set."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    dagster_home: Annotated[Path, AfterValidator(_absolute)] | None = None
    java_home: Path | None = None
    lang: str = "C.UTF-8"


def child_environment(**changes: str) -> dict[str, str]:
    """Return the environment for a child process: this process's, with changes."""
    return {**os.environ, **changes}


def set_variables_unless_set(**defaults: str) -> None:
    """Set variables that a library reads when it is imported, except those that the user has set."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@cache
def settings() -> Settings:
    """Return the settings of this process.

    Raises SettingsError naming each variable that does not fit.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [_problem(str(part["loc"][0]), part["input"], part["msg"]) for part in error.errors()]
        raise SettingsError("Mend these environment variables:\n" + "\n".join(lines)) from None


def _problem(name: str, value: object, message: str) -> str:
    """Return a line on a value that does not fit. What may hold a secret is not shown."""
    return f"{PREFIX}{name.upper()}{'' if name in SECRETS else f'={value!r}'}: {message}"
