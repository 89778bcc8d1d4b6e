"""Bronze drain with all its guarantees against a plain loader without any, from the same topic into the same table.

Both sides run in processes of their own, in turn, each into a new lake; the clock starts when the process is ready (JVM started,
imports done) and stops when the last row is committed. ``python -m bench.bronze [--quick]``.
"""

import argparse
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from producer.contract import Accepted, Contract, Rejected
from producer.envelope import Envelope
from producer.eventstreams.generator import Generator
from producer.topics import DLQ_EVENTS
from producer.topics import RAW_EVENTS as RAW_TOPIC
from wikistream_assets.embedded import services
from wikistream_assets.embedded.home import open_home
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import RAW_EVENTS

RATIO_WANTED: Final = 0.2
RSS_ALLOWED_MB: Final = 3 * 1024

_LOADER_BATCH: Final = 100_000
_SIDES: Final = ("loader", "bronze")
_SAMPLE_SECONDS: Final = 0.1

_ENVELOPE: Final = pa.schema(
    [
        ("data", pa.string()),
        ("_processing", pa.struct([("ingested_at", pa.string()), ("source_mode", pa.string())])),
    ]
)
_LENGTHS: Final = pa.struct([("old", pa.int32()), ("new", pa.int32())])
_REVISIONS: Final = pa.struct([("old", pa.int64()), ("new", pa.int64())])
_EVENT: Final = pa.schema(
    [
        ("meta", pa.struct([("id", pa.string()), ("domain", pa.string())])),
        ("$schema", pa.string()),
        ("id", pa.int64()),
        ("type", pa.string()),
        ("namespace", pa.int32()),
        *((name, pa.string()) for name in ("title", "title_url", "user", "comment", "wiki", "server_name")),
        ("bot", pa.bool_()),
        ("timestamp", pa.int64()),
        ("length", _LENGTHS),
        ("revision", _REVISIONS),
    ]
)
_NUMERIC_TYPE: Final = re.compile(rb'"type": ?(\d+)')


def run(rounds: int = 5, events: int = 1_000_000) -> dict[str, Any]:
    """Fill a topic once, then drain it ``rounds`` times by each side in turn; print a table.

    Returns:
        Medians in events per second, their ratio, and the peak resident memory of Bronze's JVM in MiB.
    """
    with _broker() as settings:
        started = time.monotonic()
        produced = fill(settings, events)
        print(f"{produced} records from {events} synthetic lines in {time.monotonic() - started:.0f} s", flush=True)
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in _SIDES}
        for number in range(rounds):
            for side in _SIDES:
                result = _measure(side, settings)
                results[side].append(result)
                rate = result["records"] / result["seconds"]
                print(
                    f"round {number + 1} {side:7} {result['records']:>9} records {rate:>8.0f}/s {result['rss_mb']:>6} MiB",
                    flush=True,
                )
    rates = {side: statistics.median(r["records"] / r["seconds"] for r in of_side) for side, of_side in results.items()}
    summary = {
        "bench": "bronze",
        "events": events,
        "rounds": rounds,
        "loader_per_second": round(rates["loader"]),
        "bronze_per_second": round(rates["bronze"]),
        "ratio": round(rates["bronze"] / rates["loader"], 3),
        "ratio_wanted": RATIO_WANTED,
        "peak_rss_mb": max(result["rss_mb"] for result in results["bronze"]),
        "rss_allowed_mb": RSS_ALLOWED_MB,
    }
    print(
        f"\nplain loader {summary['loader_per_second']}/s   bronze {summary['bronze_per_second']}/s   "
        f"ratio {summary['ratio']} (at least {RATIO_WANTED})   peak {summary['peak_rss_mb']} MiB (at most {RSS_ALLOWED_MB})"
    )
    return summary


@contextmanager
def _broker() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="wikistream-bench-") as folder:
        settings = Settings(home=Path(folder) / "home", kafka_port=19892, kafka_controller_port=19893)
        try:
            services.up(settings)
            Broker(settings.bootstrap_servers).ensure_topics(settings)
            yield settings
        finally:
            services.down(settings)


def fill(settings: Settings, events: int) -> int:
    """Write the generator's events as the producer would, without its network; returns the number of records."""
    wrap, contract = Envelope("local", "bench", "synthetic"), Contract(None, settings.max_event_bytes)
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "transactional.id": "bench",
            "compression.type": "zstd",
            "linger.ms": 50,
            "batch.size": 1024 * 1024,
            "message.max.bytes": 20_000_000,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    produced = 0
    for line in Generator(events=events).lines():
        verdict = contract.judge(line.data)
        if isinstance(verdict, Accepted):
            producer.produce(RAW_TOPIC, wrap.event_value(verdict.event_id, line.data.decode()), verdict.event_id)
        elif isinstance(verdict, Rejected):
            producer.produce(DLQ_EVENTS, wrap.rejected_value(verdict, line.data))
        else:
            continue
        produced += 1
        if produced % 5_000 == 0:
            producer.commit_transaction()
            producer.begin_transaction()
    producer.commit_transaction()
    return produced


