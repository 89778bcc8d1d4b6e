"""One micro-batch into Bronze: events, dead letters, position and counts, so that any crash leaves all of it or none.

The position in Bronze's newest snapshot is the only truth about what has been consumed. Everything a batch decides follows from
it and from the table itself; there is no other state.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import add, or_
from typing import Final

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as sf

from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.failpoints import (
    BRONZE_AFTER_CHECKPOINT,
    BRONZE_AFTER_COMMIT,
    BRONZE_AFTER_DEAD_LETTERS,
    BRONZE_AFTER_OFFSETS,
    BRONZE_BEFORE_COMMIT,
    BRONZE_ON_BRANCH,
    failpoint,
)
from wikistream_assets.engine.fence import FencedTable
from wikistream_assets.engine.stream_metrics import AGE_BOUNDS, AgeGroup, StreamMetrics, quantile
from wikistream_assets.kafka.broker import Positions
from wikistream_assets.lake.spark_io import read_table
from wikistream_assets.lake.state import Version, summary_properties
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets.transforms.kafka import at_places, first_places, from_position

_MANY_HOURS: Final = 200

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What became of records: ``records = rows + dead_letters + duplicates``."""

    records: int = 0
    rows: int = 0
    dead_letters: int = 0
    duplicates: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            *(mine + theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True))
        )

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            *(mine - theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True))
        )

    @classmethod
    def total_of(cls, version: Version | None) -> "Counts":
        """The running totals as of ``version`` of Bronze; zero before the first batch."""
        return cls(**version.counts["total"]) if version is not None and version.counts is not None else cls()


@dataclass(frozen=True)
class _Found:
    """What a batch holds, counted by one small aggregation over it.

    Attributes:
        records / letters: records of the batch; those of them that are no events.
        next_letter_offsets: the offset after the last dead letter, by topic and partition.
        spans: earliest and latest time of the events of each (event_date, event_hour), microseconds since 1970.
        ages: of the events when the batch began.
    """

    records: int = 0
    letters: int = 0
    next_letter_offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    spans: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    ages: tuple[AgeGroup, ...] = ()


class BatchWriter:
    """Writes the batches of one stream. Whoever makes one holds Bronze's writer lock: it spares the work of a second writer."""

    def __init__(self, ctx: JobContext) -> None:
        self._ingest = ingest = ctx.stream.ingest
        self._events, self._letters = FencedTable(ctx.lake, ingest.table), FencedTable(ctx.lake, ingest.dead_letters)
        self._total = Counts.total_of(ctx.lake.state(ingest.table).newest_position())
        self._written = Counts()
        self.metrics = StreamMetrics()
        self._settings = ctx.settings
        self._run_id = ctx.run_id
        self._started = time.monotonic()
        self._busy = threading.Lock()
        self._closed = False
        self.error: Exception | None = None

    @property
    def position(self) -> Positions:
        """How far Bronze has consumed."""
        return self._events.position

    def write(self, parsed: DataFrame, batch_id: int, ends: Positions) -> None:
        """Consume one batch; called by Structured Streaming on a thread of its own.

        Args:
            parsed: what ``Ingest.parse`` made of the batch's records.
            batch_id: number of the batch within the query.
            ends: next offset to read after the batch, of every partition. It is not always that after the last record: aborted
                ones and markers may follow. No reader gets to see them, and they must not count as expired unread a week later.
        """
        with self._busy:
            # A batch passed over here is not lost: the checkpoint that now takes it for done is thrown away at the next start.
            if self._closed:
                return
            try:
                self._write(parsed, batch_id, ends)
            except Exception as error:
                self.error = error
                raise

    def close(self) -> None:
        """Wait for the batch that is being written, and write none after it."""
        self._closed = True
        with self._busy:
            pass

    def _write(self, parsed: DataFrame, batch_id: int, ends: Positions) -> None:
        if batch_id > 0:
            failpoint(self._settings, BRONZE_AFTER_CHECKPOINT)
        failpoint(self._settings, BRONZE_AFTER_OFFSETS)
        started = time.monotonic()
        cores = parsed.sparkSession.sparkContext.defaultParallelism
        fresh = self._ingest.stamp(from_position(parsed, self.position).coalesce(cores), datetime.now(UTC))
        fresh.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            found = _find(fresh)
            if found.records:
                self._commit(fresh, found, ends, started)
        finally:
            fresh.unpersist()

    def _commit(self, parsed: DataFrame, found: _Found, position: Positions, started: float) -> None:
        places = first_places(parsed, _known_ids(self._ingest.table, parsed, found.spans)).persist(
            StorageLevel.MEMORY_AND_DISK
        )
        try:
            rows = places.count()
            batch = Counts(found.records, rows, found.letters, found.records - found.letters - rows)
            total = self._total + batch
            milliseconds = round((time.monotonic() - started) * 1000)  # up to here: what follows is the writing of this
            counts = {
                "batch": asdict(batch),
                "total": asdict(total),
                "milliseconds": milliseconds,
                "lag_ms": _lag(found.ages, milliseconds),
            }
            properties = summary_properties(position, counts, run_id=self._run_id)
            self._append_letters(parsed, found, position, properties)
            failpoint(self._settings, BRONZE_BEFORE_COMMIT)
            self._events.append(
                at_places(parsed, places, self._ingest.table.column_names),
                position,
                properties,
                amid=lambda: failpoint(self._settings, BRONZE_ON_BRANCH),
            )
            failpoint(self._settings, BRONZE_AFTER_COMMIT)
        finally:
            places.unpersist()
        self._total, self._written = total, self._written + batch
        spent = time.monotonic() - started
        self.metrics.committed(asdict(batch), spent, [group.later(spent) for group in found.ages])
        seconds = time.monotonic() - self._started
        _log.info(
            "bronze: %d records so far, %d rows, %d dead letters, %d duplicates; %.0f records/s",
            *asdict(self._written).values(),
            self._written.records / seconds,
        )

    def _append_letters(
        self, parsed: DataFrame, found: _Found, position: Positions, properties: Mapping[str, str]
    ) -> None:
        # After a crash between the two commits the letters of this range are there already, and must not be written again.
        known = self._letters.position
        if any(
            next_offset > known.get(topic, {}).get(str(number), 0)
            for (topic, number), next_offset in found.next_letter_offsets.items()
        ):
            letters = self._ingest.letters(parsed)
            self._letters.append(from_position(letters, known), position, properties)
        failpoint(self._settings, BRONZE_AFTER_DEAD_LETTERS)


