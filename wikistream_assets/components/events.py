"""From a table's contract to its Dagster objects, and from a gate's report to Dagster's events.

Belongs here: translation only. What runs and when stands in ``defs``; what is computed stands in ``engine`` and ``streams``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from producer.exceptions import ProducerError
from wikistream_assets.alerts import Alert, AlertKind, Alerts
from wikistream_assets.engine.context import GateReport
from wikistream_assets.exceptions import WikistreamError
from wikistream_assets.instance.dagster_private import DagsterUserCodeProcessError, SerializableErrorInfo
from wikistream_assets.lake.lakehouse import Lakehouse
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.settings import load_settings
from wikistream_assets.streams.registry import TABLE_BY_IDENTIFIER
from wikistream_assets.tables.dq_audit import FAILING_ROWS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec

SOURCE_WITHOUT_GAP: Final = "source_without_gap"
"""The one check that is no gate's: it looks at what Bronze was never given."""

AFTER_PASSED_GATES: Final = dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()
"""Follow upstream on one's own, across runs, but never past a closed gate. The loop does not need it: its cycle holds all layers.
It is for who switches the loop off and Dagster's automation sensor on, and runs layers by hand."""

_AUDIT_TRAIL: Final = (QUALITY_RESULTS, PROFILE_METRICS, FAILING_ROWS)


def asset_key(spec: TableSpec) -> dg.AssetKey:
    """The asset key of a table: the two parts of its name."""
    return dg.AssetKey([spec.namespace, spec.name])


def asset_spec(
    spec: TableSpec,
    *,
    kinds: Sequence[str] = ("iceberg", "spark"),
    skippable: bool = False,
    fresh_seconds: int | None = None,
    automation: dg.AutomationCondition[Any] | None = None,
) -> dg.AssetSpec:
    """The asset of a table: lineage, description, owner, columns; stale after ``fresh_seconds`` without a materialization."""
    schema = dg.TableSchema(
        columns=[dg.TableColumn(column.name, column.type, description=column.comment) for column in spec.columns]
    )
    return dg.AssetSpec(
        key=asset_key(spec),
        deps=[asset_key(TABLE_BY_IDENTIFIER[name]) for name in spec.upstream],
        description=spec.description,
        group_name=spec.namespace,
        owners=[spec.owner],
        kinds=set(kinds),
        skippable=skippable,
        freshness_policy=(
            dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=fresh_seconds)) if fresh_seconds else None
        ),
        automation_condition=automation,
        metadata={
            "dagster/column_schema": schema,
            "dagster/table_name": f"wikistream.{spec.identifier}",
            "key": ", ".join(spec.key),
            "partitioned by": ", ".join(spec.partition_by),
        },
    )


def gated_specs(specs: Sequence[TableSpec]) -> list[dg.AssetSpec]:
    """The assets of tables that a gate publishes.

    Skippable: a closed gate publishes nothing, so the step reports its checks and no materialization.
    """
    fresh_seconds = load_settings().tables_fresh_seconds
    return [
        asset_spec(spec, skippable=True, fresh_seconds=fresh_seconds, automation=AFTER_PASSED_GATES) for spec in specs
    ]


def check_specs(*specs: TableSpec) -> list[dg.AssetCheckSpec]:
    """The checks of the tables' gates. All can block; whether one does is decided by the severity of its verdict."""
    return [
        dg.AssetCheckSpec(
            name=rule.name,
            asset=asset_key(spec),
            description=f"{rule.description} Threshold {rule.threshold:g}, {rule.severity.value}: {rule.because}.",
            blocking=True,
            metadata={
                "dimension": rule.dimension.value,
                "severity": rule.severity.value,
                "threshold": rule.threshold,
                **({} if rule.warn_below is None else {"warning below": rule.warn_below}),
            },
        )
        for spec in specs
        for rule in spec.rules
    ]


def check_result(outcome: CheckOutcome) -> dg.AssetCheckResult:
    """The verdict as Dagster shows it: the same figures as the row in ``dq_audit.quality_results``."""
    metadata: dict[str, Any] = {
        "status": outcome.status.value,
        "message": outcome.message,
        "threshold": outcome.rule.threshold,
        "records checked": outcome.records_checked,
        "records failed": outcome.records_failed,
        "duration ms": outcome.duration_ms,
    }
    if outcome.metric is not None:
        metadata["metric"] = outcome.metric
    if outcome.failing_keys:
        metadata["failing keys"] = dg.MetadataValue.json(list(outcome.failing_keys))
    if outcome.evidence:
        metadata["evidence"] = dg.MetadataValue.json(outcome.evidence)
    return dg.AssetCheckResult(
        asset_key=asset_key(TABLE_BY_IDENTIFIER[outcome.table]),
        check_name=outcome.rule.name,
        passed=outcome.status in (Status.PASSED, Status.SKIPPED),
        severity=dg.AssetCheckSeverity.ERROR if outcome.status.blocks else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
        description=outcome.message,
    )


