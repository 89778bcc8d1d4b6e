"""Is the pipeline of this home well? Read from supervisord, Kafka, Iceberg's metadata and Dagster's database, without Spark."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from producer.cursor import GAP_TOLD, Cursor
from producer.exceptions import ProducerError
from producer.launch import read_cursor
from producer.topics import EVENT_TOPICS
from wikistream_assets.alerts.watch import lag
from wikistream_assets.embedded import services
from wikistream_assets.embedded.lake import local_lake
from wikistream_assets.embedded.services import ServiceStatus
from wikistream_assets.embedded.source import PipelineSource, chosen_source
from wikistream_assets.engine.audit_log import newest_verdicts
from wikistream_assets.engine.gate_control import GateState, gate_states
from wikistream_assets.exceptions import BrokerError
from wikistream_assets.instance.cycles import STEPS, cycle_at_work, last_cycle
from wikistream_assets.instance.home import dagster_instance
from wikistream_assets.kafka.broker import Broker
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.lake.state import clock_is_behind
from wikistream_assets.quality.quarantine import BUDGET_RULES
from wikistream_assets.quality.rule import Status
from wikistream_assets.settings import Settings
from wikistream_assets.streams.edits.stream import EDITS
from wikistream_assets.streams.edits.tables import CLEANED_EVENTS, GOLD_TABLES, RAW_EVENTS
from wikistream_assets.streams.registry import ALL_TABLES
from wikistream_assets.supervision.cycle_loop import Ended, Last
from wikistream_assets.tables.dq_audit import QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec

_ANSWER_SECONDS: Final = 3.0

STALE: Final = timedelta(minutes=3)
"""A producer that has not advanced for so long, or a Bronze with records waiting for so long, is ill. Where batches are rare,
Bronze has the time after which the stream is taken for stuck."""


@dataclass(frozen=True)
class Budget:
    """The newest verdict on one budget of the quarantine.

    Attributes:
        check: name of the rule.
        message: the verdict in one sentence.
        read / quarantined: rows that it looked at, and those of them that went to quarantine.
        rules: row rule -> rows that broke it.
    """

    check: str
    status: Status
    message: str
    read: int
    quarantined: int
    rules: dict[str, int]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Budget":
        """From a row of ``quality_results``."""
        found = json.loads(row["evidence"])
        figures = {name: found[name] for name in ("read", "quarantined", "rules")}
        return cls(row["check_name"], Status(row["status"]), row["message"], **figures)


@dataclass(frozen=True)
class Health:
    """What was found, at ``at``. Times are None where there is nothing yet, and what Kafka says where it does not answer.

    Attributes:
        source: what the pipeline reads: synthetic, live or a path; None if it was never started.
        programs: the state of each program.
        kafka_answers: whether Kafka could be asked; if not, ``received``, ``cursor_at`` and ``bronze_lag`` are unknown.
        received: events the producer has taken from this source, in all its runs.
        cursor_at: when it last advanced.
        bronze_lag: offsets in Kafka that Bronze has not read, transaction markers included; 0 if no record is among them.
        bronze_at / silver_at / gold_at: newest snapshot that moved the table's position; Gold's is that of its oldest table.
        verdict_at: when a gate last wrote down its verdicts.
        quarantine: how much went to quarantine, by the newest verdict on each budget; also by one that closed the gate.
        cycle: the newest cycle that has ended.
        blocked: what keeps a gate closed: its checks, and decisions that it cannot obey.
        problems: what is wrong, one line each; empty means well.
    """

    at: datetime
    source: str | None
    programs: tuple[ServiceStatus, ...]
    kafka_answers: bool
    received: int | None
    cursor_at: datetime | None
    bronze_lag: int | None
    bronze_at: datetime | None
    silver_at: datetime | None
    gold_at: datetime | None
    verdict_at: datetime | None
    quarantine: tuple[Budget, ...]
    cycle: Last | None
    blocked: tuple[str, ...]
    problems: tuple[str, ...]


def examine(settings: Settings, now: datetime | None = None) -> Health:
    """Look at everything once.

    Raises:
        WikistreamError: something that cannot be looked at: settings, the home, the catalog.
    """
    moment = now or datetime.now(UTC)
    chosen = chosen_source(settings)
    programs = tuple(services.status(settings))
    lake = local_lake(settings) if settings.catalog_db.exists() else None
    kafka_answers, cursor, behind = _kafka(settings, chosen, lake)
    cursor_at = datetime.fromisoformat(cursor.updated_at) if cursor else None
    bronze_at = _moved(lake, RAW_EVENTS)
    gates = gate_states(lake) if lake else ()
    blocked = _blocked(gates)
    cycle, at_work = _cycles(settings)
    problems = [f"{service.name} is {service.state}: {service.detail}" for service in programs if not service.well]
    if chosen is None:
        problems.append("the pipeline was never started: 'make up' starts it")
    elif chosen.endless and cursor_at and moment - cursor_at > STALE:
        problems.append(f"the producer has not advanced since {cursor_at.isoformat(timespec='seconds')}")
    elif chosen.endless and kafka_answers and cursor_at is None and _uptime(programs, "producer") > STALE:
        problems.append("the producer has received nothing yet: see logs/producer.out")
    for gap in cursor.gaps_since(moment - GAP_TOLD) if cursor else ():
        problems.append(f"the source left events out, noticed at {gap.detected_at}: see 'wikistream backfill --help'")
    if lake is not None and (clock := clock_is_behind(map(lake.state, ALL_TABLES), datetime.now(UTC))):
        problems.append(clock)
    stuck = max(STALE, timedelta(seconds=settings.bronze_stall_seconds))
    if behind and (bronze_at is None or moment - bronze_at > stuck):
        last = f"last committed at {bronze_at.isoformat(timespec='seconds')}" if bronze_at else "never committed"
        problems.append(f"Bronze is {behind:,} offsets behind Kafka and has {last}")
    if cycle is not None and cycle.ended is Ended.BROKEN:
        problems.append(
            f"cycle {cycle.run_id} failed or was cancelled: fix what its run in the UI names, then start 'cycle'"
        )
    problems += [f"a gate is closed by {check}: see 'wikistream gate status'" for check in blocked]
    if lake is not None and not blocked and (cycle is None or cycle.ended is not Ended.BROKEN):
        problems += _standstill(lake, gates, cycle, settings, moment, at_work=at_work)
    return Health(
        at=moment,
        source=chosen.spec if chosen else None,
        programs=programs,
        kafka_answers=kafka_answers,
        received=cursor.counters.received if cursor else None,
        cursor_at=cursor_at,
        bronze_lag=behind,
        bronze_at=bronze_at,
        silver_at=_moved(lake, CLEANED_EVENTS),
        gold_at=min((at for spec in GOLD_TABLES if (at := _moved(lake, spec))), default=None),
        verdict_at=_last_verdict(lake),
        quarantine=_budgets(lake),
        cycle=cycle,
        blocked=blocked,
        problems=tuple(problems),
    )


def _kafka(
    settings: Settings, chosen: PipelineSource | None, lake: Lakehouse | None
) -> tuple[bool, Cursor | None, int | None]:
    """Whether the broker answers, the producer's cursor, and Bronze's lag."""
    broker = Broker(settings.bootstrap_servers)
    try:
        broker.wait_ready(_ANSWER_SECONDS)
        cursor = read_cursor(chosen.source, settings) if chosen else None
        return True, cursor, _lag(broker, lake) if lake else None
    except (BrokerError, ProducerError):  # its own status names the reason
        return False, None, None


def _lag(broker: Broker, lake: Lakehouse) -> int:
    behind = sum(sum(partitions.values()) for partitions in lag(broker, lake, EDITS).values())
    return (
        behind
        if behind and broker.has_committed_records(lake.state(RAW_EVENTS).position, broker.ends(EVENT_TOPICS))
        else 0
    )


def _moved(lake: Lakehouse | None, spec: TableSpec) -> datetime | None:
    if lake is None:
        return None
    # where masking's mark is the oldest snapshot that is kept, the table moved no later than that
    newest = lake.state(spec).newest_batch or lake.state(spec).newest_position()
    return newest.committed_at if newest else None


def _last_verdict(lake: Lakehouse | None) -> datetime | None:
    """When verdicts were last added; compaction only writes them anew.

    Where only such snapshots are kept, the oldest of them: the verdicts are no younger.
    """
    kept = [version for version in lake.state(QUALITY_RESULTS).history() if version.total_records] if lake else []
    added = (version for version in kept if version.operation == "append" and version.added_records)
    newest = next(added, kept[-1] if kept else None)
    return newest.committed_at if newest else None


def _budgets(lake: Lakehouse | None) -> tuple[Budget, ...]:
    verdicts = newest_verdicts(lake) if lake else []
    return tuple(Budget.of(row) for row in verdicts if row["check_name"] in BUDGET_RULES)


def _cycles(settings: Settings) -> tuple[Last | None, bool]:
    """The newest cycle that has ended, and whether another one is queued or at work."""
    if not settings.dagster_home.is_dir():
        return None, False
    with dagster_instance(settings) as instance:
        return last_cycle(instance), cycle_at_work(instance)


def _uptime(programs: Sequence[ServiceStatus], name: str) -> timedelta:
    return timedelta(seconds=next((it.uptime_seconds or 0 for it in programs if it.name == name), 0))


def _blocked(gates: Sequence[GateState]) -> tuple[str, ...]:
    checks = (f"{failure['table_name']}.{failure['check_name']}" for state in gates for failure in state.failures)
    return (*checks, *("a decision that is refused" for state in gates for _ in state.refusals))


def _standstill(
    lake: Lakehouse,
    gates: Sequence[GateState],
    cycle: Last | None,
    settings: Settings,
    moment: datetime,
    *,
    at_work: bool,
) -> list[str]:
    """The first gate that something has waited for longer than a table may be old and a cycle may take, if none has ended since.

    Then nothing starts the cycles, or nothing carries them out, though every program runs. Before the first rows none is due.
    """
    bronze = lake.state(RAW_EVENTS).head()
    if bronze is None or bronze.total_records == 0:
        return []
    pause = settings.cycle_first_seconds if cycle is None else settings.cycle_pause_seconds
    # one that is at work may take as long as its steps are allowed to
    allowed = settings.step_max_seconds * (STEPS if at_work else 1)
    longest = timedelta(seconds=max(settings.tables_fresh_seconds, allowed) + pause)
    for gate in gates:
        waiting_since = _waiting_since(lake, gate)
        if waiting_since is None:
            continue
        since = max(waiting_since, cycle.at) if cycle else waiting_since
        if moment - since > longest:
            waits = f"{gate.stream.audited(gate.layer).identifier} has waited for the {gate.layer} gate"
            told = f"{waits} since {since.isoformat(timespec='seconds')} and no cycle has ended"
            return [f"{told}: is the sensor cycle_loop on (Automation in the UI), what does logs/daemon.out say?"]
    return []


def _waiting_since(lake: Lakehouse, gate: GateState) -> datetime | None:
    """When the oldest batch that waits for the gate was committed; None if none does."""
    pending = gate.pending
    waiting = lake.state(gate.stream.audited(gate.layer)).between(pending.start, pending.end)
    batches = [version for version in waiting if version.position is not None and not version.masks]
    return batches[-1].committed_at if batches else None
