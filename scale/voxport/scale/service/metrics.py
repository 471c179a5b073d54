"""What a replica counts, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one replica, each with the label `replica`: behind a proxy a scrape reaches any of them."""

    def __init__(self, replica: str) -> None:
        self._registry, self._replica = CollectorRegistry(), replica
        labels = ("replica", "route")
        self._requests = Counter(
            "voxport_requests", "Requests that were answered.", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "voxport_request_seconds", "Time to the answer.", labels, registry=self._registry, buckets=_SECONDS
        )
        self._sound = Counter("voxport_sound_seconds", "Sound that was heard.", ("replica",), registry=self._registry)
        self._working = Gauge("voxport_working", "Requests at work.", ("replica",), registry=self._registry)
        self._streams = Gauge("voxport_streams", "Open streams.", ("replica",), registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request of `route` was answered."""
        self._requests.labels(self._replica, route, str(status)).inc()
        self._seconds.labels(self._replica, route).observe(seconds)

    def heard(self, seconds: float) -> None:
        """So much sound was answered."""
        self._sound.labels(self._replica).inc(seconds)

    def at_work(self, requests: int, streams: int) -> None:
        """How many are at work now."""
        self._working.labels(self._replica).set(requests)
        self._streams.labels(self._replica).set(streams)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return bytes(generate_latest(self._registry))