def materialization(lake: Lakehouse, spec: TableSpec, report: GateReport | None = None) -> dg.MaterializeResult[Any]:
    """The table as it is published now: row count, snapshot, and what was read to make it."""
    version = lake.state(spec).head()
    metadata: dict[str, Any] = {}
    if version is not None:
        metadata |= {
            "dagster/row_count": version.total_records,
            "snapshot": str(version.snapshot_id),
            "rows added by this snapshot": version.added_records,
        }
    if report is not None:
        metadata["published something new"] = report.advanced
        metadata["upstream range"] = f"{report.range.start} .. {report.range.end}"
    return dg.MaterializeResult(asset_key=asset_key(spec), metadata=metadata)


def audit_trail_events(lake: Lakehouse) -> Iterator[dg.AssetMaterialization]:
    """One event per audit table that a gate has just written."""
    for spec in _AUDIT_TRAIL:
        version = lake.state(spec).head()
        if version is not None:
            yield dg.AssetMaterialization(
                asset_key=asset_key(spec),
                metadata={"dagster/row_count": version.total_records, "snapshot": str(version.snapshot_id)},
            )


class _OneLineError(DagsterUserCodeProcessError, dg.Failure):
    """A failed step without a stack trace: of this kind of error Dagster passes on what it brings, and adds nothing."""

    def __init__(self, text: str) -> None:
        dg.Failure.__init__(self, text, allow_retries=False)
        self.user_code_process_error_infos = [SerializableErrorInfo(f"{text}\n", stack=[], cls_name="Failure")]


class TryAgainError(DagsterUserCodeProcessError, dg.RetryRequested):
    """An attempt that failed for something that comes back by itself, without a stack trace either.

    Raised from a ``dg.Failure`` with the same text, which is what Dagster shows after the last attempt.
    """

    def __init__(self, error: WikistreamError, retries: int, seconds: float) -> None:
        dg.RetryRequested.__init__(self, max_retries=retries, seconds_to_wait=seconds)
        self.user_code_process_error_infos = [SerializableErrorInfo(f"{error}\n", stack=[], cls_name="RetryRequested")]


@contextmanager
def plain_failures() -> Iterator[None]:
    """Within a step: an error that was raised on purpose fails it with its one line, cause and remedy, and no stack trace."""
    try:
        yield
    except (WikistreamError, ProducerError) as error:
        raise _OneLineError(str(error)) from None


def failure_text(event: dg.DagsterEvent) -> str | None:
    """The one line of a step that failed by ``plain_failures``; None of one that failed otherwise."""
    said = event.step_failure_data.user_failure_data
    return said.description if said else None


def tell_about_gate(report: GateReport, alerts: Alerts, run_id: str) -> None:
    """Tell someone about each check that keeps the range from being published, and that one no longer does.

    Told by the gate itself and not by a sensor: at once, and also where no daemon runs. What fails without blocking is the
    sensor's (``defs/ops/alerts.py``).
    """
    for outcome in report.outcomes:
        subject = f"{outcome.table}.{outcome.rule.name}"
        if not outcome.status.blocks:
            alerts.clear(AlertKind.GATE_FAILED, subject, f"the check no longer blocks: {outcome.status.value}")
            continue
        details = {
            "status": outcome.status.value,
            "metric": outcome.metric,
            "threshold": outcome.rule.threshold,
            "records_failed": outcome.records_failed,
            "failing_keys": list(outcome.failing_keys),
            "evidence": outcome.evidence,
            "range": [report.range.start, report.range.end],
        }
        alerts.fire(Alert(AlertKind.GATE_FAILED, subject, outcome.message, details, run_id))


def gate_verdicts(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, report: GateReport, lake: Lakehouse, alerts: Alerts
) -> Iterator[dg.AssetCheckResult]:
    """Log what the gate has written to the audit trail, tell who is to be told, and yield a result per rule."""
    for event in audit_trail_events(lake):
        context.log_event(event)
    tell_about_gate(report, alerts, context.run.run_id)
    yield from (check_result(outcome) for outcome in report.outcomes)
