"""Kafka to Bronze, as one Structured Streaming job: to drain what is there, or to run for ever.

Both ways run the same query and the same batches (``batch``); they differ in the trigger alone. Exactly one process may
write: it holds the home's lock, and its JVM holds one of its own, because a JVM outlives its killed parent by a moment and may
commit in it. ``python -m wikistream_assets.engine.ingest STREAM [--once]`` is the process of the continuous stream; on SIGTERM it
finishes its batch and exits with 0.

What an earlier run left in Spark's checkpoint is never read: each start takes its place from Bronze's newest position. So it does
not matter whether the checkpoint is there, is behind the table, or belongs to another lake.
"""

import argparse
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from producer.signals import on_stop
from producer.topics import FETCH_WAIT_MS
from wikistream_assets.engine.batch import BatchWriter, Counts
from wikistream_assets.engine.context import JobContext
from wikistream_assets.engine.failpoints import BRONZE_AFTER_CHECKPOINT, failpoint
from wikistream_assets.environment.choice import environment_of
from wikistream_assets.exceptions import BrokerError, ClockBehindError, LakeError, WikistreamError, WriterBusyError
from wikistream_assets.kafka.broker import Broker, Positions
from wikistream_assets.lake.failures import explained
from wikistream_assets.lake.state import TOPICS_KEY, TableState, Version, clock_is_behind
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.declaration import RAW_LAYER
from wikistream_assets.streams.registry import STREAMS

_EARLIEST: Final = -2
"""Kafka source: from the first offset the broker has."""

_KAFKA_LOST: Final = (
    "if Kafka's data is lost, keep the lake: 'wikistream backup FOLDER', then 'wikistream restore FOLDER --home NEW "
    "--kafka-lost'"
)

_POLL_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 3.0
_WAIT_SECONDS: Final = 900.0

_CLOCK: Final = "clock"
_CLOCK_POLL_SECONDS: Final = 2.0
_TELL_AGAIN_SECONDS: Final = 600.0

_MANY_SNAPSHOTS: Final = 5_000
_SNAPSHOTS_PER_SECOND: Final = 500
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LOOK_EVERY_BATCHES: Final = 100

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class DrainReport:
    """What happened to Bronze between the start of a drain and its end.

    Attributes:
        records / rows / dead_letters / duplicates: records consumed, and what became of them.
        batches: snapshots committed meanwhile.
        position: next offsets to read, by topic and partition.
        waited: another process owned the table and did the work.
    """

    records: int
    rows: int
    dead_letters: int
    duplicates: int
    batches: int
    position: Positions
    waited: bool


def drain(ctx: JobContext, *, timeout_seconds: float = _WAIT_SECONDS) -> DrainReport:
    """Bring everything into Bronze that is committed in Kafka now.

    While another process owns the table, waits until that one has come as far; if it goes away before, takes over.

    Args:
        timeout_seconds: how long to wait for another process.

    Raises:
        BrokerError: no broker, no topics, or the broker no longer has what comes next.
        WriterBusyError: another process owns the table and has not come as far in time.
        LakeError: the stream failed.
    """
    broker, lake = ctx.environment.broker(), ctx.lake
    raw, topics = ctx.stream.raw, ctx.stream.ingest.topics
    ends = broker.ends(topics)
    before = lake.state(raw).newest_position()
    deadline = time.monotonic() + timeout_seconds
    pause = threading.Event()
    waited = False
    while True:
        try:
            with ctx.leases.only_run(ctx.spark, raw.identifier):
                _drain(ctx, broker)
            break
        except WriterBusyError as busy:
            waited = True
            if not broker.has_committed_records(lake.state(raw).position, ends):
                break
            if time.monotonic() > deadline:
                raise WriterBusyError(
                    f"waited {timeout_seconds:.0f} s in vain for the stream to catch up: {busy}"
                ) from None
        pause.wait(_POLL_SECONDS)
    return _report(lake.state(raw), before, waited)


