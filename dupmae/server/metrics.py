"""Counts and times for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dupmae.server.indexes import ServedIndex

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUERIES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What one server has counted."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "dupmae_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "dupmae_request_seconds", "Time to answer.", ["route"],
            registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip
        self.batch = Histogram(
            "dupmae_batch_queries", "Queries encoded and searched together.",
            registry=self._registry, buckets=_QUERIES,
        )  # fmt: skip

    def watch(self, indexes: Sequence[ServedIndex], waiting: Callable[[], float]) -> None:
        """Show how many queries wait, and what indexes hold, whenever metrics are asked for."""
        queue = Gauge("dupmae_queue_queries", "Queries that wait.", registry=self._registry)
        queue.set_function(waiting)
        documents = Gauge(
            "dupmae_index_documents", "Live documents.", ["index"], registry=self._registry
        )
        generation = Gauge(
            "dupmae_index_generation", "Generation searched.", ["index"], registry=self._registry
        )
        for index in indexes:
            documents.labels(index.name).set_function(partial(_documents, index))
            generation.labels(index.name).set_function(partial(_generation, index))

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


def _documents(index: ServedIndex) -> int:
    return len(index.pinned())


def _generation(index: ServedIndex) -> int:
    return index.pinned().manifest.generation
