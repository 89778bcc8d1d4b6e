"""Prometheus metrics of a producer, counted in committed batches, and served on loopback only."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from producer.cursor import Counters


class Metrics:
    """The figures of this process; the cursor's counters go on over restarts, these start at 0.

    They are the original system's EventsReceived, EventsProcessed, EventsFiltered, DLQMessagesProduced and ValidationErrors,
    named as Prometheus wants it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._received = self._counter("events_received", "lines received from the stream")
        self._accepted = self._counter("events_accepted", "events committed to raw-events")
        self._filtered = self._counter("events_filtered", "events of domains that are not followed")
        self._canary = self._counter("canaries", "heartbeats of the stream")
        self._dead = Counter(
            "wikistream_producer_dead_letters",
            "lines committed to dlq-events, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._gaps = self._counter("gaps", "resumes that left events out")
        self._commits = self._counter("transactions", "committed Kafka transactions")
        self._connections = self._counter("connections", "connections opened to the stream")
        self._aborted = self._counter("transactions_aborted", "Kafka transactions that failed and were sent again")
        self._seen = (0, 0)
        self._sizes = Histogram(
            "wikistream_producer_record_bytes",
            "size of the records committed to Kafka, cursors left out",
            buckets=[4**power for power in range(4, 13)],
            registry=self.registry,
        )
        self._last_commit = Gauge(
            "wikistream_producer_last_commit_timestamp_seconds",
            "time of the last committed batch",
            registry=self.registry,
        )

    def committed(self, counted: Counters, gaps: int, sizes: Iterable[int]) -> None:
        """Add one committed batch; ``sizes`` of its records in bytes."""
        self._received.inc(counted.received)
        self._accepted.inc(counted.accepted)
        self._filtered.inc(counted.filtered)
        self._canary.inc(counted.canary)
        for reason, count in counted.dead_lettered.items():
            self._dead.labels(reason).inc(count)
        self._gaps.inc(gaps)
        self._commits.inc()
        for size in sizes:
            self._sizes.observe(size)
        self._last_commit.set_to_current_time()

    def connection_state(self, connections: int, aborted: int) -> None:
        """Take over what is counted elsewhere: the totals since the start."""
        self._connections.inc(connections - self._seen[0])
        self._aborted.inc(aborted - self._seen[1])
        self._seen = connections, aborted

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"wikistream_producer_{name}", text, registry=self.registry)


@contextmanager
def served(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Answer ``GET /metrics`` on loopback while the block runs; port 0 does without.

    Raises:
        OSError: the port cannot be used.
    """
    if not port:
        yield
        return
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