def run_forever(ctx: JobContext, stop: threading.Event) -> None:
    """Stream from Kafka into Bronze until ``stop`` is set; the batch at work is finished then.

    Raises:
        WriterBusyError: another process owns the table.
        BrokerError, LakeError: as in ``drain``.
        ConfigurationError: the port of the metrics is taken.
    """
    settings = ctx.settings
    with ctx.leases.only_run(ctx.spark, ctx.stream.raw.identifier):
        writer, pace = BatchWriter(ctx), _Pace(ctx)

        def write(parsed: DataFrame, batch_id: int, ends: Positions) -> None:
            writer.write(parsed, batch_id, ends)
            if stop.wait(pace.pause(batch_id)):
                writer.close()  # else the next batch would begin before the query is stopped

        interval = f"{round(settings.bronze_trigger_seconds * 1000)} milliseconds"
        broker = ctx.environment.broker()
        with (
            writer.metrics.served(settings.stream_metrics_port),
            _running(ctx, broker, writer, write, interval) as query,
        ):
            while query.isActive and not stop.wait(_POLL_SECONDS):
                pass


class _Pace:
    """The pause between two batches while Bronze has very many snapshots.

    While a gate is closed, snapshots that Silver has not read cannot expire, and every commit rewrites the whole snapshot list.
    At its usual pace a stream would choke on them after some days. It slows down instead: its batches get larger, and no event
    waits for long.
    """

    def __init__(self, ctx: JobContext) -> None:
        self._lake, self._raw = ctx.lake, ctx.stream.raw
        self._seconds = 0.0

    def pause(self, batch_id: int) -> float:
        """Seconds to wait after this batch."""
        if self._seconds or batch_id % _LOOK_EVERY_BATCHES == 0:
            before, self._seconds = self._seconds, pause_for(len(self._lake.table(self._raw).metadata.snapshots))
            if bool(before) != bool(self._seconds):
                _log.info("bronze: pauses of %.0f s between batches, for the number of snapshots", self._seconds)
        return self._seconds


def pause_for(snapshots: int) -> float:
    """Seconds between two batches of a table with so many snapshots: 0 up to 5,000, then one for each 500, 30 at most.

    A table that grows by a snapshot a second gets 17,000 in three days then, instead of 260,000. The longest pause is well below
    the times after which Bronze counts as stale or stuck (60 s).
    """
    return min(snapshots / _SNAPSHOTS_PER_SECOND, _LONGEST_PAUSE_SECONDS) if snapshots > _MANY_SNAPSHOTS else 0.0


def starting_offsets(
    position: Positions, offsets: Mapping[str, Mapping[int, tuple[int, int]]]
) -> dict[str, dict[str, int]]:
    """Where to start reading each partition, as Spark's ``startingOffsets`` wants it.

    Args:
        position: next offsets to read; a partition that is not named is read from its beginning.
        offsets: (first offset, offset after the last) of each partition of each topic.

    Raises:
        BrokerError: records between the position and what the broker has are gone, or the topic is another one.
    """
    starts: dict[str, dict[str, int]] = {}
    for topic, partitions in offsets.items():
        starts[topic] = {}
        for number, (low, high) in partitions.items():
            start = position.get(topic, {}).get(str(number), _EARLIEST)
            if start > high:
                raise BrokerError(
                    f"{topic}-{number} ends at offset {high}, Bronze has read up to {start}: the topic was deleted or the broker "
                    f"is another one; set WIKISTREAM_BOOTSTRAP_SERVERS to the right one; {_KAFKA_LOST}"
                )
            # The offset after the last record is often its transaction's marker, which expires with it: that is no loss.
            if start not in (_EARLIEST, low - 1) and start < low:
                raise BrokerError(
                    f"{topic}-{number} begins at offset {low}, Bronze has read up to {start}: up to {low - start} records "
                    f"expired unread; restore the broker's data and raise WIKISTREAM_KAFKA_RETENTION_HOURS; {_KAFKA_LOST}"
                )
            starts[topic][str(number)] = start if start == _EARLIEST else max(start, low)
    return starts


