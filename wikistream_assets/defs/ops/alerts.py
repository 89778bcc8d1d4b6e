"""What Dagster sees that a person should know: sensors that feed the alert router, and the one that empties its outbox.

Gates tell of what they block themselves (``components.events.tell_about_gate``); here is what goes wrong without a gate noticing.
Each sensor keeps its place in its cursor and moves it after it has told: a tick that is killed, or could not write down what it
had to tell, tells again, and the router takes that for the same news.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
from dagster import _check as dg_check

from wikistream_assets.alerts import Alert, AlertKind, Alerts, Severity
from wikistream_assets.alerts.watch import (
    Growth,
    Idle,
    Late,
    Stale,
    lag,
    watch_cpu,
    watch_dead_letters,
    watch_lag,
    watch_latency,
    watch_stale,
)
from wikistream_assets.components.events import SOURCE_WITHOUT_GAP, failure_text
from wikistream_assets.defs.bronze.assets import FRESH_SECONDS
from wikistream_assets.defs.ops.stream import look
from wikistream_assets.embedded import services, supervisor
from wikistream_assets.embedded.source import chosen_source
from wikistream_assets.engine.gate_control import waiting_layers
from wikistream_assets.exceptions import BrokerError, NewsNotKeptError, SetupError
from wikistream_assets.instance.cycles import CHECK_FAILED
from wikistream_assets.instance.dagster_private import (
    PARTITION_NAME_TAG,
    DagsterEventType,
    EventLogEntry,
    FreshnessState,
    FreshnessStateChange,
    SerializableErrorInfo,
)
from wikistream_assets.instance.run_launcher import TOOK_TOO_LONG
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import Status
from wikistream_assets.readers.edits.risks import watch_risks
from wikistream_assets.resources.ports import KafkaBroker, Lake, Notifier, StreamSupervisor
from wikistream_assets.settings import Settings, load_settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import RAW_EVENTS
from wikistream_assets.supervision.stream_watch import source_is_silent

_MOST_EVENTS: Final = 2_000
"""Events of a type read in one tick; the next tick goes on."""

_GATES_BEFORE: Final[Mapping[str, frozenset[str]]] = {
    "bronze": frozenset(),
    "silver": frozenset({"bronze", "silver"}),
    "quarantine": frozenset({"bronze", "silver"}),
}
"""The gates that what is new in a namespace has to pass; elsewhere all of them."""

_RUNNING: Final = dg.DefaultSensorStatus.RUNNING


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Failed runs; cleared by the next success of the job, or of that partition of it.",
)
def run_alerts(context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier]) -> dg.SkipReason:
    types = (DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED, DagsterEventType.RUN_SUCCESS)
    events = _new_events(context.instance, _place(context), *types)
    if context.cursor is None:  # what failed and was mended before anyone looked is no news
        told = list({_subject(context.instance, entry): entry for entry in events.values()}.values())
    else:
        told = list(events.values())
    alerts = notifier.open()
    for entry in told:
        _tell_of_run(context.instance, alerts, entry)
    return _looked_at(context, events, alerts)


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Checks that failed and did not block, which leaves the run green; cleared when the check passes.",
)
def check_alerts(context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier]) -> dg.SkipReason:
    events = _new_events(context.instance, _place(context), DagsterEventType.ASSET_CHECK_EVALUATION)
    newest = {}
    for entry in events.values():
        evaluation = _event(entry).asset_check_evaluation_data
        newest[evaluation.asset_check_key] = (evaluation, entry.run_id)
    alerts = notifier.open()
    for evaluation, run_id in newest.values():
        _tell_of_check(alerts, evaluation, run_id)
    return _looked_at(context, events, alerts)


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=_RUNNING,
    description="Tables that are older than their policy allows; a warning where nothing new is to be had for them.",
)
def freshness_alerts(
    context: dg.SensorEvaluationContext,
    notifier: dg.ResourceParam[Notifier],
    lake: dg.ResourceParam[Lake],
    broker: dg.ResourceParam[KafkaBroker],
    stream_control: dg.ResourceParam[StreamSupervisor],
) -> dg.SkipReason:
    """Dagster tells of a change of state once; as long as a table is stale, each tick looks anew whether that is an error.

    So a quiet stream that breaks is told here too, after the time that the policy allows: what then waits in Kafka or at a gate,
    a source that is not heard any more and a broker that does not answer all end its being quiet. Sooner, and by its cause,
    it is told by ``stream_restarted`` and ``stream_given_up`` (a stream that has died or hangs), ``lag`` and ``latency`` (one
    that is too slow), ``source_silent`` (no source, or no producer), ``dlq_rate`` (a source whose events nobody can read),
    ``gate_failed`` and ``run_failed`` (behind Bronze). A broker that stays away, and a loop that starts no cycle, are told by
    nobody else but ``wikistream health``.
    """
    known = json.loads(context.cursor) if context.cursor else {}
    if isinstance(known, int):  # an older version kept its place alone
        known = {"after": known}
    stale = {table: Stale(**kept) for table, kept in known.get("stale", {}).items()}
    events = _new_events(context.instance, known.get("after"), DagsterEventType.FRESHNESS_STATE_CHANGE)
    newest: dict[str, FreshnessStateChange] = {}
    for entry in events.values():
        change: Any = _event(entry).event_specific_data
        newest[".".join(change.key.path)] = change
    alerts = notifier.open()
    for table, change in newest.items():
        if change.new_state is FreshnessState.FAIL:
            stale.setdefault(table, Stale())
        else:
            stale.pop(table, None)
            _tell_of_freshness(alerts, table, change)
    said = _watch_stale_tables(alerts, stale, lake.open(), broker, stream_control) if stale else "no table is stale"
    _all_kept(alerts)
    kept = {table: asdict(seen) for table, seen in stale.items()}
    context.update_cursor(json.dumps({"after": max(events, default=known.get("after")), "stale": kept}))
    return dg.SkipReason(f"{len(events)} new events; {said}")


@dg.sensor(minimum_interval_seconds=30, default_status=_RUNNING, description="Records waiting in Kafka for Bronze.")
def lag_alerts(
    context: dg.SensorEvaluationContext,
    notifier: dg.ResourceParam[Notifier],
    lake: dg.ResourceParam[Lake],
    broker: dg.ResourceParam[KafkaBroker],
) -> dg.SkipReason:
    try:
        found = lag(broker.connect(), lake.open(), EDITS)
    except BrokerError as error:
        return dg.SkipReason(str(error))
    seen = json.loads(context.cursor) if context.cursor else {}
    looks_over = watch_lag(notifier.open(), found, load_settings().alert_lag_records, seen)
    context.update_cursor(json.dumps(looks_over))
    return dg.SkipReason(f"waiting: {json.dumps(found)}")


@dg.sensor(
    minimum_interval_seconds=30, default_status=_RUNNING, description="How late events are when Bronze has them."
)
def latency_alerts(
    context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier], lake: dg.ResourceParam[Lake]
) -> dg.SkipReason:
    settings = load_settings()
    chosen = chosen_source(settings)
    if chosen is not None and not chosen.endless:
        notifier.open().clear(AlertKind.LATENCY, RAW_EVENTS.identifier, "the events of a capture are old")
        context.update_cursor("")
        return dg.SkipReason("the events of a capture are old")
    most = settings.alert_latency_seconds
    late = watch_latency(notifier.open(), lake.open(), EDITS.raw, _late(context), time.time(), most)
    context.update_cursor("" if late is None else json.dumps(asdict(late)))
    if late is None:
        return dg.SkipReason("in time")
    return dg.SkipReason(f"late since {datetime.fromtimestamp(late.since, UTC):%H:%M:%S} UTC")


@dg.sensor(minimum_interval_seconds=30, default_status=_RUNNING, description="Dead letters a minute.")
def dlq_alerts(
    context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier], lake: dg.ResourceParam[Lake]
) -> dg.SkipReason:
    most = load_settings().alert_dlq_per_minute
    found = watch_dead_letters(notifier.open(), lake.open(), EDITS, _growth(context), time.time(), most)
    context.update_cursor(json.dumps(asdict(found)))
    return dg.SkipReason(f"{found.total:.0f} dead letters so far")


@dg.sensor(minimum_interval_seconds=60, default_status=_RUNNING, description="The producer's share of a processor.")
def producer_alerts(context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier]) -> dg.SkipReason:
    settings = load_settings()
    try:
        spent = supervisor.processor_seconds(settings, "producer")
    except SetupError as error:
        return dg.SkipReason(str(error))
    if spent is None:
        notifier.open().clear(AlertKind.PRODUCER_CPU, "producer", "the producer does not run")
        context.update_cursor("")
        return dg.SkipReason("the producer does not run: 'make up' starts it")
    every = settings.alert_producer_cpu_seconds
    found = watch_cpu(notifier.open(), "producer", spent, _growth(context), time.time(), every)
    context.update_cursor(json.dumps(asdict(found)))
    return dg.SkipReason(f"{spent:.0f} s of processor time so far")


@dg.sensor(minimum_interval_seconds=30, default_status=_RUNNING, description="HIGH risk users in new rows of Gold.")
def risk_alerts(
    context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier], lake: dg.ResourceParam[Lake]
) -> dg.SkipReason:
    before = int(context.cursor) if context.cursor else None
    named_since = load_settings().names_kept_since(datetime.now(UTC).date())
    alerts = notifier.open()
    seen = watch_risks(alerts, lake.open(), before, named_since)
    _all_kept(alerts)
    context.update_cursor(str(seen) if seen is not None else "")
    return dg.SkipReason(f"looked at snapshot {seen}")


@dg.sensor(minimum_interval_seconds=10, default_status=_RUNNING, description="Sends what waits in the alerts' outbox.")
def alert_delivery(context: dg.SensorEvaluationContext, notifier: dg.ResourceParam[Notifier]) -> dg.SkipReason:
    delivery = notifier.open().deliver()
    return dg.SkipReason(
        f"sent {delivery.sent}, waiting {delivery.waiting}; {'; '.join(delivery.problems) or 'no problem'}"
    )


def _late(context: dg.SensorEvaluationContext) -> Late | None:
    if not context.cursor:
        return None
    kept = json.loads(context.cursor)
    return Late(kept, None) if isinstance(kept, float) else Late(**kept)  # an older version kept the time alone


def _growth(context: dg.SensorEvaluationContext) -> Growth | None:
    return Growth(**json.loads(context.cursor)) if context.cursor else None


def _place(context: dg.SensorEvaluationContext) -> int | None:
    """The event up to which a sensor has told; moved by ``_looked_at`` only."""
    return int(context.cursor) if context.cursor else None


def _new_events(instance: dg.DagsterInstance, after: int | None, *types: DagsterEventType) -> dict[int, EventLogEntry]:
    """The events after this one by their ids, in order; without one, from the first."""
    after = -1 if after is None else after
    storage = instance.event_log_storage
    found: dict[int, EventLogEntry] = {}
    ends = []
    for event_type in types:
        events = storage.get_logs_for_all_runs_by_log_id(after, event_type, _MOST_EVENTS)
        found |= events
        if len(events) == _MOST_EVENTS:  # nothing beyond, of the other types too: there is one cursor for all
            ends.append(max(events))
    return {number: found[number] for number in sorted(found) if not ends or number <= min(ends)}


def _all_kept(alerts: Alerts) -> None:
    """Fail the tick, which then begins at the same place again, if something it told could not be written down."""
    if alerts.not_kept:
        raise NewsNotKeptError("; ".join(alerts.not_kept))


def _looked_at(context: dg.SensorEvaluationContext, events: dict[int, EventLogEntry], alerts: Alerts) -> dg.SkipReason:
    _all_kept(alerts)
    if events:
        context.update_cursor(str(max(events)))
    return dg.SkipReason(f"{len(events)} new events")


def _tell_of_run(instance: dg.DagsterInstance, alerts: Alerts, entry: EventLogEntry) -> None:
    subject = _subject(instance, entry)
    if _event(entry).event_type is DagsterEventType.RUN_SUCCESS:
        for kind in (AlertKind.RUN_FAILED, AlertKind.RUN_TIMEOUT):
            alerts.clear(kind, subject, f"{subject} succeeded")
        return
    if _event(entry).event_type is not DagsterEventType.RUN_FAILURE:
        return  # cancelled by a person
    log = instance.event_log_storage
    engine = log.get_logs_for_run(entry.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    limit = next((text for record in engine if TOOK_TOO_LONG in (text := _event(record).message or "")), None)
    if limit:
        alerts.fire(Alert(AlertKind.RUN_TIMEOUT, subject, limit, run_id=entry.run_id))
    else:
        failures = log.get_logs_for_run(entry.run_id, of_type=DagsterEventType.STEP_FAILURE)
        errors = [(_event(record), _event(record).step_failure_data.error) for record in failures]
        broken = [(event, error) for event, error in errors if error is None or error.cls_name != CHECK_FAILED]
        if broken or not errors:
            step, cause = (
                (broken[0][0].step_key, failure_text(broken[0][0]) or _first_line(broken[0][1]))
                if broken
                else (None, _event(entry).message or "unknown")
            )
            message = f"{subject} failed in {step}: {cause}" if step else f"{subject} failed: {cause}"
            alerts.fire(Alert(AlertKind.RUN_FAILED, subject, message, {"step": step, "error": cause}, entry.run_id))


def _subject(instance: dg.DagsterInstance, entry: EventLogEntry) -> str:
    """The job, and of which partition: a day that a backfill has computed says nothing about another one that broke."""
    run = instance.get_run_by_id(entry.run_id)
    partition = run.tags.get(PARTITION_NAME_TAG) if run else None
    job = entry.job_name or "unknown job"
    return f"{job} of {partition}" if partition else job


def _first_line(error: SerializableErrorInfo | None) -> str:
    """The first line of the innermost cause: what was wrong and not where it went through."""
    while error is not None and error.cause is not None:
        error = error.cause
    lines = error.message.strip().splitlines() if error else []
    return lines[0] if lines else "unknown cause"


def _tell_of_check(alerts: Alerts, evaluation: dg.AssetCheckEvaluation, run_id: str) -> None:
    if evaluation.check_name == SOURCE_WITHOUT_GAP:
        return  # bronze_freshness tells of each gap
    subject = f"{'.'.join(evaluation.asset_key.path)}.{evaluation.check_name}"
    if evaluation.passed:
        if _figure(evaluation, "status") != Status.SKIPPED:
            for kind in (AlertKind.CHECK_FAILED, AlertKind.GATE_FAILED):
                alerts.clear(kind, subject, "the check passed")
        return
    blocks = evaluation.severity is dg.AssetCheckSeverity.ERROR
    if blocks and alerts.is_open(AlertKind.GATE_FAILED, subject):
        return  # the gate has told
    alerts.fire(
        Alert(
            AlertKind.CHECK_FAILED,
            subject,
            evaluation.description or f"check {evaluation.check_name} did not pass",
            {name: _plain(value) for name, value in evaluation.metadata.items()},
            run_id or None,
            Severity.ERROR if blocks else Severity.WARNING,
        )
    )


def _figure(evaluation: dg.AssetCheckEvaluation, name: str) -> object:
    value = evaluation.metadata.get(name)
    return None if value is None else value.value


def _plain(value: dg.MetadataValue[Any]) -> object:
    plain = value.value
    return plain if isinstance(plain, (str, int, float, bool, list, dict)) or plain is None else str(plain)


def _tell_of_freshness(alerts: Alerts, table: str, change: FreshnessStateChange) -> None:
    """Tell of every state but that of a stale table."""
    if change.new_state is FreshnessState.WARN:
        message = f"{table} is about to become stale"
        alerts.fire(Alert(AlertKind.FRESHNESS, table, message, severity=Severity.WARNING))
    else:
        alerts.clear(AlertKind.FRESHNESS, table, f"{table} is {change.new_state.value}")


def _watch_stale_tables(
    alerts: Alerts, stale: dict[str, Stale], lakehouse: Lakehouse, broker: KafkaBroker, stream: StreamSupervisor
) -> str:
    """Look at each of them again, and put what is to be remembered in its place; returns one line for the tick."""
    settings = load_settings()
    idle, said = _idle_source(lakehouse, broker, stream, settings)
    waiting = set(waiting_layers(lakehouse.look(), EDITS))
    for table, seen in stale.items():
        layer = table.partition(".")[0]
        idle_here = None if waiting & _GATES_BEFORE.get(layer, waiting) else idle
        most = FRESH_SECONDS if layer == "bronze" else settings.tables_fresh_seconds
        stale[table] = watch_stale(alerts, table, idle_here, seen, time.time(), most)
    return f"stale: {', '.join(sorted(stale))}; {said}"


def _idle_source(
    lakehouse: Lakehouse, broker: KafkaBroker, stream: StreamSupervisor, settings: Settings
) -> tuple[Idle | None, str]:
    """Why Bronze is given nothing, if that is as it should be, and one line for the tick."""
    try:
        seen = look(lakehouse, broker.connect(), stream.control(), chosen_source(settings))
        ended = services.capture_is_read(settings)
    except (BrokerError, SetupError) as error:
        return None, str(error)
    if seen.lag:
        return None, "records wait for Bronze"
    if not ended and (seen.source_at is None or source_is_silent(seen, settings)):
        return None, "the source is not heard"
    idle = Idle.ENDED if ended else Idle.QUIET
    return idle, idle.value


def _event(entry: EventLogEntry) -> dg.DagsterEvent:
    return dg_check.not_none(entry.dagster_event)
