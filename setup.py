"""Packaging of music-assets. Each dependency stands with the reason why it is there."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="music-assets",
    version="0.1.0",
    description="Turns Last.fm CSV drops into ranked tables, a query service and embeddings",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["music_assets", "music_assets.*"]),
    # In the repository these are symbolic links to the files at the top level; a wheel gets copies.
    package_data={"music_assets.runtime": ["dagster.yaml", "workspace.yaml"]},
    install_requires=[
        # Orchestration: assets, jobs, sensors, the daemon and the web UI.
        "dagster>=1.13,<1.14",
        "dagster-webserver>=1.13,<1.14",
        # The distributed engine. Imported only where Spark is chosen.
        "dagster-pyspark>=0.29,<0.30",
        "pyspark>=4.0,<4.1",
        # The embedded engine, and the file format of the published snapshot.
        "duckdb>=2.0,<2.1",
        # One expression language over both engines.
        "ibis-framework[duckdb]>=12.0,<13",
        # Transactions over folders of parquet files, without a JVM.
        "deltalake>=1.6,<2",
        # Reads flawless CSV into parquet in half the time that DuckDB takes. What it lets pass was found with 2.1.
        "polars>=2.1,<2.2",
        # Columns in memory, parquet footers, fast CSV writing.
        "pyarrow>=21,<27",
        # word2vec.
        "gensim>=4.4,<5",
        # The vectors nearest to one, exact, among 800,000 in 20 ms.
        "faiss-cpu>=1.12,<2",
        # Means over 25 million pairs of user and artist, as products of a sparse matrix. gensim brings it too.
        "scipy>=1.13,<2",
        # Results of Ibis pass through it; tables in notebooks, the oracle in the tests.
        "pandas>=2.2,<4",
        "numpy>=2.0,<3",
        # Settings from the environment, checked once.
        "pydantic>=2.10,<3",
        "pydantic-settings>=2.7,<3",
        # The command line.
        "typer>=0.16,<1",
        "rich>=13.9,<16",
        # The map of the artists that a training shows in the web UI.
        "matplotlib>=3.9,<4",
        # Whether what is installed is what is needed: `music-assets doctor`.
        "packaging>=24",
        # One ingest, and one publishing, at a time per data root.
        "filelock>=3.16,<5",
        # Whether the process of a run is alive.
        "psutil>=6,<8",
        # The webhook of the failure alert, and the client of the query service.
        "requests>=2.32,<3",
        # The query service: routes, the server with its fast loop and parser, API documentation without a CDN.
        "fastapi>=0.115,<1",
        "uvicorn>=0.34,<1",
        "uvloop>=0.21,<1",
        "httptools>=0.6,<1",
        "fastapi-offline>=1.7,<2",
        # Asks Dagster for a training, without holding up other requests.
        "httpx>=0.28,<1",
        # JSON of the query service, and of its talk with its workers.
        "orjson>=3.10,<4",
        # Requests per key.
        "limits>=5,<6",
        # What Prometheus reads.
        "prometheus-client>=0.21,<1",
    ],
    extras_require={
        "dev": [
            # Tests.
            "pytest>=9,<10",
            "pytest-cov>=6,<8",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.130,<7",
            # The query service asked by strangers: by its OpenAPI document.
            "schemathesis>=4,<5",
            # The recipe of docs/embeddings.md: predicting the country from a user's vector.
            "scikit-learn>=1.6,<2",
            # Lint, format, types.
            "ruff>=0.17,<0.18",
            "import-linter>=2.17,<3",
            "mypy>=2.4,<3",
            "types-requests>=2.32,<3",
            "pandas-stubs>=2.2,<4",
            # Builds the wheel in a test, without the network.
            "setuptools>=77",
            # `dg check defs`.
            "dagster-dg-cli>=1.13,<1.14",
        ],
        # `make fuzz`: needs a compiled wheel, which not every platform has.
        "fuzz": ["atheris>=3,<4"],
        # `make audit`: asks a vulnerability service.
        "audit": ["pip-audit>=2.9,<3"],
        "bench": [
            # Contestants of the benchmarks: matrix factorisation, and SQLite over HTTP.
            "implicit>=0.7,<0.8",
            "datasette>=0.65,<0.66",
        ],
    },
    entry_points={"console_scripts": ["music-assets=music_assets.cli:app"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
