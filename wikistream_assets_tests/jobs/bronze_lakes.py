"""Looking at Bronze from outside, through PyIceberg, and running its job as a process of its own."""

import os
import subprocess
import sys
from collections import Counter
from typing import Any

from wikistream_assets.resources.lakehouse import Lakehouse, Version
from wikistream_assets.settings import Settings
from wikistream_assets.tables import DEAD_LETTER, RAW_EVENTS, TableSpec
from wikistream_assets_tests.conftest import child_environment


def table_rows(lake: Lakehouse, spec: TableSpec, *columns: str) -> list[dict[str, Any]]:
    """The table's rows as dicts, read without Spark."""
    rows: list[dict[str, Any]] = lake.table(spec).scan(selected_fields=columns or ("*",)).to_arrow().to_pylist()
    return rows


def event_ids(lake: Lakehouse) -> list[str]:
    """Bronze's event ids, sorted; a doubled one occurs twice."""
    return sorted(row["event_id"] for row in table_rows(lake, RAW_EVENTS, "event_id"))


def batches(lake: Lakehouse) -> list[Version]:
    """Bronze's snapshots that carry a position, oldest first."""
    return [version for version in lake.history(RAW_EVENTS) if version.position is not None][::-1]


def totals(lake: Lakehouse) -> dict[str, int]:
    """The running totals of Bronze's newest position."""
    newest = lake.newest_position(RAW_EVENTS)
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


def start_stream(settings: Settings, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the job as the process that production runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "wikistream_assets.jobs.bronze_stream", *arguments],
        env={**os.environ, **child_environment(settings), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
