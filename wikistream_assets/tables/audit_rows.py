"""Verdicts and profiles as Arrow tables with exactly the columns, order and types of the ``dq_audit`` contracts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome
from wikistream_assets.tables.dq_audit import FAILING_ROWS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.spec import ColumnType, TableSpec

_ARROW_TYPES: Final[dict[ColumnType, pa.DataType]] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class GateContext:
    """Which audit the rows belong to.

    Attributes:
        run_id: Dagster run, or the command that ran the gate.
        stream: name of the declared stream.
        layer: bronze, silver or gold.
        range_start: snapshot the audited range starts after; the empty table's for the first range.
        range_end: last snapshot of the audited range.
        attempt: 1 for the first audit of a range with this end.
        ran_at: when the gate ran, aware.
        dates: of a recomputation, which has no range of its own, the dates that were computed anew.
    """

    run_id: str
    stream: str
    layer: str
    range_start: int | None
    range_end: int
    attempt: int
    ran_at: datetime
    dates: tuple[str, ...] = ()

    @property
    def run_date(self) -> str:
        """UTC date of ``ran_at``, yyyy-MM-dd."""
        return self.ran_at.astimezone(UTC).date().isoformat()


def check_id(table: str, check: str, context: GateContext) -> str:
    """SHA-256 (64 hexadecimal digits) of what identifies a verdict: an attempt that is recorded twice gets the same id."""
    identity = [table, check, context.range_start, context.range_end, context.attempt, *context.dates]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def quality_results_table(outcomes: Sequence[CheckOutcome], context: GateContext) -> pa.Table:
    """One row of ``dq_audit.quality_results`` per outcome."""
    return _arrow(QUALITY_RESULTS, [_result(outcome, context) for outcome in outcomes])


def failing_rows_table(outcomes: Sequence[CheckOutcome], context: GateContext) -> pa.Table:
    """One row of ``dq_audit.failing_rows`` per failing key."""
    rows = [{**_verdict(outcome, context), "failing_key": key} for outcome in outcomes for key in outcome.failing_keys]
    return _arrow(FAILING_ROWS, rows)


def profile_metrics_table(profiles: Sequence[ColumnProfile], table: str, context: GateContext) -> pa.Table:
    """One row of ``dq_audit.profile_metrics`` per profiled column of ``table`` (``namespace.name``)."""
    rows = [
        {**_run(context), "table_name": table, **asdict(profile), "null_rate": profile.null_rate}
        for profile in profiles
    ]
    return _arrow(PROFILE_METRICS, rows)


def _run(context: GateContext) -> dict[str, Any]:
    return {
        "run_id": context.run_id,
        "stream": context.stream,
        "layer": context.layer,
        "run_timestamp": context.ran_at,
        "run_date": context.run_date,
    }


def _verdict(outcome: CheckOutcome, context: GateContext) -> dict[str, Any]:
    name = outcome.rule.name
    return {
        **_run(context),
        "check_id": check_id(outcome.table, name, context),
        "table_name": outcome.table,
        "check_name": name,
    }


def _result(outcome: CheckOutcome, context: GateContext) -> dict[str, Any]:
    checked, failed = outcome.records_checked, outcome.records_failed
    return {
        **_verdict(outcome, context),
        "check_type": outcome.rule.dimension.value,
        "severity": outcome.rule.severity.value,
        "status": outcome.status.value,
        "metric_value": outcome.metric,
        "threshold_value": outcome.rule.threshold,
        "records_checked": checked,
        "records_passed": checked - failed,
        "records_failed": failed,
        "failure_rate": failed / checked if checked else 0.0,
        "message": outcome.message,
        "evidence": json.dumps(outcome.evidence, ensure_ascii=False, sort_keys=True),
        "check_duration_ms": outcome.duration_ms,
        "range_start": context.range_start,
        "range_end": context.range_end,
        "attempt": context.attempt,
    }


def _arrow(spec: TableSpec, rows: list[dict[str, Any]]) -> pa.Table:
    """Columns that the contract does not have are dropped, so that rows of several tables can share their common part."""
    schema = pa.schema([(column.name, _ARROW_TYPES[column.type]) for column in spec.columns])
    return pa.Table.from_pylist(rows, schema)
