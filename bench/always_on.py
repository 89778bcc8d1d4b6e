"""The running pipeline: how soon an event is seen in Bronze and in Gold, and how soon each part is back after ``kill -9``.

The pipeline is started as ``make up`` starts it, on the synthetic source in the time of the clock. Sent is an event when its
``meta.dt`` says; seen in Bronze when its snapshot is committed; seen in Gold when the step that published it has told Dagster so,
which is a moment later than readers could see it. ``python -m bench.always_on [--minutes M] [--rate R] [--kills N]``.
"""

import argparse
import bisect
import json
import os
import signal
import statistics
import time
from collections.abc import Iterable
from typing import Any, Final

from bench.pipeline import pipeline, sleep_until
from wikistream_assets.asset_factory import asset_key
from wikistream_assets.dagster_home import dagster_instance
from wikistream_assets.embedded import services
from wikistream_assets.resources.lakehouse import Lakehouse
from wikistream_assets.resources.query import query
from wikistream_assets.settings import Settings
from wikistream_assets.tables import CLEANED_EVENTS, HOURLY_STATS, RAW_EVENTS

WANTED: Final = {"bronze_paused": 3.0, "bronze_cycling": 6.0, "gold_cycling": 90.0}
"""p95 from sent to seen, seconds."""

RECOVERY_WANTED: Final = {"producer": 3.0, "stream": 30.0, "broker": 20.0}
"""From ``kill -9`` to the first new commit of Bronze, seconds."""

_WARM_UP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2


def run(minutes: float = 30.0, rate: float = 50.0, kills: int = 5) -> dict[str, Any]:
    """Measure ``minutes`` with cycles paused, as long with cycles back to back, then the recoveries; print a table."""
    figures: dict[str, Any] = {"bench": "always_on", "minutes": minutes, "events_per_second": rate}
    with pipeline(rate, cycle_first_seconds=86_400) as settings:
        sleep_until(time.monotonic() + _WARM_UP_SECONDS + 60 * minutes, "cycles paused")
        figures["bronze_paused"] = _percentiles(_bronze_lags(settings))
        figures["recovery"] = {name: _recoveries(settings, name, kills) for name in RECOVERY_WANTED}
    with pipeline(rate, cycle_first_seconds=0, cycle_pause_seconds=0) as settings:
        sleep_until(time.monotonic() + _WARM_UP_SECONDS + 60 * minutes, "cycles back to back")
        figures["bronze_cycling"] = _percentiles(_bronze_lags(settings))
        figures["gold_cycling"] = _percentiles(_gold_lags(settings))
    for name, wanted in WANTED.items():
        print(f"{name:15} p50 {figures[name]['p50']:6.1f} s  p95 {figures[name]['p95']:6.1f} s (at most {wanted:g})")
    for name, wanted in RECOVERY_WANTED.items():
        seconds = figures["recovery"][name]
        print(
            f"recovery {name:9} median {statistics.median(seconds):5.1f} s  most {max(seconds):5.1f} s (at most {wanted:g})"
        )
    return figures


def _batches(settings: Settings) -> tuple[list[float], dict[float, int]]:
    """When each batch with rows was committed, in order of time, and the snapshot it made; seconds since 1970."""
    versions = [v for v in Lakehouse.local(settings).history(RAW_EVENTS) if v.position is not None and v.added_records]
    commits = {version.timestamp_ms / 1000: version.snapshot_id for version in versions}
    return sorted(commits), commits


def _events(settings: Settings) -> list[tuple[float, float]]:
    """(sent, start of its batch) of each event after the warm-up, seconds since 1970."""
    sent = "epoch(cast(json_extract_string(payload, '$.meta.dt') as timestamptz))"
    sql = f"select {sent}, epoch(bronze_processed_at) from bronze.raw_events"  # noqa: S608
    rows = list(query(Lakehouse.local(settings), sql).rows)
    begin = min(batch for _, batch in rows) + _WARM_UP_SECONDS
    return [(at, batch) for at, batch in rows if at >= begin]


def _bronze_lags(settings: Settings) -> list[float]:
    events = _events(settings)
    commits, _ = _batches(settings)  # after the events, so that the commit of each of them is among them
    # a batch is committed some time after it began and before the next one begins
    return [commits[bisect.bisect_left(commits, batch)] - sent for sent, batch in events]


def _gold_lags(settings: Settings) -> list[float]:
    """From sent to seen in Gold, of the events that Gold had published before the pipeline was stopped."""
    lake = Lakehouse.local(settings)
    events = _events(settings)
    commits, snapshot_of = _batches(settings)
    order = {snapshot_of[commit]: number for number, commit in enumerate(commits)}
    bronze_of = {v.snapshot_id: v.position[RAW_EVENTS.identifier] for v in lake.history(CLEANED_EVENTS) if v.position}
    with dagster_instance(settings) as instance:
        records = instance.fetch_materializations(asset_key(HOURLY_STATS), limit=5_000).records
    published: dict[str, float] = {}
    for record in records:  # newest first: what stays is the first time the snapshot was told
        if record.asset_materialization is not None:
            published[str(record.asset_materialization.metadata["snapshot"].value)] = record.timestamp
    covered: list[tuple[int, float]] = []
    for version in lake.history(HOURLY_STATS):
        told = published.get(str(version.snapshot_id))
        bronze = bronze_of.get(version.position[CLEANED_EVENTS.identifier]) if version.position else None
        if told is not None and bronze in order:
            covered.append((order[bronze], told))
    covered.sort()
    numbers = [number for number, _ in covered]
    lags = []
    for sent, batch in events:
        at = bisect.bisect_left(numbers, bisect.bisect_left(commits, batch))
        if at < len(covered):
            lags.append(covered[at][1] - sent)
    return lags


def _recoveries(settings: Settings, name: str, kills: int) -> list[float]:
    """Seconds from ``kill -9`` of a program to Bronze's next commit of rows, each time."""
    seconds = []
    for _ in range(kills):
        # who dies again before it has settled is taken for one that cannot start, and is given a pause
        while (service := _service(settings, name)).state != "RUNNING":
            time.sleep(_POLL_SECONDS)
        _next_commit(settings, time.time())  # it works
        killed = time.time()
        os.kill(int(service.pid or 0), signal.SIGKILL)
        # what the stream had in hand when the producer or the broker died is no recovery
        seconds.append(_next_commit(settings, killed + (1.5 if name != "stream" else 0)) - killed)
    return seconds


def _service(settings: Settings, name: str) -> services.ServiceStatus:
    return next(service for service in services.status(settings) if service.name == name)


def _next_commit(settings: Settings, after: float) -> float:
    while True:
        commits, _ = _batches(settings)
        later = [commit for commit in commits if commit > after]
        if later:
            return later[0]
        time.sleep(_POLL_SECONDS)


def _percentiles(lags: Iterable[float]) -> dict[str, float]:
    cuts = statistics.quantiles(lags, n=100)
    return {"p50": round(cuts[49], 2), "p95": round(cuts[94], 2), "p99": round(cuts[98], 2)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.always_on", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each of the two phases")
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--kills", type=int, default=5, help="of each program")
    options = parser.parse_args()
    print(json.dumps(run(options.minutes, options.rate, options.kills)))


if __name__ == "__main__":
    main()
