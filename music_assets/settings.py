"""The settings, read from environment variables. No other module reads the environment.

`python -m music_assets.settings` prints docs/configuration.md.
"""

import codecs
import json
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AnyUrl,
    BeforeValidator,
    Field,
    HttpUrl,
    PlainValidator,
    SecretStr,
    StringConstraints,
    UrlConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "MUSIC_ASSETS_"
MEMORY_SIZE = r"(?i)^\d+(\.\d+)?\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"
SPARK_MEMORY_SIZE = r"(?i)^\d+[kmgt]b?$"
S3_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9=_-][A-Za-z0-9.=_-]*)*")
SECRETS = ("alert_webhook", "api_keys", "dagster_url", "postgres_url", "spark_conf")
"""Settings whose values are never printed."""


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _without_special_characters(path: Path) -> Path:
    """Refuse characters that DuckDB, Delta Lake or Spark read as a pattern or as an escape in an address."""
    special = sorted({character for character in str(path) if character in "%?\\" or not character.isprintable()})
    if special:
        raise ValueError(f"the path of the data root contains {', '.join(map(repr, special))}, which is not supported")
    return path


def _encoding(name: str) -> str:
    """Return the name of a text encoding, `utf-8` in whichever way it is spelled."""
    try:
        "".encode(name)
        normal = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        raise ValueError("expected a character encoding that Python knows, such as utf-8 or windows-1252") from None
    return "utf-8" if normal in ("utf-8", "utf-8-sig") else name


def _data_root(value: Any) -> Path | str:
    """Return the absolute path of a folder, or an address `s3://BUCKET/PREFIX` without a slash at its end."""
    if not str(value).lower().startswith("s3:"):
        return _without_special_characters(_absolute(Path(value)))
    address = str(value).rstrip("/")
    if not S3_ADDRESS.fullmatch(address):
        raise ValueError("expected s3://BUCKET/PREFIX, of letters, digits and the characters . _ - = in the prefix")
    return address


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PostgresUrl = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["postgresql+psycopg2"])]
SparkKey = Annotated[str, StringConstraints(pattern=r"^spark\.")]


class SettingsError(Exception):
    """A setting is invalid. The message names the variable and what is expected."""


