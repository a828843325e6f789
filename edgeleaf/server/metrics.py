"""What ``/metrics`` shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one server.

    Args:
        waiting: returns how many texts wait for the encoder.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("edgeleaf_requests", "Requests answered.", ("path", "status"), registry=self._registry)
        self._seconds = Histogram(
            "edgeleaf_request_seconds",
            "Seconds from a request's headers to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._texts = Counter("edgeleaf_texts", "Texts encoded.", registry=self._registry)
        self._tokens = Counter("edgeleaf_tokens", "Tokens that the encoder has read.", registry=self._registry)
        self._cut = Counter(
            "edgeleaf_texts_cut",
            "Texts longer than the encoder's window, of which the end was not read.",
            registry=self._registry,
        )
        self._batch_texts = Histogram(
            "edgeleaf_batch_texts", "Texts encoded together.", buckets=(1, 2, 4, 8, 16, 32), registry=self._registry
        )
        self._batch_seconds = Histogram(
            "edgeleaf_batch_seconds", "Seconds to encode one batch.", buckets=_SECONDS, registry=self._registry
        )
        self._processor = Counter(
            "edgeleaf_encoding_processor_seconds", "Processor seconds of the encoding threads.", registry=self._registry
        )
        Gauge("edgeleaf_texts_waiting", "Texts that wait for the encoder.", registry=self._registry).set_function(
            waiting
        )
        # Kept: finding a counter by its labels takes longer than counting.
        self._requests_of = cache(lambda path, status: self._requests.labels(path, str(status)))
        self._seconds_of = cache(lambda path: self._seconds.labels(path))

    def answered(self, path: str, status: int, seconds: float | None = None) -> None:
        """Count a request and the seconds from its headers to its answer."""
        self._requests_of(path, status).inc()
        if seconds is not None:
            self._seconds_of(path).observe(seconds)

    def encoded(self, texts: int, tokens: int, cut: int) -> None:
        """Count texts, the tokens that the encoder has read of them, and how many were longer than its window."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)
        if cut:
            self._cut.inc(cut)

    def batch(self, texts: int, seconds: float, processor: float) -> None:
        """Count a batch that was encoded."""
        self._batch_texts.observe(texts)
        self._batch_seconds.observe(seconds)
        self._processor.inc(processor)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
