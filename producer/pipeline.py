"""The producer itself: read, judge, wrap, commit; batch after batch, each with the position it leads to."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from producer.contract import Accepted, Contract, Rejected, Skipped
from producer.cursor import Counters, Cursor, RecordedGap
from producer.envelope import Envelope
from producer.metrics import Metrics
from producer.reader import Reader, Received
from producer.sink import TRANSACTION_SECONDS, Record, TransactionalSink
from producer.topics import DLQ_EVENTS, RAW_EVENTS

_LOGGER = logging.getLogger(__name__)

STOP_SECONDS: Final = 10.0
"""After a request to stop the open batch is committed within this time or given up."""

_BATCH_BYTES: Final = 32 * 1024 * 1024
_TAKE: Final = 500
_STATS_SECONDS: Final = 60.0

Outcome = Literal["end", "max-events", "stopped"]


class Stop:
    """A request to end the run, e.g. from a signal handler."""

    def __init__(self) -> None:
        self._at: float | None = None

    def request(self) -> None:
        """Ask; only the first time counts."""
        if self._at is None:
            self._at = time.monotonic()

    @property
    def requested(self) -> bool:
        return self._at is not None

    @property
    def overdue(self) -> bool:
        """The time to commit is over."""
        return self._at is not None and time.monotonic() > self._at + STOP_SECONDS


@dataclass
class _Batch:
    """What the next transaction will hold."""

    opened: float
    records: list[Record] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    gaps: list[RecordedGap] = field(default_factory=list)
    position: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
        outcome: the stream's end, the asked number of events, or a signal.
        run: counters of this run alone.
        cursor: the last committed cursor, with the counters over all runs.
        seconds: duration of the run.
    """

    outcome: Outcome
    run: Counters
    cursor: Cursor
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3),
            "run": self.run.as_dict(),
            "total": self.cursor.counters.as_dict(),
            "position": self.cursor.position,
            "gaps": [gap.as_dict() for gap in self.cursor.gaps],
            "gaps_total": self.cursor.gaps_total,
        }


@dataclass(frozen=True)
class Limits:
    """When a batch is committed and when a run is over.

    Attributes:
        batch_events / batch_seconds: whichever is reached first.
        max_events: the run ends after having committed so many received events; None: no limit.
    """

    batch_events: int
    batch_seconds: float
    max_events: int | None = None


class Pipeline:
    """Connects the parts of one producer.

    Args:
        reader: started by ``run``, behind ``cursor``.
        contract: judges the lines.
        envelope: wraps them.
        sink: commits them.
        cursor: where the source stood at the start.
        metrics: of the process.
        limits: of batches and of the run.
        stop: ends the run from outside.
        now: the clock.
    """

    def __init__(
        self,
        reader: Reader,
        contract: Contract,
        envelope: Envelope,
        sink: TransactionalSink,
        cursor: Cursor,
        metrics: Metrics,
        limits: Limits,
        stop: Stop,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reader = reader
        self._contract = contract
        self._envelope = envelope
        self._sink = sink
        self._cursor = cursor
        self._metrics = metrics
        self._limits = limits
        self._stop = stop
        self._now = now
        self._run = Counters()
        self._batch = _Batch(0.0)

    def run(self) -> Report:
        """Read until the end, the limit, or a stop. What was received and not committed is read again by the next run.

        Raises:
            ProducerError: reading or committing failed for good; committed batches stay.
        """
        began = logged = time.monotonic()
        self._reader.start()
        try:
            while (outcome := self._outcome()) is None:
                self._read()
                if time.monotonic() - logged >= _STATS_SECONDS:
                    logged = time.monotonic()
                    self._log_stats()
            self._commit()
        finally:
            self._reader.stop()
            self._log_stats()
        return Report(outcome, self._run, self._cursor, time.monotonic() - began)

    def _outcome(self) -> Outcome | None:
        if self._stop.requested:
            return "stopped"
        if self._room() == 0:
            return "max-events"
        if self._reader.ended:
            self._commit()
            if self._reader.failure:
                raise self._reader.failure
            return "end"
        return None

    def _room(self) -> int:
        """How many events may still be received before the batch or the run is full."""
        left = self._limits.batch_events - self._batch.counters.received
        if self._limits.max_events is not None:
            left = min(left, self._limits.max_events - self._run.received - self._batch.counters.received)
        return left

    def _read(self) -> None:
        """Take what is there, and commit when it is time."""
        age = time.monotonic() - self._batch.opened if self._batch.position else 0.0
        for received in self._reader.take(min(_TAKE, self._room()), max(0.0, self._limits.batch_seconds - age)):
            self._add(received)
        batch = self._batch
        full = self._room() <= 0 or batch.bytes >= _BATCH_BYTES
        if batch.position and (full or time.monotonic() - batch.opened >= self._limits.batch_seconds):
            self._commit()

    def _add(self, received: Received) -> None:
        batch = self._batch
        if not batch.position:
            batch.opened = time.monotonic()
        batch.position = received.event_id
        batch.counters.received += 1
        if received.gap:
            batch.gaps.append(RecordedGap(received.gap, self._now().isoformat(timespec="seconds")))
        verdict = self._contract.judge(received.data if received.original is None else received.original)
        if isinstance(verdict, Accepted):
            batch.counters.accepted += 1
            value = self._envelope.event_value(verdict.event_id, received.data)
            batch.records.append(Record(RAW_EVENTS, verdict.event_id.encode(), value))
            batch.bytes += len(value)
        elif isinstance(verdict, Rejected):
            self._reject(verdict, received)
        elif verdict is Skipped.CANARY:
            batch.counters.canary += 1
        else:
            batch.counters.filtered += 1

    def _reject(self, verdict: Rejected, received: Received) -> None:
        batch = self._batch
        batch.counters.dead_lettered[verdict.reason.value] += 1
        original = received.data.encode() if received.original is None else received.original
        value = self._envelope.rejected_value(verdict, original)
        batch.records.append(Record(DLQ_EVENTS, None, value))
        batch.bytes += len(value)

    def _commit(self) -> None:
        batch = self._batch
        if not batch.position:
            return
        give_up = time.monotonic() + TRANSACTION_SECONDS
        cursor = self._cursor.advanced(
            batch.position, batch.counters, tuple(batch.gaps), self._now().isoformat(timespec="milliseconds")
        )
        self._sink.commit(batch.records, cursor, lambda: time.monotonic() > give_up or self._stop.overdue)
        self._cursor = cursor
        self._run += batch.counters
        self._metrics.committed(batch.counters, len(batch.gaps), (len(record.value) for record in batch.records))
        self._metrics.connection_state(self._reader.connections, self._sink.aborted)
        self._batch = _Batch(0.0)

    def _log_stats(self) -> None:
        run = self._run
        _LOGGER.info(
            "received %d, accepted %d, filtered %d, canaries %d, dead letters %d; in all runs received %d, gaps %d",
            run.received,
            run.accepted,
            run.filtered,
            run.canary,
            run.dead_lettered.total(),
            self._cursor.counters.received,
            self._cursor.gaps_total,
        )
