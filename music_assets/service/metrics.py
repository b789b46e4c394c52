"""What Prometheus is told: requests, the time and rows of queries, the queue, the workers, the snapshot served."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from music_assets.service.sandbox.pool import Pool

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "music_assets_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "music_assets_request_seconds", "Seconds to the end of the answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("music_assets_rows", "Rows sent.", registry=self.registry)
        self.snapshot = Gauge(
            "music_assets_snapshot_info", "1 for the data version served.", ["data_version"], registry=self.registry
        )
        waiting = Gauge("music_assets_waiting_queries", "Queries waiting for a process.", registry=self.registry)
        waiting.set_function(lambda: pool.waiting)
        restarts = Gauge("music_assets_worker_restarts", "Worker processes replaced so far.", registry=self.registry)
        restarts.set_function(lambda: pool.restarts)

    def serves(self, data_version: str) -> None:
        """Note the snapshot that is served now."""
        self.snapshot.clear()
        self.snapshot.labels(data_version).set(1)
