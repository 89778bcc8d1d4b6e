"""How long an event is under way: from when it is sent to when it is seen in Bronze, and past all gates in Gold.

Sent is an event when its ``meta.dt`` says; seen in Bronze when its snapshot is committed; seen in Gold when the step that
published it has told Dagster so, which is a moment later than readers could see it.
"""

import bisect
import statistics
from collections.abc import Iterable
from typing import Final

from wikistream_assets.components.events import asset_key
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.lake.query import query
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS

WARM_UP_SECONDS: Final = 60.0
"""What is sent so soon after the first batch is not looked at: Spark is still compiling."""


class Observer:
    """Remembers commits, of which maintenance keeps but the newest: to be called at least every minute."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lake = local_lake(settings)
        self._snapshots: dict[float, int] = {}
        self._bronze_of: dict[int, int] = {}
        self._silver_of: dict[int, int] = {}

    def look(self) -> None:
        """Take note of Bronze's batches with rows, and of what Silver and Gold were made from, since the last look."""
        for version in self._lake.state(RAW_EVENTS).history():
            if version.position is not None and version.added_records:
                self._snapshots[version.timestamp_ms / 1000] = version.snapshot_id
        for version in self._lake.state(CLEANED_EVENTS).history():
            if version.position is not None:
                self._bronze_of[version.snapshot_id] = version.position[RAW_EVENTS.identifier]
        for version in self._lake.state(HOURLY_STATS).history():
            if version.position is not None:
                self._silver_of[version.snapshot_id] = version.position[CLEANED_EVENTS.identifier]

    def bronze_lags(self) -> list[float]:
        """Seconds from sent to seen in Bronze, of every event after the warm-up."""
        events = self._events()
        commits = self._commits()  # after the events, so that the commit of each of them is among them
        return [commits[_batch(commits, began)] - sent for sent, began in events]

    def gold_lags(self) -> list[float]:
        """Seconds from sent to seen in Gold, of every event after the warm-up that Gold has published by now."""
        events = self._events()
        commits = self._commits()
        order = {self._snapshots[commit]: number for number, commit in enumerate(commits)}
        covered = sorted((order[bronze], told) for bronze, told in self._published() if bronze in order)
        numbers = [number for number, _ in covered]
        lags = []
        for sent, began in events:
            at = bisect.bisect_left(numbers, _batch(commits, began))
            if at < len(covered):
                lags.append(covered[at][1] - sent)
        return lags

    def _commits(self) -> list[float]:
        self.look()
        return sorted(self._snapshots)

    def _events(self) -> list[tuple[float, float]]:
        """(sent, start of its batch) of each event after the warm-up, seconds since 1970."""
        sent = "epoch(cast(json_extract_string(payload, '$.meta.dt') as timestamptz))"
        sql = f"select {sent}, epoch(bronze_processed_at) from bronze.raw_events"  # noqa: S608
        rows = list(query(self._lake, sql).rows)
        begin = min(began for _, began in rows) + WARM_UP_SECONDS
        return [(at, began) for at, began in rows if at >= begin]

    def _published(self) -> Iterable[tuple[int | None, float]]:
        """(snapshot of Bronze, when Gold made from it was told to Dagster) of each publication."""
        with dagster_instance(self._settings) as instance:
            records = instance.fetch_materializations(asset_key(HOURLY_STATS), limit=5_000).records
        for record in records:
            if record.asset_materialization is not None:
                gold = int(str(record.asset_materialization.metadata["snapshot"].value))
                yield self._bronze_of.get(self._silver_of.get(gold, 0)), record.timestamp


def percentiles(lags: Iterable[float]) -> dict[str, float]:
    """The 50th, 95th and 99th of them."""
    cuts = statistics.quantiles(lags, n=100)
    return {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)}


def _batch(commits: list[float], began: float) -> int:
    """Number of the batch that began then: it is committed some time later, and before the next one begins."""
    return bisect.bisect_left(commits, began)