def _find(parsed: DataFrame) -> _Found:
    is_letter = sf.col("reason").isNotNull()
    age = sf.col("bronze_processed_at").cast("double") - sf.col("event_timestamp").cast("double")
    age_class = reduce(add, ((age > bound).cast("int") for bound in AGE_BOUNDS))
    keys = ("kafka_topic", "kafka_partition", "event_date", "event_hour")
    groups = (
        parsed.groupBy(*keys, is_letter.alias("is_letter"), age_class.alias("age_class"))
        .agg(
            sf.count("*").alias("records"),
            sf.max("kafka_offset").alias("last"),
            sf.avg(age).alias("age"),
            sf.min(sf.unix_micros("event_timestamp")).alias("earliest"),
            sf.max(sf.unix_micros("event_timestamp")).alias("latest"),
        )
        .collect()
    )
    letters = [group for group in groups if group["is_letter"]]
    events = [group for group in groups if not group["is_letter"]]
    return _Found(
        records=sum(group["records"] for group in groups),
        letters=sum(group["records"] for group in letters),
        next_letter_offsets=_next_offsets(letters),
        spans=_spans(events),
        ages=tuple(AgeGroup(group["records"], group["age"]) for group in events),
    )


def _lag(ages: Sequence[AgeGroup], milliseconds: int) -> dict[str, int]:
    """Percentiles of the time from the events to the point ``milliseconds`` after the batch's start; empty without events."""
    found = {f"p{percent}": quantile(ages, percent / 100) for percent in (0, 50, 95, 99)}
    return {name: round(seconds * 1000) + milliseconds for name, seconds in found.items() if seconds is not None}


def _next_offsets(groups: Iterable[Row]) -> dict[tuple[str, int], int]:
    offsets: dict[tuple[str, int], int] = {}
    for group in groups:
        place = (group["kafka_topic"], group["kafka_partition"])
        offsets[place] = max(offsets.get(place, 0), group["last"] + 1)
    return offsets


def _spans(groups: Iterable[Row]) -> dict[tuple[str, int], tuple[int, int]]:
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for group in groups:
        hour, earliest, latest = (group["event_date"], group["event_hour"]), group["earliest"], group["latest"]
        before = spans.get(hour, (earliest, latest))
        spans[hour] = (min(before[0], earliest), max(before[1], latest))
    return spans


def _known_ids(spec: TableSpec, parsed: DataFrame, spans: Mapping[tuple[str, int], tuple[int, int]]) -> DataFrame:
    """The ids that ``spec`` holds of the times that ``parsed`` touches: an event that comes again has the time it had before.

    The hours are partitions. Within one, Iceberg leaves out by their metrics the files of other times, which are nearly all of
    them in a live stream: else each batch would open every small file of the hour.
    """
    event_time = sf.col("event_timestamp")
    touched: list[Column] = [
        (sf.col("event_date") == date)
        & (sf.col("event_hour") == hour)
        & event_time.between(sf.timestamp_micros(sf.lit(earliest)), sf.timestamp_micros(sf.lit(latest)))
        for (date, hour), (earliest, latest) in sorted(spans.items())
    ]
    if len(touched) > _MANY_HOURS:  # of a hostile source: Spark would not survive an expression of thousands
        touched = [sf.col("event_date").between(min(spans)[0], max(spans)[0])]
    return read_table(parsed.sparkSession, spec).where(reduce(or_, touched, sf.lit(False))).select("event_id")
