"""The sensor on Bronze: reports every snapshot of the continuous stream to Dagster, and has a stuck stream restarted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Final

import dagster as dg

from producer.cursor import Cursor
from producer.topics import EVENT_TOPICS
from wikistream_assets.alerts import Alert, AlertKind, Alerts, Severity
from wikistream_assets.components.events import asset_key
from wikistream_assets.embedded.source import PipelineSource, chosen_source
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import Version, clock_is_behind
from wikistream_assets.resources.ports import KafkaBroker, Lake, Notifier, StreamSupervisor
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets.streams.edits.tables import DEAD_LETTER, RAW_EVENTS
from wikistream_assets.supervision.stream_control import StreamControl
from wikistream_assets.supervision.stream_watch import (
    Memory,
    Seen,
    Step,
    Verdict,
    judge,
    next_step,
    recovered,
    remember,
    source_is_silent,
    tried,
)

STREAM: Final = "bronze_stream"
"""Subject of the stream's alerts."""

_OLD_MS: Final = 86_400_000
"""A batch whose youngest event is older is a backfill's and makes no table fresh; the events of a capture are all old."""

_MOST_EVENTS: Final = 200
"""Snapshots reported in one tick; the next tick goes on with the rest."""


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="One materialization of Bronze for each snapshot the stream commits; restarts a stream that is stuck.",
)
def bronze_freshness(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[Lake],
    broker: dg.ResourceParam[KafkaBroker],
    stream_control: dg.ResourceParam[StreamSupervisor],
    notifier: dg.ResourceParam[Notifier],
) -> dg.SensorResult:
    memory = Memory.from_json(json.loads(context.cursor)) if context.cursor else Memory()
    lakehouse, settings, control = lake.open(), load_settings(), stream_control.control()
    chosen = chosen_source(settings)
    events, memory = _news(lakehouse, memory, replayed=chosen is not None and not chosen.endless)
    try:
        seen = look(lakehouse, broker.connect(), control, chosen)
    except BrokerError as error:
        # nothing can be said about the stream then: the broker's keeper brings the broker back
        return dg.SensorResult(asset_events=events, cursor=json.dumps(memory.as_json()), skip_reason=str(error))
    if seen.lag and (behind := clock_is_behind(map(lakehouse.state, (RAW_EVENTS, DEAD_LETTER)), datetime.now(UTC))):
        # the stream waits for the clock: neither a restart nor giving up would help
        memory = replace(memory, waiting_on=None, waiting_since=None)
        return dg.SensorResult(asset_events=events, cursor=json.dumps(memory.as_json()), skip_reason=behind)
    memory, told = watch(remember(memory, seen), seen, control, notifier.open(), settings)
    return dg.SensorResult(asset_events=events, cursor=json.dumps(memory.as_json()), skip_reason=told)


def watch(memory: Memory, seen: Seen, control: StreamControl, alerts: Alerts, settings: Settings) -> tuple[Memory, str]:
    """Do what the verdict on the stream asks for.

    Returns:
        What to remember, and one line for the tick.
    """
    verdict = judge(memory, seen, settings)
    told = f"{verdict}; {seen.stream.detail}"
    if verdict is Verdict.SOURCE_SILENT:
        since = f"since {seen.source_at}" if seen.source_at else "yet"
        message = f"the producer has received nothing {since}, not even a canary; or its capture is at its end"
        alerts.fire(Alert(AlertKind.SOURCE_SILENT, STREAM, message, severity=Severity.WARNING))
    elif verdict is not Verdict.UNMANAGED and not source_is_silent(seen, settings):
        alerts.clear(AlertKind.SOURCE_SILENT, STREAM, f"the source sends again, last at {seen.source_at}")
    if new := seen.gaps_total - memory.gaps_told:
        for gap in seen.gaps[-new:] if new > 0 else ():  # fewer than before: it is another source
            message = f"at {gap.detected_at} the source no longer had what came next: events were left out"
            alerts.fire(Alert(AlertKind.SOURCE_GAP, gap.detected_at, message, gap.as_dict()))
        if not alerts.not_kept:  # else told at the next tick: nothing else will ever tell of a gap
            memory = replace(memory, gaps_told=seen.gaps_total)
    if memory.revived_at == seen.now:
        message = f"the stream died at {seen.stream.died} and was started again"
        details = {"instance": seen.stream.instance, "is": seen.stream.detail}
        alerts.fire(Alert(AlertKind.STREAM_RESTARTED, STREAM, message, details, severity=Severity.WARNING))
    if verdict is Verdict.STALLED:
        return _help(memory, seen, control, alerts, settings), told
    if verdict in (Verdict.FRESH, Verdict.QUIET) and _commits_again(memory, seen):
        for kind in (AlertKind.STREAM_RESTARTED, AlertKind.STREAM_GIVEN_UP):
            alerts.clear(kind, STREAM, f"Bronze commits again, last at {seen.committed_at}")
        return recovered(memory), told
    return memory, told


