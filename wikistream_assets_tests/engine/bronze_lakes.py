"""Looking at Bronze from outside, through PyIceberg, and running its job as a process of its own."""

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import Version
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.tables.spec import TableSpec
from wikistream_assets_tests.conftest import child_environment

PROCESS_SECONDS = 300.0


def table_rows(lake: Lakehouse, spec: TableSpec, *columns: str) -> list[dict[str, Any]]:
    """The table's rows as dicts, read without Spark."""
    rows: list[dict[str, Any]] = lake.table(spec).scan(selected_fields=columns or ("*",)).to_arrow().to_pylist()
    return rows


def event_ids(lake: Lakehouse) -> list[str]:
    """Bronze's event ids, sorted; a doubled one occurs twice."""
    return sorted(row["event_id"] for row in table_rows(lake, RAW_EVENTS, "event_id"))


def batches(lake: Lakehouse) -> list[Version]:
    """Bronze's snapshots that carry a position, oldest first."""
    return [version for version in lake.state(RAW_EVENTS).history() if version.position is not None][::-1]


def totals(lake: Lakehouse) -> dict[str, int]:
    """The running totals of Bronze's newest position."""
    newest = lake.state(RAW_EVENTS).newest_position()
    assert newest is not None
    assert newest.counts is not None
    return dict(newest.counts["total"])


def assert_sound(lake: Lakehouse) -> None:
    """Every record counted once, in the summaries and in the tables alike."""
    counts = [version.counts for version in batches(lake)]
    summed: Counter[str] = Counter()
    for count in counts:
        assert count is not None
        summed.update(count["batch"])
        assert count["total"] == {name: summed[name] for name in count["total"]}
        batch = count["batch"]
        assert batch["records"] == batch["rows"] + batch["dead_letters"] + batch["duplicates"]
        assert batch["records"] > 0
    places = table_rows(lake, RAW_EVENTS, "kafka_topic", "kafka_partition", "kafka_offset")
    places += table_rows(lake, DEAD_LETTER, "kafka_topic", "kafka_partition", "kafka_offset")
    assert len({tuple(place.values()) for place in places}) == len(places)
    ids = event_ids(lake)
    assert len(set(ids)) == len(ids) == summed["rows"]
    assert len(table_rows(lake, DEAD_LETTER, "kafka_offset")) == summed["dead_letters"]


@dataclass(frozen=True)
class Stream:
    """The job, running as the process that production runs; what it logs goes to a file."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def jvms(self) -> list[psutil.Process]:
        """Its JVM, as long as it has one."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name() == "java"]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(timeout=PROCESS_SECONDS)


@contextmanager
def streaming(settings: Settings, *arguments: str, **environment: str) -> Iterator[Stream]:
    """Run the job; what is still running at the end of the block is killed."""
    log_file = settings.root / "logs" / f"stream-{uuid.uuid4()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wikistream_assets.engine.ingest", "edits", *arguments],
            env={**os.environ, **child_environment(settings), **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield Stream(process, log_file)
    finally:
        process.kill()
        process.wait()