class Settings(BaseSettings):
    """The settings. Each is read from the environment variable `MUSIC_ASSETS_<NAME>`; empty means not set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    data: Annotated[Path | str, PlainValidator(_data_root)] = Field(
        Path("data"),
        description="Data root: the folder of drops, tables and snapshots, or an address `s3://BUCKET/PREFIX`.",
    )
    work: Annotated[AbsolutePath, AfterValidator(_without_special_characters)] = Field(
        Path("work"),
        description="With a data root on S3: the local folder of scratch files, locks, run history and cached files.",
    )
    cache_gb: float = Field(
        50.0, gt=0, allow_inf_nan=False, description="With a data root on S3: maximum size of the cached files."
    )
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="Compute engine: `duckdb`, in process, or `spark`, which requires Java 17 or later."
    )
    memory_limit: str = Field(
        "800MB", pattern=MEMORY_SIZE, description="Memory DuckDB may use in a run before it spills to disk."
    )
    threads: int | None = Field(None, ge=1, description="Threads of DuckDB and Polars in a run. Default: one per core.")
    spark_master: str = Field(
        "local[*]",
        pattern=r"^(local(\[.+\])?|yarn|(spark|k8s)://.+)$",
        description="Spark master: `local[*]`, `spark://HOST:7077`, `yarn` or `k8s://https://HOST:PORT`.",
    )
    spark_driver_memory: str = Field(
        "1g", pattern=SPARK_MEMORY_SIZE, description="Memory of the Spark driver, which runs on the machine of the run."
    )
    spark_executor_memory: str = Field(
        "1g", pattern=SPARK_MEMORY_SIZE, description="Memory of each Spark executor on a cluster."
    )
    spark_shuffle_partitions: int | None = Field(
        None, ge=1, description="Number of Spark shuffle partitions. Default: derived from the size of the data."
    )
    spark_conf: Annotated[dict[SparkKey, str], NoDecode, BeforeValidator(_from_json)] = Field(
        {}, description='Further Spark configuration, as JSON: `{"spark.executor.cores": "2"}`.'
    )
    sensor_interval: int = Field(
        5,
        ge=5,
        description="Seconds between two evaluations of `csv_drop_sensor`, at least 5. On a local data root each "
        "watches for arriving files for 4 seconds.",
    )
    settle_seconds: NonNegative = Field(
        2.0,
        description="Seconds between two looks at a dropped file; if it is the same in both, it is complete. A file "
        "that the sensor sees being renamed into place is complete at once.",
    )
    encoding: Annotated[str, AfterValidator(_encoding)] = Field(
        "utf-8",
        description="Character encoding of dropped CSV files. Files in another encoding than `utf-8` are transcoded.",
    )
    max_attempts: int = Field(5, ge=1, description="Maximum number of runs the sensor starts for the same files.")
    retry_pause: NonNegative = Field(
        30.0, description="Seconds before the second attempt; the pause doubles with every further attempt."
    )
    reject_warn_share: float = Field(
        0.01, ge=0, le=1, description="Share of rejected rows above which the check `reject_share` warns."
    )
    reject_fail_share: float = Field(
        0.20,
        ge=0,
        le=1,
        description="Share of rejected rows above which the check `reject_share` fails and nothing is published.",
    )
    unknown_warn_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of listed users, or of their plays, without a known user or country above which the check "
        "`unknown_share` warns.",
    )
    unknown_fail_share: float = Field(
        0.5, ge=0, le=1, description="The same share above which the check `unknown_share` fails."
    )
    retention_hours: NonNegative = Field(
        24.0, description="Hours until parquet files that no table refers to are deleted."
    )
    freshness_hours: float | None = Field(
        None,
        ge=0.02,
        allow_inf_nan=False,
        description="Hours after the last publication from which the Dagster web UI shows `music_db` as overdue, at "
        "least 0.02. Default: never.",
    )
    alert_webhook: HttpUrl | None = Field(
        None, description="URL that receives a JSON POST when a run fails. Default: failures are only logged."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address the query service listens on. Without API keys only a loopback address is allowed.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port the query service listens on; 0 for any free port.")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys of the query service as `NAME:DIGEST:SCOPES`, separated by commas. Default: no key is "
        "required.",
    )
    api_keys_file: AbsolutePath | None = Field(
        None, description="File of further API keys, one `NAME:DIGEST:SCOPES` per line; `#` starts a comment."
    )
    rate_limit: str = Field(
        "1000/second",
        pattern=r"^[1-9]\d*/([1-9]\d* ?)?(second|minute|hour|day)s?$",
        description="Rate limit per API key, or per client address if there are no keys.",
    )
    row_limit: int = Field(100_000, ge=1, le=10_000_000, description="Maximum number of rows in a response.")
    timeout_ms: int = Field(10_000, ge=1, description="Query timeout in milliseconds.")
    query_workers: int | None = Field(
        None, ge=1, description="Number of query worker processes. Default: one per core, at least 2."
    )
    query_threads: int = Field(2, ge=1, description="DuckDB threads of each query worker.")
    query_memory_mb: int = Field(
        512, ge=64, description="DuckDB memory of each query worker in megabytes. Workers never spill to disk."
    )
    query_queue: int = Field(
        64,
        ge=0,
        description="Maximum number of unfinished requests of one caller, in addition to one per worker; beyond it the "
        "service answers 503.",
    )
    spool_mb: int = Field(
        1024,
        ge=1,
        description="Disk space, in megabytes, for results that callers have not read yet; a quarter of it per caller.",
    )
    request_timeout: float = Field(
        15.0, gt=0, description="Seconds in which a request must arrive: its head, and then its body."
    )
    service_url: HttpUrl | None = Field(
        None,
        description="URL at which browsers reach the query service, for links in the Dagster web UI. Default: its host "
        "and port.",
    )
    named_queries: AbsolutePath | None = Field(
        None, description="TOML file of named queries for the SQL console: `[name]`, `title`, `sql`."
    )
    max_connections: int = Field(
        1000,
        ge=1,
        description="Maximum number of connections to the query service. Beyond it, the connection that has been "
        "waiting for a request for longest is closed.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of reverse proxies, separated by commas, whose `X-Forwarded-For` names the "
        "client.",
    )
    dagster_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:3000"),
        description="URL of the Dagster web UI, through which the query service starts the training of embeddings.",
    )
    postgres_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL database of Dagster's run history: "
        "`postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE`. Default: SQLite in the Dagster home.",
    )

    @field_validator("spark_master")
    @classmethod
    def _local_master_with_s3(cls, master: str, others: ValidationInfo) -> str:
        on_s3 = others.data.get("engine") == "spark" and isinstance(others.data.get("data"), str)
        if on_s3 and not master.startswith("local"):
            raise ValueError(
                "with a data root on S3 Spark runs on this machine only: the executors of a cluster cannot read its "
                "work folder, and reading s3a:// with the hadoop-aws jar is not supported. Set "
                f"{PREFIX}SPARK_MASTER=local[*], {PREFIX}ENGINE=duckdb, or {PREFIX}DATA to a folder that is mounted at "
                "the same path on all machines"
            )
        return master


class ForeignVariables(BaseSettings):
    """Environment variables of other programs that the project respects; empty means not set."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    aws_region: str | None = None
    dagster_home: AbsolutePath | None = None
    java_home: Path | None = None
    lang: str = "C.UTF-8"


@cache
def settings() -> Settings:
    """Return the settings of this process. Raises SettingsError with a line for each invalid variable."""
    return _validated()


def settings_with(data: str) -> Settings:
    """Return the settings of this process with another data root. Raises SettingsError."""
    return _validated(data=data)


def _validated(**values: Any) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [_problem(str(part["loc"][0]), part["input"], part["msg"]) for part in error.errors()]
        raise SettingsError("\n".join(["Invalid settings:", *lines])) from None


def _problem(name: str, value: object, message: str) -> str:
    shown = "" if name in SECRETS else f"={value!r}"
    return f"{PREFIX}{name.upper()}{shown}: {message}"


def http_url(host: str, port: int) -> str:
    """Return the URL of a server on this host, which may be an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def child_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment with changes, for a child process."""
    return {**os.environ, **changes}


def set_variables_unless_set(**defaults: str) -> None:
    """Set variables that a library reads when it is imported. What the user has set takes precedence."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


DOCUMENTATION = """# Configuration

Every setting is an environment variable. An empty variable counts as not set. `make docs` generates this page.

| variable | default | meaning |
|---|---|---|
{rows}

Variables of other programs count too. `DAGSTER_HOME` replaces the folder of Dagster's run history, `.dagster_home` in
the data root; the `.dagster_home` of another data root is ignored. `JAVA_HOME` selects the Java that Spark uses.
[S3](s3.md) lists those of AWS. The commands `query --url` and `mcp` send the API key in `MUSIC_ASSETS_API_KEY`.
"""


def documentation() -> str:
    """Return docs/configuration.md."""
    return DOCUMENTATION.format(rows="\n".join(map(_row, Settings.model_fields)))


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if str(field.default) in ("None", "{}", "") else f"`{field.default}`"
    return f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |"


if __name__ == "__main__":
    sys.stdout.write(documentation())