def _refuse_other_topics(ctx: JobContext, broker: Broker, position: Positions) -> None:
    """Refuse topics that were made anew since Bronze read them: its offsets mean nothing there, and records would be passed over.

    Offsets alone show it only as long as the new topic is shorter than the old one was.

    Raises:
        BrokerError: a topic is another one than the one that ``position`` is of.
    """
    raw = ctx.stream.raw
    known: dict[str, str] = json.loads(ctx.lake.table(raw).properties.get(TOPICS_KEY, "{}"))
    ids = broker.topic_ids(ctx.stream.ingest.topics)
    for topic, topic_id in ids.items():
        if any(position.get(topic, {}).values()) and known.get(topic, topic_id) != topic_id:
            raise BrokerError(
                f"topic {topic} is another one than Bronze has read ({topic_id}, not {known[topic]}): it was deleted and made "
                f"anew, or the broker is another one; set WIKISTREAM_BOOTSTRAP_SERVERS to the right one; {_KAFKA_LOST}"
            )
    if known != ids:
        ctx.lake.set_property(raw, TOPICS_KEY, json.dumps(ids))


def _drain(ctx: JobContext, broker: Broker) -> None:
    writer = BatchWriter(ctx)
    with _running(ctx, broker, writer, writer.write, interval=None) as query:
        query.awaitTermination()
    failpoint(ctx.settings, BRONZE_AFTER_CHECKPOINT)


@contextmanager
def _running(
    ctx: JobContext,
    broker: Broker,
    writer: BatchWriter,
    write: Callable[[DataFrame, int, Positions], None],
    interval: str | None,
) -> Iterator[StreamingQuery]:
    """The query from the writer's position on, a batch each ``interval`` or, with None, until nothing is left.

    ``write`` is what is done with a batch: the writer's own, and what else there is to do.

    Leaving the block stops it between two batches.
    """
    spark, settings, ingest = ctx.spark, ctx.settings, ctx.stream.ingest
    checkpoint = settings.checkpoints / ctx.stream.name
    shutil.rmtree(checkpoint, ignore_errors=True)
    offsets = {topic: broker.offsets(topic) for topic in ingest.topics}
    _refuse_other_topics(ctx, broker, writer.position)
    partitions = sum(len(of_topic) for of_topic in offsets.values())
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", ",".join(ingest.topics))
        .option("kafka.isolation.level", "read_committed")
        .option("kafka.fetch.max.wait.ms", FETCH_WAIT_MS)
        .option("startingOffsets", json.dumps(starting_offsets(writer.position, offsets)))
        .option("failOnDataLoss", "true")
        .option("maxOffsetsPerTrigger", settings.bronze_batch_records)
        # Each partition cut into as many parts as there are cores, so that no core waits for another one's partition.
        .option("minPartitions", partitions * spark.sparkContext.defaultParallelism)
        .load()
    )

    def write_batch(parsed: DataFrame, batch_id: int) -> None:
        write(parsed, batch_id, _ends(checkpoint, batch_id))

    stream = ingest.parse(records).writeStream.foreachBatch(write_batch).option("checkpointLocation", str(checkpoint))
    query = (stream.trigger(processingTime=interval) if interval else stream.trigger(availableNow=True)).start()
    try:
        yield query
        if (failure := query.exception()) is not None:
            raise failure
    except StreamingQueryException as error:
        told = writer.error if isinstance(writer.error, WikistreamError) else explained(writer.error or error)
        if told is not None:
            raise told from None
        raise LakeError(
            f"the Bronze stream failed ({_cause(writer.error or error)}); what was committed is whole, start it again to go on"
        ) from error
    finally:
        writer.close()
        query.stop()


