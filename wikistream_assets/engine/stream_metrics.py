"""Figures of one process of the Bronze stream; they start at 0 with it. The lake's totals go on over restarts."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import HistogramMetricFamily

from producer.metrics import served
from wikistream_assets.exceptions import ConfigurationError

AGE_BOUNDS: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0, 180.0, 600.0, 3600.0)
"""Upper bounds of the classes by which a batch counts its events' ages, seconds; older ones are a class of their own."""

_BATCH_BOUNDS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class AgeGroup:
    """Events of a batch that are about equally old.

    Attributes:
        events: how many.
        seconds: their mean age.
    """

    events: int
    seconds: float

    def later(self, seconds: float) -> "AgeGroup":
        """The same events after so long."""
        return AgeGroup(self.events, self.seconds + seconds)


def quantile(groups: Sequence[AgeGroup], share: float) -> float | None:
    """The age that ``share`` of the events do not exceed, as exact as the groups; None without events."""
    left = share * sum(group.events for group in groups)
    for group in sorted(groups, key=lambda group: group.seconds):
        left -= group.events
        if left <= 0:
            return group.seconds
    return None


class StreamMetrics:
    """What the stream's process serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"wikistream_stream_{name}", text, registry=self.registry)
            for name, text in {
                "records": "Kafka records consumed by committed batches",
                "rows": "events written to bronze.raw_events",
                "dead_letters": "records that are no events, written to bronze.dead_letter",
                "duplicates": "redelivered events, not written again",
            }.items()
        }
        self._batch = Histogram(
            "wikistream_stream_batch_seconds",
            "time from the start of a micro-batch to its commit",
            buckets=_BATCH_BOUNDS,
            registry=self.registry,
        )
        self._last = Gauge(
            "wikistream_stream_last_commit_timestamp_seconds",
            "time of the last committed batch",
            registry=self.registry,
        )
        self._lag = _LagHistogram()
        self.registry.register(self._lag)

    def committed(self, counts: Mapping[str, int], seconds: float, ages: Sequence[AgeGroup]) -> None:
        """Add one committed batch.

        Args:
            counts: records, rows, dead_letters, duplicates.
            seconds: from the batch's start to its commit.
            ages: of its events, at the commit.
        """
        for name, counter in self._counters.items():
            counter.inc(counts[name])
        self._batch.observe(seconds)
        self._lag.add(ages)
        self._last.set_to_current_time()

    @contextmanager
    def served(self, port: int) -> Iterator[None]:
        """Answer ``GET /metrics`` on loopback while the block runs; port 0 does without.

        Raises:
            ConfigurationError: the port cannot be used.
        """
        with served_or_refused(self.registry, port, "WIKISTREAM_STREAM_METRICS_PORT"):
            yield


@contextmanager
def served_or_refused(registry: CollectorRegistry, port: int, setting: str) -> Iterator[None]:
    """Answer ``GET /metrics`` on loopback while the block runs; port 0 does without.

    Raises:
        ConfigurationError: the port cannot be used; names the setting.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(served(registry, port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} cannot be used for metrics ({error.strerror}): set {setting} to another one, or to 0"
            ) from None
        yield


class _LagHistogram:
    """A histogram that takes many events at a time, which the library's own does not."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._events = [0] * (len(AGE_BOUNDS) + 1)
        self._seconds = 0.0

    def add(self, groups: Sequence[AgeGroup]) -> None:
        with self._busy:
            for group in groups:
                self._events[bisect_left(AGE_BOUNDS, group.seconds)] += group.events
                self._seconds += group.events * group.seconds

    def collect(self) -> Iterator[Metric]:
        with self._busy:
            events, seconds = list(self._events), self._seconds
        bounds = [*(str(bound) for bound in AGE_BOUNDS), "+Inf"]
        buckets = [(bound, float(sum(events[: index + 1]))) for index, bound in enumerate(bounds)]
        yield HistogramMetricFamily(
            "wikistream_stream_event_lag_seconds",
            "time from an event to the commit of its row; means something for live events only",
            buckets=buckets,
            sum_value=seconds,
        )
