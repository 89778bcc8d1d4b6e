"""The audit trail: verdicts, profiles and failing keys are written here before anything is published, and read back from here.

The verdicts of one attempt are written once: a gate that is killed after writing them and started again finds them by their
``check_id`` and goes on to publication. If it comes to other verdicts than those, it is another attempt, with its own number.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet
from pyiceberg.expressions import And, In
from pyiceberg.expressions.parser import parse
from pyiceberg.table import Table

from wikistream_assets.engine.context import SnapshotRange
from wikistream_assets.lake.lakehouse import Lakehouse, matching
from wikistream_assets.quality.drift import PROFILE_FIELDS
from wikistream_assets.quality.expectations import HourCounts
from wikistream_assets.quality.profile import ColumnProfile
from wikistream_assets.quality.rule import CheckOutcome, Status
from wikistream_assets.streams.declaration import Stream
from wikistream_assets.streams.registry import STREAMS
from wikistream_assets.tables.audit_rows import (
    GateContext,
    failing_rows_table,
    profile_metrics_table,
    quality_results_table,
)
from wikistream_assets.tables.dq_audit import FAILING_ROWS, PROFILE_METRICS, QUALITY_RESULTS
from wikistream_assets.tables.spec import TableSpec

_VERDICT: Final = ("status", "metric_value", "threshold_value", "records_checked", "records_failed")
"""Two verdicts of a check that agree in these are one. The rest (time, run, message) may differ when an attempt is done again."""

_WITHOUT_KEYS: Final = (Status.PASSED, Status.SKIPPED)

_LONGEST_STEP: Final = timedelta(days=2)
"""Verdicts of a run are looked for in this much of the trail: a step takes minutes, and its clock may differ."""

BASELINE_DAYS = 7
"""Drift is judged against the profiles of this many days."""


def attempt_number(lake: Lakehouse, stream: Stream, layer: str, range_end: int, *, unfinished: bool) -> int:
    """The number of the attempt that begins now at a range that ends with ``range_end``.

    Ranges with the same end share their numbers: a backfill's ends where a cycle's has ended, one after a rollback may start
    earlier than before. So the highest number is always the newest attempt.

    Args:
        unfinished: whether the newest attempt has published nothing. If it did not block either, it was killed, and is now done
            again under its own number.
    """
    newest = next(iter(_attempts(lake, stream, layer, range_end)), [])
    if not newest:
        return 1
    killed = unfinished and not _blocked(newest)
    number: int = newest[0]["attempt"]
    return number if killed else number + 1


def write(
    lake: Lakehouse,
    context: GateContext,
    outcomes: Sequence[CheckOutcome],
    profiles: Sequence[tuple[TableSpec, Sequence[ColumnProfile]]],
) -> None:
    """Record one attempt's verdicts, failing keys and profiles, before anything is published.

    An attempt that was killed and is done again is not recorded twice. If its verdicts are others now (the rule was changed, or
    other dates are computed anew), they are those of the next attempt: what is published, or blocked, always has its own.
    """
    results = quality_results_table(outcomes, context)
    recorded = _verdicts(
        lake.table(QUALITY_RESULTS)
        .scan(
            row_filter=matching(
                since=_since(lake, STREAMS[context.stream], context.layer, context.range_end),
                layer=context.layer,
                range_end=context.range_end,
                attempt=context.attempt,
            ),
            selected_fields=("check_id", *_VERDICT),
        )
        .to_arrow()
    )
    if recorded == _verdicts(results):
        return
    if recorded:
        context = replace(context, attempt=context.attempt + 1)
        results = quality_results_table(outcomes, context)
    _append_once(lake, FAILING_ROWS, failing_rows_table(outcomes, context))
    profiled = [profile_metrics_table(columns, spec.identifier, context) for spec, columns in profiles if columns]
    if profiled:  # of no tables there is no schema
        _append_once(lake, PROFILE_METRICS, pa.concat_tables(profiled))
    # Last, because the verdicts are what a restart looks for.
    lake.append(QUALITY_RESULTS, results)


def _append_once(lake: Lakehouse, spec: TableSpec, rows: pa.Table) -> None:
    """Append the rows whose keys the newest append has not: a gate that is killed before its verdicts leaves them there."""
    if not rows.num_rows:
        return
    newest = lake.state(spec).head()
    left = _added_rows(lake.table(spec), newest.snapshot_id) if newest and newest.operation == "append" else []
    there = {_key(spec, row) for row in left}
    new = rows.filter(pa.array([_key(spec, row) not in there for row in rows.to_pylist()], pa.bool_()))
    if new.num_rows:
        lake.append(spec, new)


def _key(spec: TableSpec, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in spec.key)


def _verdicts(results: pa.Table) -> dict[str, tuple[Any, ...]]:
    """``check_id`` -> what was found."""
    return {row["check_id"]: tuple(row[name] for name in _VERDICT) for row in results.to_pylist()}


def _blocked(verdicts: Iterable[Mapping[str, Any]]) -> bool:
    return any(Status(row["status"]).blocks for row in verdicts)


def last_attempt(lake: Lakehouse, stream: Stream, layer: str, covered: SnapshotRange) -> list[dict[str, Any]]:
    """Rows of ``quality_results`` of the newest attempt at exactly this range, as recorded."""
    return next(iter(_attempts(lake, stream, layer, covered.end, covered.start)), [])


def last_attempt_up_to(lake: Lakehouse, stream: Stream, layer: str, range_end: int) -> list[dict[str, Any]]:
    """Rows of ``quality_results`` of the newest attempt at a range with this end, wherever it starts."""
    return next(iter(_attempts(lake, stream, layer, range_end)), [])


def _attempts(
    lake: Lakehouse, stream: Stream, layer: str, range_end: int, range_start: int | None = None
) -> list[list[dict[str, Any]]]:
    """The rows of each attempt at a range with this end, and with this start if one is given; newest first."""
    start = {} if range_start is None else {"range_start": range_start}
    condition = matching(since=_since(lake, stream, layer, range_end), layer=layer, range_end=range_end, **start)
    rows = [
        row for row in lake.table(QUALITY_RESULTS).scan(row_filter=condition).to_arrow().to_pylist() if _of(stream, row)
    ]
    numbers = sorted({row["attempt"] for row in rows}, reverse=True)
    return [[row for row in rows if row["attempt"] == number] for number in numbers]


def _since(lake: Lakehouse, stream: Stream, layer: str, range_end: int) -> tuple[str, str] | None:
    """From which ``run_date`` on there may be verdicts on a range with this end: they need not be looked for in all of history.

    A day is allowed for clocks. None if the range's end is forgotten, and with it when it was committed.
    """
    end = next(lake.state(stream.audited(layer)).history(range_end), None)
    return ("run_date", (end.committed_at - timedelta(days=1)).date().isoformat()) if end else None


def newest_verdicts(lake: Lakehouse) -> list[dict[str, Any]]:
    """Rows of ``quality_results`` of each layer's newest attempt, read from the few files that hold them.

    Each attempt is one append. What lies behind expired snapshots is not looked for.
    """
    table = lake.table(QUALITY_RESULTS)
    gates = [(stream.name, layer) for stream in STREAMS.values() for layer in stream.layers]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for version in lake.state(QUALITY_RESULTS).history():
        if version.operation != "append" or not version.added_records:
            continue
        try:
            rows = _added_rows(table, version.snapshot_id)
        except FileNotFoundError:
            break
        for name, layer in {(stream_name(row), row["layer"]) for row in rows} - found.keys():
            found[name, layer] = [row for row in rows if (stream_name(row), row["layer"]) == (name, layer)]
        if len(found) == len(gates):
            break
    return [row for gate in gates for row in found.get(gate, [])]


def stream_name(row: Mapping[str, Any]) -> str:
    """The stream that a row is about; rows of before there was this column are about the first."""
    return row.get("stream") or next(iter(STREAMS))


def _of(stream: Stream, row: Mapping[str, Any]) -> bool:
    return stream_name(row) == stream.name


def _added_rows(table: Table, snapshot_id: int) -> list[dict[str, Any]]:
    """The rows that an append added."""
    snapshot = table.snapshot_by_id(snapshot_id)
    rows: list[dict[str, Any]] = []
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        if manifest.added_snapshot_id == snapshot_id:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                if entry.snapshot_id == snapshot_id:
                    with table.io.new_input(entry.data_file.file_path).open() as file:
                        rows += parquet.read_table(file).to_pylist()
    return rows


def verdicts_of_run(lake: Lakehouse, stream: Stream, layer: str, run_id: str) -> list[dict[str, Any]]:
    """Rows of ``quality_results`` of the run's newest attempt at a range of ``layer``; empty if it has recorded none."""
    since = (datetime.now(UTC) - _LONGEST_STEP).date().isoformat()
    condition = matching(since=("run_date", since), layer=layer, run_id=run_id)
    found: list[dict[str, Any]] = lake.table(QUALITY_RESULTS).scan(row_filter=condition).to_arrow().to_pylist()
    rows = [row for row in found if _of(stream, row)]
    newest = max((row["run_timestamp"] for row in rows), default=None)
    return [row for row in rows if row["run_timestamp"] == newest]


