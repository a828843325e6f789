"""What ``/metrics`` shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one server.

    Args:
        waiting: returns how many texts wait for the encoder.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("edgeleaf_requests", "Requests answered.", ("path", "status"), registry=self._registry)
        self.seconds = Histogram(
            "edgeleaf_request_seconds",
            "Seconds from a request's headers to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.texts = Counter("edgeleaf_texts", "Texts encoded.", registry=self._registry)
        self.tokens = Counter("edgeleaf_tokens", "Tokens that the encoder has read.", registry=self._registry)
        self.cut = Counter(
            "edgeleaf_texts_cut",
            "Texts longer than the encoder's window, of which the end was not read.",
            registry=self._registry,
        )
        self.batch_texts = Histogram(
            "edgeleaf_batch_texts", "Texts encoded together.", buckets=(1, 2, 4, 8, 16, 32), registry=self._registry
        )
        self.batch_seconds = Histogram(
            "edgeleaf_batch_seconds", "Seconds to encode one batch.", buckets=_SECONDS, registry=self._registry
        )
        Gauge("edgeleaf_texts_waiting", "Texts that wait for the encoder.", registry=self._registry).set_function(
            waiting
        )

    def batch(self, texts: int, seconds: float) -> None:
        """Count a batch that was encoded."""
        self.batch_texts.observe(texts)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