def _ends(checkpoint: Path, batch_id: int) -> Positions:
    """Next offsets to read after the batch. Spark writes them down before it runs the batch; of one source, as the last line."""
    ends: Positions = json.loads((checkpoint / "offsets" / str(batch_id)).read_text(encoding="utf-8").splitlines()[-1])
    return ends


def _cause(error: Exception) -> str:
    """The innermost cause, one line: Spark's texts run over pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes[-1] if causes else lines[0] if lines else type(error).__name__)[:300]


def _report(raw: TableState, before: Version | None, waited: bool) -> DrainReport:
    """Read off the table what was committed after ``before``."""
    new: list[Version] = []
    for version in raw.history():
        if before is not None and version.snapshot_id == before.snapshot_id:
            break
        if version.position is not None:
            new.append(version)
    after = new[0] if new else before
    counts = Counts.total_of(after) - Counts.total_of(before)
    return DrainReport(
        records=counts.records,
        rows=counts.rows,
        dead_letters=counts.dead_letters,
        duplicates=counts.duplicates,
        batches=len(new),
        position=(after and after.position) or {},
        waited=waited,
    )


def _stream_in_turn(ctx: JobContext, stop: threading.Event) -> None:
    """Stream whenever nobody else writes Bronze, until told to stop.

    A cycle's drain may take Bronze while the JVM starts, which takes many times as long as the drain: the JVM waits for it. So it
    does for a clock that was set back; the batch that was refused is read again from Bronze's position.
    """
    while _wait_for_turn(ctx, stop):
        ctx.environment.spark(lasting=True)
        try:
            run_forever(ctx, stop)
        except (WriterBusyError, ClockBehindError) as error:
            _log.info("%s", error)


def _wait_for_turn(ctx: JobContext, stop: threading.Event) -> bool:
    """Wait until Bronze can be written: by nobody else, from a broker, by the clock; False if told to stop meanwhile.

    Before the JVM is started: a supervisor would else start one after the other in vain.
    """
    broker = ctx.environment.broker()
    waiting_for, told_at = "", 0.0
    while not stop.is_set():
        reason, detail = _hindrance(ctx, broker)
        if not reason:
            return True
        if reason != waiting_for or time.monotonic() - told_at > _TELL_AGAIN_SECONDS:
            _log.info("waiting: %s", detail)
            told_at = time.monotonic()
        waiting_for = reason
        stop.wait(_CLOCK_POLL_SECONDS if reason == _CLOCK else _POLL_SECONDS)
    return False


def _hindrance(ctx: JobContext, broker: Broker) -> tuple[str, str]:
    """What keeps Bronze from being written, and that in full; both empty if nothing does."""
    raw, dead_letters = ctx.stream.layers[RAW_LAYER]
    if ctx.leases.is_held(raw.identifier):
        return raw.identifier, "another process writes Bronze"
    if behind := clock_is_behind(map(ctx.lake.state, (raw, dead_letters)), datetime.now(UTC)):
        return _CLOCK, behind
    missing = _missing(broker)
    return missing, missing


def _missing(broker: Broker) -> str:
    try:
        broker.wait_ready(_ANSWER_SECONDS)
    except BrokerError as error:
        return str(error)
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the stream as a process of its own; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wikistream_assets.engine.ingest", description=__doc__)
    parser.add_argument("stream", choices=STREAMS, help="the declared stream")
    parser.add_argument("--once", action="store_true", help="bring in what is in Kafka now, then end")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("py4j").setLevel(logging.WARNING)  # it tells of every batch
    stop = threading.Event()
    on_stop(stop.set)
    try:
        environment = environment_of(load_settings())
        if given.once:
            _log.info("bronze: %s", drain(JobContext(environment, "drain", STREAMS[given.stream])))
        else:
            _stream_in_turn(JobContext(environment, "stream", STREAMS[given.stream]), stop)
    except WikistreamError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