def _measure(side: str, broker_settings: Settings) -> dict[str, Any]:
    home = broker_settings.root.parent / side
    shutil.rmtree(home, ignore_errors=True)
    environment = {
        **os.environ,
        "WIKISTREAM_HOME": str(home),
        "WIKISTREAM_BOOTSTRAP_SERVERS": broker_settings.bootstrap_servers,
    }
    command = [sys.executable, "-m", "bench.bronze", "--side", side]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        peak = _PeakMemory(process.pid)
        output, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {**json.loads(output.splitlines()[-1]), "rss_mb": peak.stop() // 2**20}


class _PeakMemory:
    """Peak resident memory of the largest process under ``pid``: Bronze's JVM, or the loader itself; bytes."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            try:
                family = [self._root, *self._root.children(recursive=True)]
                self._peak = max(self._peak, *(member.memory_info().rss for member in family))
            except psutil.Error:
                continue

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._peak


# --- the two sides, each in its own process ---------------------------------------------------------------------------------


def _bronze(settings: Settings) -> dict[str, Any]:
    from wikistream_assets.engine.context import JobContext
    from wikistream_assets.engine.ingest import drain
    from wikistream_assets.environment.local import LocalEnvironment

    environment = LocalEnvironment(settings)
    ctx = JobContext(environment, "bench", EDITS)
    environment.spark(lasting=True)
    assert ctx.lake.state(RAW_EVENTS).position == {}
    started = time.monotonic()
    report = drain(ctx)
    return {**asdict(report), "seconds": time.monotonic() - started}


def _loader(settings: Settings) -> dict[str, Any]:
    """The plain loader: consume, parse with Arrow, append with PyIceberg; no deduplication, no dead letters, no position."""
    table = local_lake(settings).table(RAW_EVENTS)
    ends = {number: high for number, (_, high) in Broker(settings.bootstrap_servers).offsets(RAW_TOPIC).items()}
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "bench-loader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "queued.min.messages": 200_000,
            "fetch.queue.backoff.ms": 5,
        }
    )
    started = time.monotonic()
    consumer.assign([TopicPartition(RAW_TOPIC, number, 0) for number in ends])
    records = 0
    with ThreadPoolExecutor(1) as appender:  # one append overlaps with consuming the next batch
        appending = None
        for batch in _batches(consumer, ends):
            rows = _flat(batch)
            if appending:
                appending.result()
            appending = appender.submit(table.append, rows)
            records += len(batch)
        if appending:
            appending.result()
    return {"records": records, "seconds": time.monotonic() - started}


def _batches(consumer: Consumer, ends: dict[int, int]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    while any(p.offset < ends[p.partition] for p in _positions(consumer, ends)):
        batch += [message for message in consumer.consume(10_000, 0.2) if message.error() is None]
        if len(batch) >= _LOADER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _positions(consumer: Consumer, ends: dict[int, int]) -> list[TopicPartition]:
    return consumer.position([TopicPartition(RAW_TOPIC, number) for number in ends])


def _read_json(lines: list[bytes], schema: pa.Schema) -> pa.Table:
    return pj.read_json(
        io.BytesIO(b"\n".join(lines)),
        read_options=pj.ReadOptions(use_threads=True, block_size=8 << 20),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _flat(batch: list[Message]) -> pa.Table:
    envelope = _read_json([message.value() or b"{}" for message in batch], _ENVELOPE)
    payload = envelope["data"]
    text = [_NUMERIC_TYPE.sub(rb'"type":"\1"', value.encode()) for value in payload.to_pylist()]
    event = _read_json(text, _EVENT)

    def of(struct: str, field: str) -> pa.ChunkedArray:
        return pc.struct_field(event[struct], field)

    micros = pc.multiply(event["timestamp"], 1_000_000)
    happened = pc.cast(pc.cast(micros, pa.timestamp("us")), pa.timestamp("us", "UTC"))
    processing = envelope["_processing"]
    ingested = pc.strptime(
        pc.utf8_slice_codeunits(pc.struct_field(processing, "ingested_at"), 0, 19), "%Y-%m-%dT%H:%M:%S", "us"
    )
    columns = {
        "event_id": of("meta", "id"),
        "kafka_topic": pa.array([RAW_TOPIC] * len(batch)),
        "kafka_partition": pa.array([message.partition() for message in batch], pa.int32()),
        "kafka_offset": pa.array([message.offset() for message in batch], pa.int64()),
        "kafka_timestamp": pa.array([message.timestamp()[1] * 1000 for message in batch], pa.timestamp("us", "UTC")),
        "rc_id": event["id"],
        "event_type": event["type"],
        "domain": of("meta", "domain"),
        "is_bot": event["bot"],
        "length_old": of("length", "old"),
        "length_new": of("length", "new"),
        "length_delta": pc.subtract(of("length", "new"), pc.fill_null(of("length", "old"), 0)),
        "revision_old": of("revision", "old"),
        "revision_new": of("revision", "new"),
        "event_timestamp": happened,
        "producer_ingested_at": pc.cast(ingested, pa.timestamp("us", "UTC")),
        "bronze_processed_at": pa.array([time.time_ns() // 1000] * len(batch), pa.timestamp("us", "UTC")),
        "event_date": pc.strftime(happened, "%Y-%m-%d"),
        "event_hour": pc.cast(pc.hour(happened), pa.int32()),
        "schema_version": event["$schema"],
        "payload": payload,
        "source_mode": pc.struct_field(processing, "source_mode"),
        **{name: event[name] for name in ("namespace", "title", "title_url", "user", "comment", "wiki", "server_name")},
    }
    return pa.table({name: columns[name] for name in RAW_EVENTS.column_names})


def main() -> None:
    """Run the bench, or (in a child process) one of its sides."""
    parser = argparse.ArgumentParser(prog="python -m bench.bronze", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="100,000 events, one round: whether it runs, not how fast it is"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        settings = Settings()
        open_home(settings)
        print(json.dumps((_bronze if options.side == "bronze" else _loader)(settings)))
    else:
        rounds, events = (1, 100_000) if options.quick else (options.rounds, options.events)
        print(json.dumps(run(rounds, events)))


if __name__ == "__main__":
    main()