def _commits_again(memory: Memory, seen: Seen) -> bool:
    """Whether Bronze has committed since the restart; one that the sensor has forgotten was no later than the process's start."""
    restarted_at = max(filter(None, (memory.revived_at, memory.tried_at)), default=seen.stream.since)
    return bool(seen.committed_at and restarted_at and seen.committed_at > restarted_at)


def _help(memory: Memory, seen: Seen, control: StreamControl, alerts: Alerts, settings: Settings) -> Memory:
    step = next_step(memory, seen.now, settings)
    waiting = f"records have been waiting for Bronze since {memory.waiting_since}, newest snapshot {seen.snapshot_id}"
    if step is Step.GIVE_UP:
        message = f"{waiting}; {memory.tries} restarts did not help: see logs/stream.out, fix it, then 'make down' and 'make up'"
        alerts.fire(Alert(AlertKind.STREAM_GIVEN_UP, STREAM, message))
        return replace(memory, given_up=True)
    if step is Step.RESTART and control.restart(seen.stream.instance):
        message = f"{waiting}: restarted it, try {memory.tries + 1} of {settings.stream_restart_tries}"
        details = {"instance": seen.stream.instance, "was": seen.stream.detail}
        alerts.fire(Alert(AlertKind.STREAM_RESTARTED, STREAM, message, details, severity=Severity.WARNING))
        return tried(memory, seen.now)
    return memory


def look(lakehouse: Lakehouse, broker: Broker, control: StreamControl, chosen: PipelineSource | None) -> Seen:
    """Look at the stream and at the source behind it.

    Raises:
        BrokerError: the broker does not answer.
    """
    broker.refuse_absent()
    newest = lakehouse.state(RAW_EVENTS).newest_batch
    found = broker.newest_cursor(chosen.source.identity) if chosen else None
    cursor, source_at = found or (Cursor(), None)
    return Seen(
        now=datetime.now(UTC),
        snapshot_id=newest.snapshot_id if newest else None,
        committed_at=newest.committed_at if newest else None,
        lag=broker.has_committed_records(lakehouse.state(RAW_EVENTS).position, broker.ends(EVENT_TOPICS)),
        source_at=source_at,
        stream=control.state(),
        gaps=cursor.gaps,
        gaps_total=cursor.gaps_total,
    )


def _news(
    lakehouse: Lakehouse, memory: Memory, *, replayed: bool
) -> tuple[list[dg.AssetMaterialization | dg.AssetObservation], Memory]:
    """The events of the snapshots that have not been reported, oldest first."""
    new = _not_reported(lakehouse, memory)[::-1][:_MOST_EVENTS]
    if not new:
        return [], memory
    letters = lakehouse.state(DEAD_LETTER).head()
    events = [*(_event(version, replayed=replayed) for version in new), *_dead_letters(letters)]
    return events, replace(memory, reported=new[-1].snapshot_id, reported_at=new[-1].committed_at)


def _not_reported(lakehouse: Lakehouse, memory: Memory) -> list[Version]:
    """The batches that came after the reported one, newest first."""
    batches = [v for v in lakehouse.state(RAW_EVENTS).history() if v.position is not None and not v.masks]
    if memory.reported is None:
        return batches[:1]  # what was before is no news
    later = list(takewhile(lambda version: version.snapshot_id != memory.reported, batches))
    if len(later) < len(batches):
        return later
    # The reported one is gone: rolled back, which leaves older ones on main, or forgotten, which leaves newer ones alone.
    if memory.reported_at is None:
        return batches[:1]
    return [v for v in later if v.committed_at > memory.reported_at]


def _event(version: Version, *, replayed: bool) -> dg.AssetMaterialization | dg.AssetObservation:
    """A materialization; of a batch that a backfill alone has made an observation, lest it turn a table green that is not."""
    counts = version.counts or {}
    old = counts.get("lag_ms", {}).get("p0", 0) > _OLD_MS and not replayed
    batch: dict[str, Any] = counts.get("batch", {})
    metadata: dict[str, Any] = {
        "dagster/row_count": version.total_records,
        "snapshot": str(version.snapshot_id),
        "committed": dg.MetadataValue.timestamp(version.timestamp_ms / 1000),
        "batch ms": counts.get("milliseconds"),
        **{name.replace("_", " "): value for name, value in batch.items()},
        **{f"lag {name} ms": value for name, value in counts.get("lag_ms", {}).items()},
    }
    kind = dg.AssetObservation if old else dg.AssetMaterialization
    return kind(asset_key(RAW_EVENTS), metadata={name: value for name, value in metadata.items() if value is not None})


def _dead_letters(version: Version | None) -> Iterator[dg.AssetMaterialization]:
    """Each batch consumes both topics: once Bronze has moved, the dead letters up to there are in their table too."""
    if version is not None:
        metadata: dict[str, Any] = {
            "dagster/row_count": version.total_records,
            "snapshot": str(version.snapshot_id),
        }
        yield dg.AssetMaterialization(asset_key(DEAD_LETTER), metadata=metadata)