def outcomes_of(
    lake: Lakehouse, tables: Iterable[TableSpec], verdicts: Sequence[Mapping[str, Any]]
) -> tuple[CheckOutcome, ...]:
    """The outcomes that were recorded as ``verdicts``, with the keys that broke a rule; SKIPPED for a rule without one."""
    recorded = {(row["table_name"], row["check_name"]): row for row in verdicts}
    # A check may name what breaks it without counting rows: the gates that have not passed, for example.
    may_name_keys = [row for row in verdicts if row["records_failed"] or row["status"] not in _WITHOUT_KEYS]
    keys = _failing_keys(lake, may_name_keys) if may_name_keys else {}
    return tuple(
        _outcome(spec, rule.name, row, keys.get(row["check_id"], ()) if row else ())
        for spec in tables
        for rule in spec.rules
        for row in [recorded.get((spec.identifier, rule.name))]
    )


def _failing_keys(lake: Lakehouse, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """``check_id`` -> the keys recorded with it, perhaps a while before: by an attempt that was killed and done again."""
    since = (min(row["run_timestamp"] for row in verdicts) - _LONGEST_STEP).date().isoformat()
    of_these = In("check_id", [row["check_id"] for row in verdicts])  # type: ignore[call-arg]  # mypy misreads it
    condition = And(matching(since=("run_date", since)), of_these)
    found: dict[str, tuple[str, ...]] = {}
    scan = lake.table(FAILING_ROWS).scan(row_filter=condition, selected_fields=("check_id", "failing_key"))
    for row in scan.to_arrow().to_pylist():
        found[row["check_id"]] = (*found.get(row["check_id"], ()), row["failing_key"])
    return found


def stored_outcomes(
    lake: Lakehouse, stream: Stream, layer: str, tables: Iterable[TableSpec], range_end: int
) -> tuple[CheckOutcome, ...]:
    """The verdicts with which the range ending with ``range_end`` was published; SKIPPED for a rule that has none there.

    A backfill attempts what is published once more: one that fails leaves the tables, and so their verdicts, as they are.
    """
    attempts = _attempts(lake, stream, layer, range_end)
    return outcomes_of(lake, tables, next((rows for rows in attempts if not _blocked(rows)), []))


def _outcome(
    spec: TableSpec, check_name: str, row: Mapping[str, Any] | None, keys: tuple[str, ...] = ()
) -> CheckOutcome:
    rule = spec.rule(check_name)
    if row is None:
        return CheckOutcome(rule, spec.identifier, Status.SKIPPED, message="nothing has been audited yet")
    return CheckOutcome(
        rule=replace(rule, threshold=row["threshold_value"]),  # as it was then: criteria may have set another one
        table=spec.identifier,
        status=Status(row["status"]),
        metric=row["metric_value"],
        records_checked=row["records_checked"],
        records_failed=row["records_failed"],
        message=row["message"],
        evidence=json.loads(row["evidence"]),
        duration_ms=row["check_duration_ms"],
        failing_keys=keys,
    )


def baseline(lake: Lakehouse, spec: TableSpec, context: GateContext) -> list[dict[str, Any]]:
    """Profiles of ``spec`` of the last ``BASELINE_DAYS`` days: ``PROFILE_FIELDS``, one dict for each column of each attempt."""
    since = (context.ran_at - timedelta(days=BASELINE_DAYS)).date().isoformat()
    rows: list[dict[str, Any]] = (
        lake.table(PROFILE_METRICS)
        .scan(
            row_filter=And(
                matching(table_name=spec.identifier, since=("run_date", since)), parse("event_hour is null")
            ),
            selected_fields=PROFILE_FIELDS,
        )
        .to_arrow()
        .to_pylist()
    )
    return rows


def hour_counts(lake: Lakehouse, spec: TableSpec, since: datetime, before: datetime) -> HourCounts:
    """What was counted in the complete hours of ``spec`` from ``since`` on and before ``before``, by the newest count of each.

    No hour is counted before it has happened, so no older day of the audit trail is opened; in the others, only the files of
    audits that counted an hour.
    """
    run_since = (since - timedelta(days=1)).date().isoformat()  # a day is allowed for clocks
    condition = And(
        matching(table_name=spec.identifier, since=("run_date", run_since)),
        parse(f"event_hour >= '{since.isoformat()}' and event_hour < '{before.isoformat()}'"),
    )
    fields = ("event_hour", "column_name", "value", "record_count", "run_timestamp")
    rows = lake.table(PROFILE_METRICS).scan(row_filter=condition, selected_fields=fields).to_arrow().select(fields)
    counted: dict[datetime, dict[str, dict[str, int]]] = {}
    newest: dict[datetime, datetime] = {}
    for hour, column, value, count, counted_at in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        if hour not in newest or counted_at > newest[hour]:
            newest[hour], counted[hour] = counted_at, {}
        if counted_at == newest[hour]:
            counted[hour].setdefault(column, {})[value] = count
    return counted


def earlier_evidence(lake: Lakehouse, spec: TableSpec, check_name: str, context: GateContext) -> list[str]:
    """Evidence (JSON) of the verdicts of one check over the last ``BASELINE_DAYS`` days, other attempts only."""
    since = (context.ran_at - timedelta(days=BASELINE_DAYS)).date().isoformat()
    rows = (
        lake.table(QUALITY_RESULTS)
        .scan(
            row_filter=matching(table_name=spec.identifier, check_name=check_name, since=("run_date", since)),
            selected_fields=("evidence", "range_end", "attempt"),
        )
        .to_arrow()
        .to_pylist()
    )
    return [
        row["evidence"] for row in rows if (row["range_end"], row["attempt"]) != (context.range_end, context.attempt)
    ]
