"""Prometheus metrics of the service: requests, latencies, rows, queue, workers, published snapshot."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from music_assets.service.sandbox.pool import Pool

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "music_assets_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "music_assets_request_seconds",
            "Seconds from the request to the last byte of the response.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.rows = Counter("music_assets_rows", "Rows returned.", registry=self.registry)
        self.snapshot = Gauge(
            "music_assets_snapshot_info",
            "1 for the data version of the newest snapshot.",
            ["data_version"],
            registry=self.registry,
        )
        waiting = Gauge("music_assets_waiting_queries", "Queries waiting for a worker.", registry=self.registry)
        waiting.set_function(lambda: pool.waiting)
        restarts = Gauge("music_assets_worker_restarts", "Workers replaced since the start.", registry=self.registry)
        restarts.set_function(lambda: pool.restarts)

    def set_data_version(self, data_version: str) -> None:
        """Report the data version of the newest snapshot."""
        self.snapshot.clear()
        self.snapshot.labels(data_version).set(1)
